//! Whether the cluster keeps a majority of answering voters when a manager's role changes.

use std::collections::BTreeSet;

use barge_proto::v1::{ManagerRecord, ManagerRole};

use crate::{
    storage::types::RaftId,
    store::{Member, RaftStatus},
};

/// Says what to do first, when the managers that remained could not decide anything any more. `answering` are those that
/// answer the leader at the moment.
///
/// There is no way to insist: a change of voters has to be agreed on by a majority of those that are to vote afterwards, so
/// what is refused here would never be done, and would hold up every write.
pub fn check(
    record: &ManagerRecord,
    role: ManagerRole,
    records: &[&ManagerRecord],
    raft: &RaftStatus,
    answering: &BTreeSet<RaftId>,
) -> Result<(), String> {
    let who = format!("{} (ID {})", record.address, record.raft_id);
    let member = raft.members.iter().find(|m| m.id == record.raft_id);
    let voter = member.filter(|member| member.voter);
    if record.role() == role && (role != ManagerRole::Voter || voter.is_some()) {
        return Ok(());
    }
    if record.role() == ManagerRole::Joining && role != ManagerRole::Removed {
        return Err(match &record.unreachable {
            Some(unreachable) => format!(
                "{who} is not reached at the address that it advertises: {}",
                unreachable.found
            ),
            None => format!("{who} has not said yet that it serves: start it first"),
        });
    }
    if record.role() == ManagerRole::Removed {
        return Err(format!(
            "{who} is being removed: its machine joins again with an empty data folder and a new token"
        ));
    }
    let Some(voter) = voter else {
        let silent = member.is_some_and(|learner| !answering.contains(&learner.id));
        return match role == ManagerRole::Voter && silent {
            true => Err(format!(
                "{who} does not answer, and would vote as one that is missing: start it first"
            )),
            false => Ok(()),
        };
    };
    if role == ManagerRole::Voter {
        return Ok(());
    }
    let stays = |other: &&Member| {
        let wished = records.iter().find(|record| record.raft_id == other.id);
        other.voter
            && other.id != voter.id
            && wished.is_some_and(|record| record.role() == ManagerRole::Voter)
    };
    let others: Vec<_> = raft.members.iter().filter(stays).collect();
    if others.is_empty() {
        return Err(format!(
            "{who} is the last voter: let another manager join, or promote one, first"
        ));
    }
    majority(&who, &others, answering)
}

/// Whether enough of the voters that remain answer.
pub fn majority(
    without: &str,
    voters: &[&Member],
    answering: &BTreeSet<RaftId>,
) -> Result<(), String> {
    let needed = voters.len() / 2 + 1;
    let silent: Vec<_> = voters
        .iter()
        .filter(|voter| !answering.contains(&voter.id))
        .map(|voter| voter.name())
        .collect();
    let answer = voters.len() - silent.len();
    if answer >= needed {
        return Ok(());
    }
    Err(format!(
        "without {without} there are {} voters, of which {answer} answer and {needed} are needed: start those that do not \
         answer, or remove them first: {}",
        voters.len(),
        silent.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    use ManagerRole::{Learner, Removed, Voter};

    fn record(id: u64, role: ManagerRole) -> ManagerRecord {
        ManagerRecord {
            raft_id: id,
            address: format!("m{id}:1"),
            role: role.into(),
            ..ManagerRecord::default()
        }
    }

    /// Managers with these wishes, of which all vote but the learners, and those in `answering` answer.
    fn try_it(
        roles: &[ManagerRole],
        learners: &[u64],
        answering: &[u64],
        id: usize,
        to: ManagerRole,
    ) -> Result<(), String> {
        let records: Vec<_> = (1..)
            .zip(roles)
            .map(|(id, role)| record(id, *role))
            .collect();
        let members = records.iter().map(|record| Member {
            id: record.raft_id,
            address: record.address.clone(),
            voter: !learners.contains(&record.raft_id),
            ..Member::default()
        });
        let raft = RaftStatus {
            members: members.collect(),
            ..RaftStatus::default()
        };
        check(
            &records[id - 1],
            to,
            &records.iter().collect::<Vec<_>>(),
            &raft,
            &answering.iter().copied().collect(),
        )
    }

    #[test]
    fn the_last_voter_stays() {
        let error = try_it(&[Voter], &[], &[1], 1, Removed).unwrap_err();
        assert!(error.contains("m1:1 (ID 1) is the last voter"), "{error}");
        // The other one is on its way out already.
        try_it(&[Voter, Learner], &[], &[1, 2], 1, Learner).unwrap_err();
    }

    #[test]
    fn a_majority_of_those_that_remain_has_to_answer() {
        let error = try_it(&[Voter; 3], &[], &[1, 2], 2, Removed).unwrap_err();
        assert!(
            error.contains("2 voters, of which 1 answer and 2 are needed"),
            "{error}"
        );
        assert!(error.ends_with("remove them first: m3:1 (ID 3)"), "{error}");
        try_it(&[Voter; 3], &[], &[1, 2], 3, Removed).unwrap();
        try_it(&[Voter; 2], &[], &[1, 2], 1, Removed).unwrap();
    }

    #[test]
    fn who_does_not_serve_yet_is_not_promoted() {
        let joining = ManagerRole::Joining;
        let error = try_it(&[Voter, joining], &[2], &[1, 2], 2, Voter).unwrap_err();
        assert!(error.contains("m2:1 (ID 2) has not said yet"), "{error}");
        try_it(&[Voter, joining], &[2], &[1], 2, Removed).unwrap();
        // It is to vote already, and waits: a person who asks for it now is told that it is silent.
        let error = try_it(&[Voter, Voter], &[2], &[1], 2, Voter).unwrap_err();
        assert!(error.contains("does not answer"), "{error}");
    }

    #[test]
    fn who_leaves_does_not_come_back_and_who_is_silent_does_not_vote() {
        try_it(&[Voter, Removed], &[], &[1, 2], 2, Voter).unwrap_err();
        try_it(&[Voter, Removed], &[], &[1, 2], 2, Removed).unwrap();
        let error = try_it(&[Voter, Learner], &[2], &[1], 2, Voter).unwrap_err();
        assert!(error.contains("start it first"), "{error}");
        try_it(&[Voter, Learner], &[2], &[1, 2], 2, Voter).unwrap();
    }
}
