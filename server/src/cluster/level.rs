//! Raising the cluster's feature level, and turning away managers that do not understand it.

use barge_proto::v1::{ClusterRecord, ManagerRecord};
use barge_state::{RecordKind, State};
use tokio_util::sync::CancellationToken;

use crate::{
    error::ApiError,
    store::{OpenError, Scope, Store},
    transaction::Draft,
};

/// Who raises it, in the log.
const PRINCIPAL: &str = "controller/feature-level";

/// Refuses a manager that would not understand what is in the log.
///
/// # Errors
/// PRECONDITION, with the way out.
pub fn check(cluster: &ClusterRecord, understood: u32) -> Result<(), ApiError> {
    match understood < cluster.feature_level {
        true => Err(ApiError::Precondition(
            OpenError::FeatureLevel {
                level: cluster.feature_level,
                understood,
            }
            .to_string(),
        )),
        false => Ok(()),
    }
}

/// The level that all managers understand, when it is above the cluster's.
fn higher(state: &State) -> Option<(ClusterRecord, u32)> {
    let cluster = state.cluster()?;
    let level = state
        .list::<ManagerRecord>(None)
        .map(|manager| manager.feature_level)
        .min()?;
    (level > cluster.feature_level).then(|| (ClusterRecord::clone(cluster), level))
}

/// Raises the level whenever all managers understand the next one, while this manager leads in `term`.
pub async fn keep(store: Store, term: u64, stop: CancellationToken) {
    let work = async {
        loop {
            let revision = store.read(State::revision);
            let Ok(mut watch) = store.watch(revision, Scope::kinds([RecordKind::Manager])) else {
                continue;
            };
            if let Some((cluster, level)) = store.read(higher) {
                raise(&store, term, cluster, level).await;
            }
            // A watch that fell behind begins anew, as does one that saw a change.
            watch.next().await.ok();
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

async fn raise(store: &Store, term: u64, cluster: ClusterRecord, level: u32) {
    let mut draft = Draft::new();
    draft.unchanged(&cluster);
    draft.put(ClusterRecord {
        feature_level: level,
        ..cluster
    });
    let mut transaction = draft.build(PRINCIPAL.to_owned(), None);
    transaction.term = term;
    let outcome = store.propose(transaction).await.map_err(ApiError::from);
    match outcome.and_then(ApiError::check) {
        Ok(_) => tracing::info!(level, "every manager understands the next feature level"),
        Err(error) => tracing::warn!(%error, level, "the feature level was not raised"),
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
        let refusal = state.apply(1, &transaction).outcome.refusal;
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
        let refused = state.apply(1, &needs_it).outcome.refusal.unwrap();
        assert!(
            refused.message.contains("upgrade all managers"),
            "{refused:?}"
        );

        assert_eq!(put(&mut state, manager("b", 3)), None);
        let (record, level) = higher(&state).unwrap();
        assert_eq!((record.feature_level, level), (1, 2));
        assert_eq!(put(&mut state, cluster(level)), None);
        assert_eq!(state.apply(1, &needs_it).outcome.refusal, None);
        assert!(put(&mut state, cluster(1)).unwrap().contains("never sinks"));
        assert!(check(state.cluster().unwrap(), 1).is_err());
        assert!(check(state.cluster().unwrap(), 2).is_ok());
    }
}
