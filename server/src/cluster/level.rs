//! Raising the cluster's feature level, and turning away managers that do not understand it.

use std::time::Duration;

use barge_proto::v1::{ClusterRecord, ManagerRecord};
use barge_state::{RecordKind, State, check_understood};

use crate::{
    error::ApiError,
    store::{Scope, Store, transaction::Draft},
};

/// The principal that raises it, in the log.
const PRINCIPAL: &str = "controller/feature-level";
/// How soon to try again what did not work.
const RETRY: Duration = Duration::from_millis(500);

/// Refuses a manager that would not understand what is in the log.
///
/// # Errors
/// PRECONDITION, with the way out.
pub fn check(cluster: &ClusterRecord, understood: u32) -> Result<(), ApiError> {
    check_understood(cluster.feature_level, understood)
        .map_err(|error| ApiError::Precondition(error.to_string()))
}

/// The level that all managers understand, when it is above the cluster's, and what raises it. Refused when a manager has
/// come, or says something else, by then.
fn higher(state: &State) -> Option<(u32, Draft)> {
    let cluster = state.cluster()?;
    let mut draft = Draft::new();
    draft.unchanged(&**cluster);
    let managers = state.list::<ManagerRecord>(None);
    let levels = managers.map(|manager| {
        draft.unchanged(&**manager);
        manager.feature_level
    });
    let level = levels.min()?;
    draft.put(ClusterRecord {
        feature_level: level,
        ..ClusterRecord::clone(cluster)
    });
    (level > cluster.feature_level).then_some((level, draft))
}

/// Raises the level whenever all managers understand the next one, while this manager leads in `term`. May be dropped at any
/// time.
pub async fn keep(store: Store, term: u64) {
    loop {
        let revision = store.read(State::revision);
        let managers = store.watch(revision, Scope::kinds([RecordKind::Manager]));
        let raised = match store.read(higher) {
            Some((level, draft)) => raise(&store, term, level, draft).await,
            None => true,
        };
        match managers {
            // A watch that fell behind begins anew, as does one that saw a change.
            Ok(mut managers) if raised => drop(managers.next().await),
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn raise(store: &Store, term: u64, level: u32, draft: Draft) -> bool {
    let mut transaction = draft.build(PRINCIPAL.to_owned(), None);
    transaction.term = term;
    let outcome = store.propose(transaction).await.map_err(ApiError::from);
    match outcome.and_then(ApiError::check) {
        Ok(_) => {
            tracing::info!(level, "every manager understands the next feature level");
            true
        }
        Err(error) => {
            tracing::warn!(%error, level, "the feature level was not raised: trying again");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::{
        Change, ObjectMeta, Record, Transaction, change::Change as Body, record,
    };

    use super::*;

    fn meta(name: &str) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            name: name.to_owned(),
            uid: name.to_owned(),
            ..ObjectMeta::default()
        })
    }

    fn put(state: &mut State, record: record::Record) -> Option<String> {
        let record = Record {
            record: Some(record),
        };
        let transaction = Transaction {
            changes: vec![Change {
                change: Some(Body::Put(record)),
            }],
            ..Transaction::default()
        };
        let refusal = state.apply(1, transaction).outcome.refusal;
        refusal.map(|refusal| refusal.message)
    }

    fn manager(uid: &str, level: u32) -> record::Record {
        record::Record::Manager(ManagerRecord {
            metadata: meta(uid),
            feature_level: level,
            ..ManagerRecord::default()
        })
    }

    fn cluster(level: u32) -> record::Record {
        record::Record::Cluster(ClusterRecord {
            metadata: meta("cluster"),
            feature_level: level,
            ..ClusterRecord::default()
        })
    }

    #[test]
    fn rises_with_the_last_manager_and_never_sinks() {
        let mut state = State::default();
        assert_eq!(put(&mut state, cluster(1)), None);
        assert_eq!(put(&mut state, manager("a", 2)), None);
        assert_eq!(put(&mut state, manager("b", 1)), None);
        assert!(higher(&state).is_none(), "one does not understand it yet");
        let needs_it = Transaction {
            feature_level: 2,
            ..Transaction::default()
        };
        let refused = state.apply(1, needs_it.clone()).outcome.refusal.unwrap();
        assert!(
            refused.message.contains("upgrade all managers"),
            "{refused:?}"
        );

        assert_eq!(put(&mut state, manager("b", 3)), None);
        let (level, draft) = higher(&state).unwrap();
        assert_eq!((state.feature_level(), level), (1, 2));
        let late = draft.clone().build(PRINCIPAL.to_owned(), None);
        let raised = state.apply(1, draft.build(PRINCIPAL.to_owned(), None));
        assert_eq!(raised.outcome.refusal, None);
        assert_eq!(state.feature_level(), 2);
        assert!(state.apply(1, late).outcome.refusal.is_some());
        assert_eq!(state.apply(1, needs_it).outcome.refusal, None);
        assert!(put(&mut state, cluster(1)).unwrap().contains("never sinks"));
        assert!(check(state.cluster().unwrap(), 1).is_err());
        assert!(check(state.cluster().unwrap(), 2).is_ok());
    }
}
