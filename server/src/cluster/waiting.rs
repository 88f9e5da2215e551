//! Why a manager does not vote yet, in words.

use std::collections::BTreeSet;

use barge_proto::v1::{ManagerRecord, ManagerRole};

use super::reconcile::step::{HEARD, may_vote, waits_for_third};
use crate::store::RaftStatus;

/// What a manager that is to vote waits for, as far as this manager knows; nothing when it votes. Whether it answers and how
/// many entries it lacks is known to the leader only.
#[must_use]
pub fn for_its_vote(
    record: &ManagerRecord,
    records: &[&ManagerRecord],
    raft: &RaftStatus,
) -> Option<String> {
    if let Some(unreachable) = &record.unreachable {
        let since = unreachable.since.unwrap_or_default();
        return Some(format!(
            "it is not reached at {} since {since}: {}",
            unreachable.address, unreachable.found
        ));
    }
    if record.role() != ManagerRole::Voter {
        return None;
    }
    let Some(member) = raft.members.iter().find(|m| m.id == record.raft_id) else {
        return Some("it has not begun to learn".to_owned());
    };
    if member.voter {
        return None;
    }
    // A leader has heard itself.
    let leads = raft.members.iter().any(|member| member.heard.is_some());
    if leads && !may_vote(member) {
        return Some(match (member.heard, member.lag) {
            (None, _) | (_, None) => {
                format!("it has acknowledged nothing yet at {}", member.address)
            }
            (Some(heard), _) if heard > HEARD => {
                let seconds = heard.as_secs();
                format!("it does not answer at {} since {seconds} s", member.address)
            }
            (_, Some(lag)) => format!("it lacks {lag} entries of the log"),
        });
    }
    let voters = raft.members.iter().filter(|member| member.voter).count();
    let is_to_vote = |id| {
        let mut same = records.iter().filter(|record| record.raft_id == id);
        same.any(|record| record.role() == ManagerRole::Voter)
    };
    let ready: BTreeSet<_> = raft
        .members
        .iter()
        .filter(|member| !member.voter && (!leads || may_vote(member)) && is_to_vote(member.id))
        .map(|member| member.id)
        .collect();
    Some(match waits_for_third(records, voters, &ready) {
        true => format!(
            "it waits for a third manager, because beside one voter a second one is one more whose failure stops all writes; \
             `barge cluster promote {}` makes it a voter at once",
            record.raft_id
        ),
        false => "the leader makes it a voter".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use barge_proto::v1::{ManagerUnreachable, Time};

    use super::*;
    use crate::store::Member;

    fn record(raft_id: u64) -> ManagerRecord {
        ManagerRecord {
            raft_id,
            role: ManagerRole::Voter.into(),
            ..ManagerRecord::default()
        }
    }

    fn learner(id: u64) -> Member {
        Member {
            id,
            address: format!("m{id}:1"),
            lag: Some(0),
            heard: Some(Duration::ZERO),
            ..Member::default()
        }
    }

    /// Manager 1 leads, the others are learners.
    fn say(record_of_2: ManagerRecord, learners: Vec<Member>) -> Option<String> {
        let others = learners.iter().filter(|member| member.id > 2);
        let others: Vec<_> = others.map(|member| record(member.id)).collect();
        let records = [record(1), record_of_2.clone()];
        let records: Vec<_> = records.iter().chain(&others).collect();
        let mut members = learners;
        members.push(Member {
            voter: true,
            ..learner(1)
        });
        let raft = RaftStatus {
            members,
            ..RaftStatus::default()
        };
        for_its_vote(&record_of_2, &records, &raft)
    }

    fn says(learners: Vec<Member>, expected: &str) {
        let said = say(record(2), learners);
        assert!(
            said.as_ref().is_some_and(|said| said.contains(expected)),
            "{expected:?} is not in {said:?}"
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        says(vec![], "has not begun");
        says(vec![learner(2)], "`barge cluster promote 2`");
        says(vec![learner(2), learner(3)], "the leader makes it a voter");
        let silent = Member {
            heard: Some(Duration::from_secs(7)),
            ..learner(2)
        };
        says(vec![silent.clone()], "does not answer at m2:1 since 7 s");
        says(
            vec![learner(2), Member { id: 3, ..silent }],
            "waits for a third manager",
        );
        says(
            vec![Member {
                lag: None,
                ..learner(2)
            }],
            "acknowledged nothing yet at m2:1",
        );
        says(
            vec![Member {
                lag: Some(5_000),
                ..learner(2)
            }],
            "lacks 5000 entries",
        );
    }

    #[test]
    fn who_votes_or_is_not_to_vote_waits_for_nothing() {
        let voter = Member {
            voter: true,
            ..learner(2)
        };
        assert_eq!(say(record(2), vec![voter]), None);
        let role = ManagerRole::Learner.into();
        let wished = ManagerRecord { role, ..record(2) };
        assert_eq!(say(wished, vec![learner(2)]), None);
    }

    #[test]
    fn an_address_that_leads_elsewhere_is_named_with_what_is_there() {
        let joining = ManagerRecord {
            role: ManagerRole::Joining.into(),
            unreachable: Some(ManagerUnreachable {
                address: "m9:1".to_owned(),
                found: "manager 1 is there".to_owned(),
                since: Some(Time::default()),
            }),
            ..record(2)
        };
        let said = say(joining, vec![]).unwrap_or_default();
        assert!(said.contains("not reached at m9:1 since 1970"), "{said}");
        assert!(said.ends_with("manager 1 is there"), "{said}");
    }
}
