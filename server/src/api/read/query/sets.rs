//! ReplicaSets of two tables, and the pods of those that are Revisions.

use std::sync::Arc;

use barge_proto::v1::{PodRecord, ReplicaSet, Revision};
use barge_state::{Kind as _, PackedPod, Parts, State, Stored};

use super::Query;
use crate::api::read::rows::position;

impl Query {
    /// ReplicaSets, and the Revisions that may be shown as such. Others are left out when the page is made: how many there are between two that
    /// are shown has no bound.
    pub(super) fn replica_sets(
        &self,
        state: &State,
        last: Option<&Stored>,
        most: usize,
    ) -> Vec<Parts> {
        let stored = |record: Stored| state.parts(record, None);
        if !self.owner_uid.is_empty() {
            let owner = &self.owner_uid;
            let (sets, revisions) = match last {
                Some(Stored::Revision(last)) => (None, last.uid()),
                last => (Some(last.map_or("", Stored::uid)), ""),
            };
            let sets = sets.into_iter();
            let sets = sets.flat_map(|uid| state.owned_after::<ReplicaSet>(owner, uid));
            let revisions = state.owned_after::<Revision>(owner, revisions);
            let all = sets.cloned().map(Stored::ReplicaSet);
            let all = all.chain(revisions.cloned().map(Stored::Revision));
            return all.take(most).map(stored).collect();
        }
        let before = self
            .after()
            .map(|(namespace, name)| (&**namespace, &**name));
        let after = last.map(|last| (last.namespace(), last.name()));
        let (namespace, after) = (self.namespace.as_deref(), after.or(before));
        let sets = state.list_after::<ReplicaSet>(namespace, after);
        let revisions = state.list_after::<Revision>(namespace, after);
        let mut sets = sets.cloned().map(Stored::ReplicaSet).peekable();
        let mut revisions = revisions.cloned().map(Stored::Revision).peekable();
        let next = || match (sets.peek(), revisions.peek()) {
            (Some(set), Some(revision)) => match position(set) <= position(revision) {
                true => sets.next(),
                false => revisions.next(),
            },
            (Some(_), None) => sets.next(),
            (None, _) => revisions.next(),
        };
        std::iter::from_fn(next).take(most).map(stored).collect()
    }

    /// Whether the owner that is asked for is a Revision: pods are found by their template, because their records name the Deployment.
    pub(super) fn is_of_revision(&self, state: &State) -> bool {
        !self.owner_uid.is_empty() && state.by_uid::<Revision>(&self.owner_uid).is_some()
    }

    /// The pods that were made from the Revision, then those whose records name it as an owner, each by uid.
    pub(super) fn pods_of(&self, state: &State, last: Option<&Stored>, most: usize) -> Vec<Parts> {
        let owner = &self.owner_uid;
        let (made, named) = match last {
            Some(Stored::Pod(last)) if last.template_uid() != owner => (None, last.uid()),
            last => (Some(last.map_or("", Stored::uid)), ""),
        };
        let made = made.into_iter();
        let made = made.flat_map(|uid| state.pods_of_after(owner, uid));
        let named = state.owned_after::<PodRecord>(owner, named);
        let pods = made.chain(named.filter(|pod| pod.template_uid() != owner));
        let parts = |pod: &Arc<PackedPod>| state.parts(Stored::Pod(pod.clone()), None);
        pods.take(most).map(parts).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::{Duration, Instant};

    use barge_proto::{
        kinds::Registry,
        v1::{ClusterRecord, Kind, ListRequest, ObjectMeta, OwnerReference},
    };
    use barge_state::HASH_LABEL;

    use super::*;
    use crate::{api::read::rows::Rows, store::transaction::Draft};

    fn meta(name: &str, owner: &str) -> ObjectMeta {
        ObjectMeta {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            uid: format!("uid-{name}"),
            owner_references: vec![OwnerReference {
                kind: "Deployment".to_owned(),
                uid: format!("uid-{owner}"),
                controller: Some(true),
                ..OwnerReference::default()
            }],
            ..ObjectMeta::default()
        }
    }

    /// A revision; its name ends with its hash, if it is shown.
    fn revision(name: &str, shown: bool) -> Revision {
        let mut metadata = meta(name, "b");
        if shown {
            let labels = &mut metadata.labels;
            labels.insert(HASH_LABEL.to_owned(), name.to_owned());
        }
        Revision {
            metadata: Some(metadata),
            ..Revision::default()
        }
    }

    /// b and d are ReplicaSets, a, c and e revisions that b owns; between them are templates that are not shown.
    fn state() -> State {
        let mut draft = Draft::new();
        draft.put(ClusterRecord {
            metadata: Some(ObjectMeta {
                owner_references: Vec::new(),
                namespace: String::new(),
                ..meta("cluster", "")
            }),
            feature_level: barge_state::LEVEL,
            ..ClusterRecord::default()
        });
        for name in ["b", "d"] {
            draft.put(ReplicaSet {
                metadata: Some(ObjectMeta {
                    owner_references: Vec::new(),
                    ..meta(name, "")
                }),
                ..ReplicaSet::default()
            });
        }
        for (name, shown) in [
            ("a", true),
            ("a1", false),
            ("c", true),
            ("c1", false),
            ("e", true),
        ] {
            draft.put(revision(name, shown));
        }
        for (name, template) in [("p1", "a"), ("p2", "a"), ("p3", "c")] {
            draft.put(PodRecord {
                metadata: Some(meta(name, "b")),
                template_uid: format!("uid-{template}"),
                ..PodRecord::default()
            });
        }
        let mut state = State::default();
        let mut transaction = draft.build("test".to_owned(), None);
        // The level rises within it.
        transaction.feature_level = 0;
        assert_eq!(state.apply(1, transaction).outcome.refusal, None);
        state
    }

    /// The names of what a list shows, taken in slices of two records.
    fn listed(
        state: &State,
        kind: Kind,
        owner: &str,
        limit: u32,
        from: &str,
    ) -> (Vec<String>, String) {
        let request = ListRequest {
            kind: kind.into(),
            owner_uid: owner.to_owned(),
            r#continue: from.to_owned(),
            limit,
            ..ListRequest::default()
        };
        let query = Query::new(&Registry::default(), &request).unwrap();
        let mut rows: Vec<Parts> = Vec::new();
        loop {
            let last = rows.last().map(|row| &row.record);
            let slice = query.slice(state, last, 2);
            assert!(slice.iter().all(|row| query.covers(&row.record)));
            if slice.is_empty() {
                break;
            }
            rows.extend(slice);
        }
        let page = query.page(&Rows::new(state.revision(), rows, query.after(), None));
        let names = page.objects.iter().map(|it| it.name().to_owned()).collect();
        (names, page.r#continue)
    }

    #[test]
    fn revisions_stand_among_replica_sets_by_name() {
        let state = state();
        let (all, _) = listed(&state, Kind::ReplicaSet, "", 0, "");
        assert_eq!(all, ["a", "b", "c", "d", "e"]);
        let (first, token) = listed(&state, Kind::ReplicaSet, "", 2, "");
        let (second, token) = listed(&state, Kind::ReplicaSet, "", 2, &token);
        let (third, token) = listed(&state, Kind::ReplicaSet, "", 2, &token);
        assert_eq!([first, second, third].concat(), all);
        assert_eq!(token, "");
    }

    #[test]
    fn the_revisions_of_an_owner_and_the_pods_of_a_revision_are_found() {
        let state = state();
        let of = |kind, owner| listed(&state, kind, owner, 0, "").0;
        assert_eq!(of(Kind::ReplicaSet, "uid-b"), ["a", "c", "e"]);
        assert_eq!(of(Kind::Pod, "uid-a"), ["p1", "p2"]);
        assert_eq!(of(Kind::Pod, "uid-c"), ["p3"]);
        assert_eq!(of(Kind::Pod, "uid-e"), [] as [&str; 0]);
    }

    /// How long a slice of 100,000 revisions holds the lock, and how long its objects take: `cargo test --release -p barge-server many_revisions -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures"]
    fn slices_of_many_revisions() {
        let mut state = state();
        for thousand in 0..100 {
            let mut draft = Draft::new();
            for number in 0..1_000 {
                draft.put(revision(&format!("r{thousand:02}{number:03}"), true));
            }
            let applied = state.apply(1, draft.build("test".to_owned(), None));
            assert_eq!(applied.outcome.refusal, None);
        }
        let request = ListRequest {
            kind: Kind::ReplicaSet.into(),
            ..ListRequest::default()
        };
        let query = Query::new(&Registry::default(), &request).unwrap();
        let (mut rows, mut longest) = (Vec::<Parts>::new(), Duration::ZERO);
        let began = Instant::now();
        loop {
            let at = Instant::now();
            let slice = query.slice(&state, rows.last().map(|row| &row.record), 1_000);
            longest = longest.max(at.elapsed());
            if slice.is_empty() {
                break;
            }
            rows.extend(slice);
        }
        let taken = began.elapsed();
        assert_eq!(rows.len(), 100_007);
        let objects = rows.iter().filter_map(Parts::object).count();
        assert_eq!(objects, 100_005);
        println!(
            "slices {taken:?}, the longest {longest:?}; with objects {:?}",
            began.elapsed()
        );
    }
}
