//! A cluster that goes on from its remains: from a backup ([`crate::recovery::restore`]) or from one manager
//! ([`crate::recovery::recover`]). The changes that both make in the state before the cluster runs again.
//!
//! The cluster stays the same one: its id, its CA and its sealing key, so that agents and administrators need nothing new and
//! containers are adopted. The lost members are removed. Revisions and Raft ids leap and join tokens are removed, because the lost managers may have
//! given out more of them since.

use barge_proto::v1::{
    ClusterRecord, CredentialRecord, ManagerRecord, ManagerRole, ObjectMeta, Role, TokenRecord,
};
use barge_state::{Kind, ORDER, State};

use crate::{
    error::ApiError, runtime::clock, security::rbac::identity::master, store::transaction::Draft,
};

/// Raft ids that may have been given out after the moment that the state is of. A manager of before with such an id is
/// refused as one that was removed.
const RAFT_IDS: u64 = 1000;

/// The Raft id for a manager that a restore makes.
pub fn next_raft_id(cluster: &ClusterRecord) -> u64 {
    cluster.next_raft_id.saturating_add(RAFT_IDS)
}

/// Prepares the state for its only manager: the other members and all tokens go, the revision leaps. `admin` is the uid of
/// an administrator's credential to add.
///
/// # Errors
/// The state has no cluster, or refuses what is prepared, which would be a mistake of ours.
pub fn prepare(
    state: &mut State,
    manager: ManagerRecord,
    admin: Option<&str>,
) -> Result<(), ApiError> {
    let cluster = state
        .cluster()
        .cloned()
        .ok_or_else(|| ApiError::Internal("there is no cluster in the state".to_owned()))?;
    state.leap(clock::now().seconds);
    let mut draft = Draft::new();
    for record in state.list::<ManagerRecord>(None) {
        if record.uid() != manager.uid() {
            draft.remove::<ManagerRecord>(record.uid());
        }
    }
    // One that was used up since would admit again.
    for token in state.list::<TokenRecord>(None) {
        draft.remove::<TokenRecord>(token.uid());
    }
    draft.put(ClusterRecord {
        next_raft_id: next_raft_id(&cluster).max(manager.raft_id) + 1,
        // An older manager would drop it.
        life: match cluster.feature_level >= ORDER {
            true => clock::new_uid(),
            false => String::new(),
        },
        ..ClusterRecord::clone(&cluster)
    });
    let by = format!("manager/{}", manager.uid());
    // Whatever it was before, now it is the one that votes.
    draft.put(ManagerRecord {
        role: ManagerRole::Voter.into(),
        unreachable: None,
        ..manager
    });
    if let Some(uid) = admin {
        draft.put(CredentialRecord {
            metadata: Some(ObjectMeta {
                // Names are unique, and the first administrator may still be there.
                name: format!("restored-{}", uid.get(..8).unwrap_or(uid)),
                uid: uid.to_owned(),
                ..ObjectMeta::default()
            }),
            role: Role::Admin.into(),
            description: "made by a restore".to_owned(),
            identity: master(state.feature_level()),
            ..CredentialRecord::default()
        });
    }
    let applied = state.apply(0, draft.build(by, None));
    ApiError::check(applied.outcome).map(drop)
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::Transaction;
    use barge_state::LEVEL;

    use super::*;

    fn meta(uid: &str) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            name: uid.to_owned(),
            uid: uid.to_owned(),
            ..ObjectMeta::default()
        })
    }

    fn manager(id: u64) -> ManagerRecord {
        ManagerRecord {
            feature_level: LEVEL,
            metadata: meta(&format!("m{id}")),
            raft_id: id,
            address: format!("h{id}:1"),
            ..ManagerRecord::default()
        }
    }

    fn state() -> State {
        at_level(LEVEL)
    }

    fn at_level(feature_level: u32) -> State {
        let mut draft = Draft::new();
        draft.put(ClusterRecord {
            metadata: meta("c"),
            next_raft_id: 4,
            feature_level,
            ..ClusterRecord::default()
        });
        for id in 1..=3 {
            draft.put(manager(id));
        }
        draft.put(TokenRecord {
            metadata: meta("t"),
            ..TokenRecord::default()
        });
        draft.put(CredentialRecord {
            metadata: meta("admin"),
            role: Role::Admin.into(),
            ..CredentialRecord::default()
        });
        let mut state = State::default();
        let begin: Transaction = draft.build("test".to_owned(), None);
        ApiError::check(state.apply(1, begin).outcome).unwrap();
        state
    }

    #[test]
    fn only_the_new_manager_and_no_token_is_left() {
        let mut state = state();
        let before = state.revision();
        let new = manager(next_raft_id(state.cluster().unwrap()));
        prepare(&mut state, new.clone(), Some("0123456789")).unwrap();
        assert!(state.revision() > before + (1 << 40));
        let managers: Vec<_> = state.list::<ManagerRecord>(None).collect();
        assert_eq!(managers.len(), 1);
        assert_eq!(managers[0].uid(), new.uid());
        assert_eq!(state.list::<TokenRecord>(None).count(), 0);
        assert_eq!(state.cluster().unwrap().next_raft_id, new.raft_id + 1);
        assert_eq!(state.list::<CredentialRecord>(None).count(), 2);
    }

    #[test]
    fn the_survivor_stays_who_it_was() {
        let mut state = state();
        prepare(&mut state, manager(2), None).unwrap();
        let managers: Vec<_> = state.list::<ManagerRecord>(None).collect();
        assert_eq!(managers.len(), 1);
        assert_eq!(managers[0].raft_id, 2);
        assert!(state.cluster().unwrap().next_raft_id > 1000);
    }

    #[test]
    fn each_new_beginning_is_another_life() {
        let life = |level| {
            let mut state = at_level(level);
            prepare(&mut state, manager(2), None).unwrap();
            state.cluster().unwrap().life.clone()
        };
        let (one, other) = (life(ORDER), life(ORDER));
        assert!(!one.is_empty() && one != other, "{one} {other}");
        assert_eq!(life(ORDER - 1), "", "a manager might not know it");
    }
}
