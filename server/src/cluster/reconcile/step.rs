//! The next step from the current members to the wanted ones.

use std::{collections::BTreeSet, time::Duration};

use barge_proto::v1::{ManagerRecord, ManagerRole};
use barge_state::Kind;

use crate::{
    storage::types::{Node, RaftId},
    store::{Member, MemberChange, RaftStatus},
};

/// A learner that lacks no more entries than this may vote: it has the rest before an operator notices.
pub const CAUGHT_UP: u64 = 1_000;
/// A learner that has acknowledged nothing that was sent within this time does not vote. It is twenty heartbeats.
pub const HEARD: Duration = Duration::from_secs(1);

/// One step. Taking it again, or from a state in which it was half done, is harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Of the members of Raft.
    Change(MemberChange),
    /// The leader itself is to leave: another voter takes its place first, and then takes the step.
    HandOver,
    /// The record of a manager (by uid) that is no member any more goes.
    Forget(String),
    /// Something is missing that comes without the leader's doing: a change is to be committed, or a learner to catch up.
    Wait,
}

/// What to do now; nothing when all is as it should be. `own` is the leader; those in `stay` cannot leave at the moment.
///
/// New members are added before old ones are removed, so that replacing a manager never leaves fewer voters than
/// before. The last voter stays, whatever its record says.
#[must_use]
pub fn next(
    records: &[&ManagerRecord],
    raft: &RaftStatus,
    own: RaftId,
    stay: &BTreeSet<RaftId>,
) -> Option<Step> {
    if raft.uncommitted {
        return Some(Step::Wait);
    }
    if raft.changing {
        return Some(Step::Change(MemberChange::Settle));
    }
    let member = |id| raft.members.iter().find(|member| member.id == id);
    let mut catching_up = None;
    let mut ready = BTreeSet::new();
    for record in records {
        let role = record.role();
        if !matches!(role, ManagerRole::Voter | ManagerRole::Learner) {
            continue;
        }
        let id = record.raft_id;
        let there = member(id).filter(|m| m.address == record.address && m.uid == record.uid());
        let Some(there) = there else {
            let node = Node {
                address: record.address.clone(),
                uid: record.uid().to_owned(),
            };
            return Some(Step::Change(MemberChange::Set(id, node)));
        };
        if role == ManagerRole::Voter && !there.voter {
            if may_vote(there) {
                ready.insert(id);
            } else {
                catching_up = Some(Step::Wait);
            }
        }
    }
    let voters = raft.members.iter().filter(|member| member.voter).count();
    if !ready.is_empty() && !waits_for_third(records, voters, &ready) {
        return Some(Step::Change(MemberChange::Promote(ready)));
    }
    let mut hand_over = None;
    for member in &raft.members {
        let role = records
            .iter()
            .find(|record| record.raft_id == member.id)
            .map_or(ManagerRole::Removed, |record| record.role());
        let change = match role {
            ManagerRole::Removed => MemberChange::Remove(member.id),
            ManagerRole::Learner if member.voter => MemberChange::Demote(member.id),
            _ => continue,
        };
        if stay.contains(&member.id) || (member.voter && voters == 1) {
            continue;
        }
        if member.id == own {
            hand_over = Some(Step::HandOver);
            continue;
        }
        return Some(Step::Change(change));
    }
    let gone = records
        .iter()
        .find(|record| record.role() == ManagerRole::Removed && member(record.raft_id).is_none())
        .map(|record| Step::Forget(record.uid().to_owned()));
    hand_over.or(gone).or(catching_up)
}

/// Whether a learner has acknowledged, to this leader and a moment ago, nearly all of the log: it lives, where its record says.
#[must_use]
pub fn may_vote(learner: &Member) -> bool {
    learner.lag.is_some_and(|lag| lag <= CAUGHT_UP)
        && learner.heard.is_some_and(|heard| heard <= HEARD)
}

/// Whether those that may vote do not yet: beside a single voter one more would only be a second machine whose failure stops all
/// writes. A person may ask for that; otherwise two of them become voters in one change.
#[must_use]
pub fn waits_for_third(
    records: &[&ManagerRecord],
    voters: usize,
    ready: &BTreeSet<RaftId>,
) -> bool {
    let asked_for = |record: &&ManagerRecord| record.promoted && ready.contains(&record.raft_id);
    voters == 1 && ready.len() == 1 && !records.iter().any(asked_for)
}

#[cfg(test)]
mod tests;
