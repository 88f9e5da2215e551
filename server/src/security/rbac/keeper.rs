//! Sees to it that the built-in roles are there: in a new cluster, after an upgrade, a restore or a deletion. What they
//! say is their owner's business once they are there.

use std::time::Duration;

use barge_proto::v1::{ClusterRole, ClusterRoleBinding};
use barge_state::{BINDINGS, Kind, RecordKind, State};

use super::builtin;
use crate::{
    error::ApiError,
    runtime::clock,
    store::{Scope, Store, transaction::Draft},
};

/// Who makes them, in the log.
const PRINCIPAL: &str = "controller/rbac-defaults";
/// How soon to try again what did not work.
const RETRY: Duration = Duration::from_millis(500);
/// What it looks at: the cluster's level is part of its record.
const KINDS: [RecordKind; 3] = [
    RecordKind::Cluster,
    RecordKind::ClusterRole,
    RecordKind::ClusterRoleBinding,
];

/// What is missing.
fn missing(state: &State) -> Draft {
    let mut draft = Draft::new();
    if state.cluster().is_none() || state.feature_level() < BINDINGS {
        return draft;
    }
    for role in builtin::roles() {
        add::<ClusterRole>(&mut draft, state, role);
    }
    for binding in builtin::bindings() {
        add::<ClusterRoleBinding>(&mut draft, state, binding);
    }
    draft
}

fn add<K: Kind>(draft: &mut Draft, state: &State, mut wanted: K) {
    let name = wanted.meta().name.clone();
    if state.get::<K>("", &name).is_none() {
        wanted.meta_mut().uid = clock::new_uid();
        draft.absent::<K>("", &name);
        draft.put(wanted);
    }
}

/// Makes what is missing, while this manager leads in `term`. May be dropped at any time.
pub async fn keep(store: Store, term: u64) {
    loop {
        let revision = store.read(State::revision);
        let changes = store.watch(revision, Scope::kinds(KINDS));
        let draft = store.read(missing);
        let made = draft.is_empty() || make(&store, term, draft).await;
        match changes {
            // A watch that fell behind begins anew, as does one that saw a change.
            Ok(mut changes) if made => drop(changes.next().await),
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn make(store: &Store, term: u64, draft: Draft) -> bool {
    let mut transaction = draft.build(PRINCIPAL.to_owned(), None);
    transaction.term = term;
    let outcome = store.propose(transaction).await.map_err(ApiError::from);
    match outcome.and_then(ApiError::check) {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "the built-in roles were not made: trying again");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::{ClusterRecord, ObjectMeta};

    use super::*;

    fn cluster(level: u32) -> State {
        let mut draft = Draft::new();
        draft.put(ClusterRecord {
            metadata: Some(ObjectMeta {
                name: "cluster".to_owned(),
                uid: "c".to_owned(),
                ..ObjectMeta::default()
            }),
            feature_level: level,
            ..ClusterRecord::default()
        });
        let mut state = State::default();
        state.apply(1, draft.build("test".to_owned(), None));
        state
    }

    #[test]
    fn what_is_missing_is_made_once_every_manager_understands_it() {
        assert!(missing(&cluster(BINDINGS - 1)).is_empty());
        let mut state = cluster(BINDINGS);
        let made = state.apply(1, missing(&state).build(PRINCIPAL.to_owned(), None));
        assert_eq!(made.outcome.refusal, None);
        assert_eq!(state.count::<ClusterRole>(), 4);
        assert!(missing(&state).is_empty());
        let uid = state
            .get::<ClusterRole>("", "view")
            .unwrap()
            .uid()
            .to_owned();
        let mut gone = Draft::new();
        gone.remove::<ClusterRole>(&uid);
        state.apply(1, gone.build("test".to_owned(), None));
        let again = state.apply(1, missing(&state).build(PRINCIPAL.to_owned(), None));
        assert_eq!(again.changes.len(), 1);
    }
}
