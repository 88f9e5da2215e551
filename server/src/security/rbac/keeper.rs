//! Makes built-in roles that are missing: in a new cluster, after an upgrade, a restore or a deletion. Of existing ones it changes
//! nothing, but that it adds the rules of kinds that came with a newer feature level, once.

use std::time::Duration;

use barge_proto::{
    kinds::{KINDS, KindInfo},
    v1::{ClusterRole, ClusterRoleBinding},
};
use barge_state::{BINDINGS, Kind, ORDER, RecordKind, State};

use super::builtin;
use crate::{
    error::ApiError,
    runtime::clock,
    store::{Scope, Store, transaction::Draft},
};

/// The principal that makes them, in the log.
const PRINCIPAL: &str = "controller/rbac-defaults";
/// How soon to try again what did not work.
const RETRY: Duration = Duration::from_millis(500);
/// What it looks at: the cluster's level is part of its record.
const WATCHED: [RecordKind; 3] = [
    RecordKind::Cluster,
    RecordKind::ClusterRole,
    RecordKind::ClusterRoleBinding,
];

/// On a built-in role: the feature level up to which it has learned of new kinds.
const LEARNED: &str = "barge.dev/learned-level";
/// What roles without it have learned.
const LEARNED_BEFORE: u32 = ORDER;

/// What is missing, and what roles have to learn.
fn missing(state: &State, kinds: &[KindInfo]) -> Draft {
    let mut draft = Draft::new();
    let level = state.feature_level();
    if state.cluster().is_none() || level < BINDINGS {
        return draft;
    }
    let kinds: Vec<_> = kinds
        .iter()
        .filter(|it| it.level <= level)
        .cloned()
        .collect();
    for mut role in builtin::roles(&kinds) {
        match state.get::<ClusterRole>("", &role.meta().name) {
            Some(there) => learn(&mut draft, there, level, &kinds),
            None => {
                if kinds.iter().any(|info| info.level > LEARNED_BEFORE) {
                    learned(&mut role, level);
                }
                add::<ClusterRole>(&mut draft, state, role);
            }
        }
    }
    for binding in builtin::bindings() {
        add::<ClusterRoleBinding>(&mut draft, state, binding);
    }
    draft
}

/// Adds the rules of kinds that came with a level that the role has not learned of yet. What its owner took out of it stays out.
fn learn(draft: &mut Draft, there: &ClusterRole, level: u32, kinds: &[KindInfo]) {
    let said = there.meta().annotations.get(LEARNED);
    let known = said
        .and_then(|said| said.parse().ok())
        .unwrap_or(LEARNED_BEFORE);
    let new: Vec<_> = kinds
        .iter()
        .filter(|it| it.level > known)
        .cloned()
        .collect();
    let Some(which) = builtin::within(&there.meta().name).filter(|_| !new.is_empty()) else {
        return;
    };
    let mut taught = there.clone();
    let rules = builtin::rules(which, &new).into_iter();
    let rules = rules.filter(|rule| !there.rules.contains(rule));
    taught.rules.extend(rules);
    learned(&mut taught, level);
    draft.unchanged(there);
    draft.put(taught);
}

fn learned(role: &mut ClusterRole, level: u32) {
    let annotations = &mut role.meta_mut().annotations;
    annotations.insert(LEARNED.to_owned(), level.to_string());
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
        let changes = store.watch(revision, Scope::kinds(WATCHED));
        let draft = store.read(|state| missing(state, KINDS));
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
        assert!(missing(&cluster(BINDINGS - 1), KINDS).is_empty());
        let mut state = cluster(BINDINGS);
        let made = state.apply(1, missing(&state, KINDS).build(PRINCIPAL.to_owned(), None));
        assert_eq!(made.outcome.refusal, None);
        assert_eq!(state.count::<ClusterRole>(), 4);
        assert!(missing(&state, KINDS).is_empty());
        let uid = state
            .get::<ClusterRole>("", "view")
            .unwrap()
            .uid()
            .to_owned();
        let mut gone = Draft::new();
        gone.remove::<ClusterRole>(&uid);
        state.apply(1, gone.build("test".to_owned(), None));
        let again = state.apply(1, missing(&state, KINDS).build(PRINCIPAL.to_owned(), None));
        assert_eq!(again.changes.len(), 1);
    }

    #[test]
    fn a_role_that_is_there_learns_of_new_kinds_once() {
        let mut state = cluster(ORDER);
        let apply = |state: &mut State, draft: Draft| {
            let made = state.apply(1, draft.build(PRINCIPAL.to_owned(), None));
            assert_eq!(made.outcome.refusal, None);
        };
        let draft = missing(&state, KINDS);
        apply(&mut state, draft);
        let role = |state: &State| {
            state
                .get::<ClusterRole>("", "edit")
                .unwrap()
                .as_ref()
                .clone()
        };
        // Its owner takes something away.
        let mut edited = role(&state);
        edited.rules.truncate(1);
        let mut draft = Draft::new();
        draft.put(edited.clone());
        apply(&mut state, draft);

        let mut kinds = KINDS.to_vec();
        kinds.push(KindInfo {
            plural: "gizmos".into(),
            parts: &["scale", "status"],
            level: ORDER + 1,
            ..KINDS[2].clone()
        });
        assert!(missing(&state, &kinds).is_empty(), "before the level");
        let mut draft = Draft::new();
        let mut raised = state.cluster().unwrap().as_ref().clone();
        raised.feature_level = ORDER + 1;
        draft.put(raised);
        apply(&mut state, draft);
        let draft = missing(&state, &kinds);
        apply(&mut state, draft);
        let taught = role(&state);
        assert_eq!(taught.rules[..1], edited.rules[..]);
        let new: Vec<_> = taught.rules[1..]
            .iter()
            .map(|rule| rule.resources.join(","))
            .collect();
        assert_eq!(
            new,
            ["gizmos,gizmos/scale,gizmos/status", "gizmos,gizmos/scale"]
        );
        assert!(missing(&state, &kinds).is_empty());
        // And it does not come back when it is taken away.
        let mut draft = Draft::new();
        draft.put(ClusterRole {
            rules: edited.rules,
            ..taught
        });
        apply(&mut state, draft);
        assert!(missing(&state, &kinds).is_empty());
    }
}
