//! Makes built-in roles that are missing: in a new cluster, after an upgrade, a restore or a deletion. Of existing ones it changes
//! nothing, but that it adds the rules of kinds that came with a newer feature level, and of parts that came after their kinds, once.

use std::{collections::BTreeSet, time::Duration};

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

/// On a built-in role: the parts of [`builtin::LATER_PARTS`] that it has learned of, by name.
const LEARNED_PARTS: &str = "barge.dev/learned-parts";

/// What is missing, and what roles have to learn: a draft for each role and each binding, so that one that is refused does not
/// keep the others from being made.
fn missing(state: &State, kinds: &[KindInfo]) -> Vec<Draft> {
    let level = state.feature_level();
    if state.cluster().is_none() || level < BINDINGS {
        return Vec::new();
    }
    let mut drafts = Vec::new();
    let kinds: Vec<_> = kinds
        .iter()
        .filter(|it| it.level <= level)
        .cloned()
        .collect();
    for mut role in builtin::roles(&kinds) {
        match state.get::<ClusterRole>("", &role.meta().name) {
            Some(there) => drafts.extend(learn(there, level, &kinds)),
            None => {
                if kinds.iter().any(|info| info.level > LEARNED_BEFORE) {
                    learned(&mut role, level);
                }
                if builtin::within(&role.meta().name).is_some() {
                    learned_parts(&mut role);
                }
                drafts.extend(add::<ClusterRole>(state, role));
            }
        }
    }
    for binding in builtin::bindings() {
        drafts.extend(add::<ClusterRoleBinding>(state, binding));
    }
    drafts
}

/// Adds the rules of kinds that came with a level that the role has not learned of yet. What its owner took out of it stays out:
/// an annotation below [`LEARNED_BEFORE`] counts as that, whoever wrote it.
fn learn(there: &ClusterRole, level: u32, kinds: &[KindInfo]) -> Option<Draft> {
    let said = there.meta().annotations.get(LEARNED);
    let said: Option<u32> = said.and_then(|said| said.parse().ok());
    let known = said.unwrap_or(LEARNED_BEFORE).max(LEARNED_BEFORE);
    let new: Vec<_> = kinds
        .iter()
        .filter(|it| it.level > known)
        .cloned()
        .collect();
    let which = builtin::within(&there.meta().name)?;
    let known = there.meta().annotations.get(LEARNED_PARTS);
    let known: Vec<_> = known.iter().flat_map(|known| known.split(',')).collect();
    let parts = builtin::LATER_PARTS.iter();
    let mut parts = parts.filter(|part| !known.contains(&part.name)).peekable();
    if new.is_empty() && parts.peek().is_none() {
        return None;
    }
    let mut taught = there.clone();
    let rules = builtin::rules(which, &new).into_iter();
    let rules = rules.chain(parts.filter_map(|part| part.rule(which)));
    let rules = rules.filter(|rule| !there.rules.contains(rule));
    taught.rules.extend(rules);
    if !new.is_empty() {
        learned(&mut taught, level);
    }
    learned_parts(&mut taught);
    let mut draft = Draft::new();
    draft.unchanged(there);
    draft.put(taught);
    Some(draft)
}

/// Notes that a role has learned of all parts, beside those that a later version knows.
fn learned_parts(role: &mut ClusterRole) {
    let annotations = &mut role.meta_mut().annotations;
    let known = annotations.get(LEARNED_PARTS).cloned().unwrap_or_default();
    let known = known.split(',').filter(|known| !known.is_empty());
    let parts = builtin::LATER_PARTS.iter().map(|part| part.name);
    let all: BTreeSet<&str> = known.chain(parts).collect();
    let all: Vec<_> = all.into_iter().collect();
    annotations.insert(LEARNED_PARTS.to_owned(), all.join(","));
}

fn learned(role: &mut ClusterRole, level: u32) {
    let annotations = &mut role.meta_mut().annotations;
    annotations.insert(LEARNED.to_owned(), level.to_string());
}

fn add<K: Kind>(state: &State, mut wanted: K) -> Option<Draft> {
    let name = wanted.meta().name.clone();
    if state.get::<K>("", &name).is_some() {
        return None;
    }
    wanted.meta_mut().uid = clock::new_uid();
    let mut draft = Draft::new();
    draft.absent::<K>("", &name);
    draft.put(wanted);
    Some(draft)
}

/// Makes what is missing, while this manager leads in `term`. May be dropped at any time.
pub async fn keep(store: Store, term: u64) {
    loop {
        let revision = store.read(State::revision);
        let changes = store.watch(revision, Scope::kinds(WATCHED));
        let mut made = true;
        for draft in store.read(|state| missing(state, KINDS)) {
            made &= make(&store, term, draft).await;
        }
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

    /// Makes what is missing; how many records that are.
    fn make_all(state: &mut State, kinds: &[KindInfo]) -> usize {
        let drafts = missing(state, kinds);
        for draft in &drafts {
            let made = state.apply(1, draft.clone().build(PRINCIPAL.to_owned(), None));
            assert_eq!(made.outcome.refusal, None);
            assert_eq!(made.changes.len(), 1);
        }
        drafts.len()
    }

    #[test]
    fn what_is_missing_is_made_once_every_manager_understands_it() {
        assert!(missing(&cluster(BINDINGS - 1), KINDS).is_empty());
        let mut state = cluster(BINDINGS);
        make_all(&mut state, KINDS);
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
        assert_eq!(make_all(&mut state, KINDS), 1);
    }

    #[test]
    fn a_role_that_is_refused_does_not_keep_the_others_from_being_made() {
        let mut state = cluster(BINDINGS);
        let mut drafts = missing(&state, KINDS).into_iter();
        let mut first = drafts.next().unwrap();
        first.exists::<ClusterRole>("", "nowhere");
        let apply = |state: &mut State, draft: Draft| {
            state.apply(1, draft.build(PRINCIPAL.to_owned(), None))
        };
        assert!(apply(&mut state, first).outcome.refusal.is_some());
        for draft in drafts {
            assert_eq!(apply(&mut state, draft).outcome.refusal, None);
        }
        assert_eq!(make_all(&mut state, KINDS), 1);
    }

    #[test]
    fn an_annotation_that_names_an_old_level_teaches_nothing_old() {
        let mut state = cluster(ORDER);
        make_all(&mut state, KINDS);
        let admin = state.get::<ClusterRole>("", "admin").unwrap();
        let mut edited = admin.as_ref().clone();
        edited.rules.clear();
        for said in [None, Some("0"), Some("1"), Some("nonsense"), Some("-1")] {
            let annotations = &mut edited.meta_mut().annotations;
            annotations.remove(LEARNED);
            annotations.extend(said.map(|said| (LEARNED.to_owned(), said.to_owned())));
            let mut draft = Draft::new();
            draft.put(edited.clone());
            let made = state.apply(1, draft.build("test".to_owned(), None));
            assert_eq!(made.outcome.refusal, None);
            assert!(missing(&state, KINDS).is_empty(), "{said:?}");
        }
    }

    #[test]
    fn a_role_that_is_there_learns_of_new_kinds_once() {
        let mut state = cluster(ORDER);
        let apply = |state: &mut State, draft: Draft| {
            let made = state.apply(1, draft.build(PRINCIPAL.to_owned(), None));
            assert_eq!(made.outcome.refusal, None);
        };
        make_all(&mut state, KINDS);
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
        make_all(&mut state, &kinds);
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

    #[test]
    fn a_role_from_before_learns_of_a_part_once() {
        let mut state = cluster(ORDER);
        make_all(&mut state, KINDS);
        let role = |state: &State| {
            let role = state.get::<ClusterRole>("", "view");
            role.unwrap().as_ref().clone()
        };
        let put = |state: &mut State, role: ClusterRole| {
            let mut draft = Draft::new();
            draft.put(role);
            let made = state.apply(1, draft.build("test".to_owned(), None));
            assert_eq!(made.outcome.refusal, None);
        };
        // As an older version made it.
        let mut before = role(&state);
        before.meta_mut().annotations.clear();
        for rule in &mut before.rules {
            rule.resources.retain(|it| it != "pods/metrics");
        }
        put(&mut state, before.clone());
        assert_eq!(make_all(&mut state, KINDS), 1);
        let taught = role(&state);
        assert_eq!(taught.rules[..before.rules.len()], before.rules[..]);
        assert_eq!(taught.rules.last().unwrap().resources, ["pods/metrics"]);
        assert!(missing(&state, KINDS).is_empty());
        // What its owner takes away stays away.
        put(
            &mut state,
            ClusterRole {
                rules: before.rules,
                ..taught
            },
        );
        assert!(missing(&state, KINDS).is_empty());
    }
}
