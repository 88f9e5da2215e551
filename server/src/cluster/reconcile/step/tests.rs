#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! From any members and any wishes, step by step to what was wished for.

use barge_proto::v1::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::store::Member;

fn record(id: u64, role: ManagerRole) -> ManagerRecord {
    ManagerRecord {
        metadata: Some(ObjectMeta {
            uid: format!("u{id}"),
            ..ObjectMeta::default()
        }),
        raft_id: id,
        address: format!("m{id}:1"),
        role: role.into(),
        ..ManagerRecord::default()
    }
}

fn member(id: u64, voter: bool) -> Member {
    Member {
        id,
        address: format!("m{id}:1"),
        uid: format!("u{id}"),
        voter,
        lag: Some(0),
        heard: Some(Duration::ZERO),
    }
}

fn raft(members: Vec<Member>) -> RaftStatus {
    RaftStatus {
        members,
        ..RaftStatus::default()
    }
}

fn plan(records: &[ManagerRecord], raft: &RaftStatus) -> Option<Step> {
    next(
        &records.iter().collect::<Vec<_>>(),
        raft,
        1,
        &BTreeSet::new(),
    )
}

#[test]
fn nothing_to_do() {
    let records = [
        record(1, ManagerRole::Voter),
        record(2, ManagerRole::Learner),
        // It has not said yet that it serves.
        record(3, ManagerRole::Joining),
    ];
    let raft = raft(vec![member(1, true), member(2, false)]);
    assert_eq!(plan(&records, &raft), None);
}

#[test]
fn who_comes_learns_before_it_votes() {
    let records = [
        record(1, ManagerRole::Voter),
        record(2, ManagerRole::Voter),
        record(3, ManagerRole::Voter),
    ];
    let mut now = raft(vec![member(1, true), member(2, true)]);
    let node = Node {
        address: "m3:1".to_owned(),
        uid: "u3".to_owned(),
    };
    let set = Step::Change(MemberChange::Set(3, node));
    assert_eq!(plan(&records, &now), Some(set));
    let mut try_it = |lag, heard| {
        now.members.truncate(2);
        now.members.push(Member {
            lag,
            heard,
            ..member(3, false)
        });
        plan(&records, &now)
    };
    let (just_now, long_ago) = (Some(HEARD), Some(HEARD * 2));
    assert_eq!(try_it(Some(CAUGHT_UP + 1), just_now), Some(Step::Wait));
    assert_eq!(try_it(Some(0), long_ago), Some(Step::Wait), "it is silent");
    assert_eq!(try_it(Some(0), None), Some(Step::Wait), "never heard");
    // A log of few entries is no reason to believe that somebody has them.
    assert_eq!(
        try_it(None, just_now),
        Some(Step::Wait),
        "it acknowledged nothing"
    );
    assert_eq!(try_it(Some(CAUGHT_UP), just_now), promote([3]));
}

fn promote<const N: usize>(ids: [RaftId; N]) -> Option<Step> {
    Some(Step::Change(MemberChange::Promote(ids.into())))
}

#[test]
fn a_second_voter_waits_for_a_third_and_both_vote_in_one_change() {
    let mut records = vec![record(1, ManagerRole::Voter), record(2, ManagerRole::Voter)];
    let mut now = raft(vec![member(1, true), member(2, false)]);
    assert_eq!(plan(&records, &now), None);
    records.push(record(3, ManagerRole::Voter));
    now.members.push(Member {
        lag: None,
        ..member(3, false)
    });
    assert_eq!(
        plan(&records, &now),
        Some(Step::Wait),
        "the third catches up"
    );
    now.members[2].lag = Some(0);
    assert_eq!(plan(&records, &now), promote([2, 3]));
}

#[test]
fn a_person_may_have_two_voters() {
    let mut records = [record(1, ManagerRole::Voter), record(2, ManagerRole::Voter)];
    records[1].promoted = true;
    let mut now = raft(vec![member(1, true), member(2, false)]);
    assert_eq!(plan(&records, &now), promote([2]));
    now.members[1].lag = None;
    assert_eq!(plan(&records, &now), Some(Step::Wait));
}

#[test]
fn nothing_is_proposed_before_the_last_change_is_committed() {
    let records = [record(1, ManagerRole::Voter)];
    let mut now = raft(vec![member(1, true), member(2, true)]);
    (now.changing, now.uncommitted) = (true, true);
    assert_eq!(plan(&records, &now), Some(Step::Wait));
}

#[test]
fn who_moved_is_looked_for_where_it_is_now() {
    let records = [record(1, ManagerRole::Voter), record(2, ManagerRole::Voter)];
    let mut now = raft(vec![member(1, true), member(2, true)]);
    now.members[1].address = "old:1".to_owned();
    let step = plan(&records, &now);
    assert!(
        matches!(step, Some(Step::Change(MemberChange::Set(2, node))) if node.address == "m2:1")
    );
}

#[test]
fn the_leader_hands_over_before_it_leaves() {
    let records = [
        record(1, ManagerRole::Removed),
        record(2, ManagerRole::Voter),
    ];
    let now = raft(vec![member(1, true), member(2, true)]);
    assert_eq!(plan(&records, &now), Some(Step::HandOver));
}

#[test]
fn the_last_voter_stays() {
    let records = [
        record(1, ManagerRole::Removed),
        record(2, ManagerRole::Learner),
    ];
    let now = raft(vec![member(1, true), member(2, false)]);
    assert_eq!(plan(&records, &now), None);
}

#[test]
fn who_cannot_leave_yet_holds_nobody_up() {
    let records = [
        record(1, ManagerRole::Voter),
        record(2, ManagerRole::Removed),
        record(3, ManagerRole::Removed),
    ];
    let now = raft(vec![member(1, true), member(2, true), member(3, true)]);
    let all: Vec<_> = records.iter().collect();
    let step = next(&all, &now, 1, &BTreeSet::from([2]));
    assert_eq!(step, Some(Step::Change(MemberChange::Remove(3))));
}

#[test]
fn an_interrupted_change_is_completed_first() {
    let mut now = raft(vec![member(1, true)]);
    now.changing = true;
    let records = [record(1, ManagerRole::Voter), record(2, ManagerRole::Voter)];
    assert_eq!(
        plan(&records, &now),
        Some(Step::Change(MemberChange::Settle))
    );
}

#[test]
fn a_member_without_a_record_goes() {
    let now = raft(vec![member(1, true), member(2, true)]);
    let step = plan(&[record(1, ManagerRole::Voter)], &now);
    assert_eq!(step, Some(Step::Change(MemberChange::Remove(2))));
}

/// Takes the step as Raft would; answers who leads afterwards.
fn take(step: Step, records: &mut Vec<ManagerRecord>, raft: &mut RaftStatus, own: u64) -> u64 {
    let find = |raft: &RaftStatus, id| raft.members.iter().position(|m| m.id == id);
    match step {
        Step::Change(MemberChange::Set(id, node)) => match find(raft, id) {
            Some(at) => raft.members[at].address = node.address,
            None => raft.members.push(member(id, false)),
        },
        Step::Change(MemberChange::Promote(ids)) => {
            for id in ids {
                let at = find(raft, id).expect("a learner first");
                raft.members[at].voter = true;
            }
        }
        Step::Change(MemberChange::Demote(id)) => {
            let at = find(raft, id).expect("a member");
            raft.members[at].voter = false;
        }
        Step::Change(MemberChange::Remove(id)) => raft.members.retain(|m| m.id != id),
        Step::Change(MemberChange::Settle) => raft.changing = false,
        Step::Forget(uid) => records.retain(|record| record.uid() != uid),
        Step::HandOver => {
            let other = raft.members.iter().find(|m| m.voter && m.id != own);
            return other.expect("another voter").id;
        }
        Step::Wait => panic!("nobody lags here"),
    }
    own
}

fn roles() -> impl Strategy<Value = Vec<(ManagerRole, Option<bool>)>> {
    let role = prop_oneof![
        Just(ManagerRole::Joining),
        Just(ManagerRole::Voter),
        Just(ManagerRole::Learner),
        Just(ManagerRole::Removed),
    ];
    prop::collection::vec((role, prop::option::of(any::<bool>())), 1..7)
}

proptest! {
    #[test]
    fn every_wish_is_reached_and_a_voter_always_leads(all in roles(), changing: bool) {
        let mut records: Vec<_> = (1..).zip(&all).map(|(id, (role, _))| record(id, *role)).collect();
        let members: Vec<_> = (1..)
            .zip(&all)
            .filter_map(|(id, (_, is))| Some(member(id, (*is)?)))
            .collect();
        let Some(mut own) = members.iter().find(|m| m.voter).map(|m| m.id) else {
            return Ok(());
        };
        let mut now = raft(members);
        now.changing = changing;
        let mut steps = 0;
        let nobody = BTreeSet::new();
        while let Some(step) = next(&records.iter().collect::<Vec<_>>(), &now, own, &nobody) {
            own = take(step, &mut records, &mut now, own);
            let leads = now.members.iter().any(|m| m.id == own && m.voter);
            prop_assert!(leads, "{own} leads and does not vote: {now:?}");
            steps += 1;
            prop_assert!(steps < 64, "never done: {records:?} {now:?}");
        }
        let waiting = |record: &&ManagerRecord| {
            let is = now.members.iter().find(|m| m.id == record.raft_id);
            record.role() == ManagerRole::Voter && is.is_some_and(|m| !m.voter)
        };
        let waiting = records.iter().filter(waiting).count();
        let voters = now.members.iter().filter(|m| m.voter).count();
        prop_assert!(waiting == 0 || (waiting, voters) == (1, 1), "{records:?} {now:?}");
        for record in &records {
            let is = now.members.iter().find(|m| m.id == record.raft_id);
            let last = now.members.iter().filter(|m| m.voter).count() == 1;
            match record.role() {
                ManagerRole::Voter => prop_assert!(is.is_some_and(|m| m.voter || waiting == 1)),
                ManagerRole::Learner => prop_assert!(is.is_some_and(|m| !m.voter || last)),
                ManagerRole::Removed => prop_assert!(is.is_some_and(|m| m.voter && last)),
                _ => {}
            }
        }
    }
}
