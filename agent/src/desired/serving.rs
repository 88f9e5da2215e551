//! Which pods of this node Services send connections to, and up to which revision they did.

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::v1::Endpoints;

/// Of this node's pods, by uid. It follows the Endpoints that the node is told of, change by change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// The Endpoints, by uid, that have the pod among those that get connections. No pod is here without any.
    serves: BTreeMap<String, BTreeSet<String>>,
    /// The revision from which on no Endpoints have the pod any more.
    left: BTreeMap<String, u64>,
}

/// Whether nodes send a pod new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is in Endpoints.
    Serves,
    /// It was until this revision. A node whose rules are older still sends to it.
    Left(u64),
    /// It was never seen there.
    Nowhere,
}

impl Serving {
    /// Whether nodes send a pod new connections.
    pub fn place(&self, pod_uid: &str) -> Place {
        match (self.serves.contains_key(pod_uid), self.left.get(pod_uid)) {
            (true, _) => Place::Serves,
            (false, Some(revision)) => Place::Left(*revision),
            (false, None) => Place::Nowhere,
        }
    }

    /// Endpoints as they are since a revision, their own; `None`: they are gone, which was told at `revision`. What is told has parts and is told to each node when its session comes to
    /// it, so the revision that one node was told last says nothing about others.
    pub fn note(&mut self, node: &str, uid: &str, endpoints: Option<&Endpoints>, revision: u64) {
        let own = endpoints.and_then(|endpoints| endpoints.metadata.as_ref());
        let own = own.and_then(|meta| meta.resource_version.parse().ok());
        let revision = own.unwrap_or(revision);
        let subsets = endpoints.map_or(&[][..], |endpoints| &endpoints.subsets);
        let here = subsets.iter().flat_map(|subset| &subset.addresses);
        let here = here.filter(|address| !node.is_empty() && address.node_name == node);
        let pods = here.filter_map(|address| address.target_ref.as_ref());
        let pods: BTreeSet<&str> = pods.map(|pod| pod.uid.as_str()).collect();
        let left = &mut self.left;
        self.serves.retain(|pod, serves| {
            if !pods.contains(pod.as_str()) && serves.remove(uid) && serves.is_empty() {
                left.insert(pod.clone(), revision);
            }
            !serves.is_empty()
        });
        for pod in pods {
            let serves = self.serves.entry(pod.to_owned()).or_default();
            serves.insert(uid.to_owned());
        }
    }

    /// Endpoints other than these are gone.
    pub fn keep_only(&mut self, known: impl Fn(&str) -> bool, revision: u64) {
        let uids = self.serves.values().flatten();
        let gone: BTreeSet<_> = uids.filter(|uid| !known(uid)).cloned().collect();
        for uid in gone {
            self.note("", &uid, None, revision);
        }
    }

    /// Nobody saw when these pods left, if they were in Endpoints at all: not after this revision.
    pub fn left_unseen<'a>(&mut self, pods: impl Iterator<Item = &'a str>, revision: u64) {
        for pod in pods.filter(|pod| !self.serves.contains_key(*pod)) {
            self.left.insert(pod.to_owned(), revision);
        }
    }

    /// Forgets where pods were that are not here any more.
    pub fn forget(&mut self, is_here: impl Fn(&str) -> bool) {
        self.left.retain(|pod, _| is_here(pod));
    }
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::{EndpointAddress, EndpointSubset, ObjectMeta, ObjectReference};

    use super::*;

    fn endpoints(ready: &[(&str, &str)], not_ready: &[(&str, &str)]) -> Endpoints {
        let addresses = |pods: &[(&str, &str)]| {
            let pods = pods.iter().map(|(node, pod)| EndpointAddress {
                node_name: (*node).to_owned(),
                target_ref: Some(ObjectReference {
                    uid: (*pod).to_owned(),
                    ..ObjectReference::default()
                }),
                ..EndpointAddress::default()
            });
            pods.collect()
        };
        Endpoints {
            subsets: vec![EndpointSubset {
                addresses: addresses(ready),
                not_ready_addresses: addresses(not_ready),
                ..EndpointSubset::default()
            }],
            ..Endpoints::default()
        }
    }

    #[test]
    fn a_pod_has_left_when_the_last_endpoints_lack_it() {
        let mut serving = Serving::default();
        let both = endpoints(&[("n", "a"), ("n", "b"), ("other", "c")], &[("n", "d")]);
        serving.note("n", "one", Some(&both), 3);
        serving.note("n", "two", Some(&endpoints(&[("n", "a")], &[])), 4);
        assert_eq!(serving.place("a"), Place::Serves);
        assert_eq!(serving.place("c"), Place::Nowhere, "of another node");
        assert_eq!(serving.place("d"), Place::Nowhere, "it is not ready");
        serving.note("n", "one", Some(&endpoints(&[("n", "b")], &[])), 5);
        assert_eq!(serving.place("a"), Place::Serves);
        serving.note("n", "two", None, 6);
        assert_eq!(serving.place("a"), Place::Left(6));
        // Its other Endpoints change later; that is nothing to it.
        serving.note("n", "one", Some(&endpoints(&[], &[])), 7);
        assert_eq!(serving.place("a"), Place::Left(6));
        assert_eq!(serving.place("b"), Place::Left(7));
        serving.forget(|pod| pod == "b");
        assert_eq!(serving.place("a"), Place::Nowhere);
        assert_eq!(serving.place("b"), Place::Left(7));
    }

    #[test]
    fn a_pod_left_when_its_endpoints_were_written_whenever_that_is_told() {
        let mut serving = Serving::default();
        let written = |revision: u64, ready: &[(&str, &str)]| Endpoints {
            metadata: Some(ObjectMeta {
                resource_version: revision.to_string(),
                ..ObjectMeta::default()
            }),
            ..endpoints(ready, &[])
        };
        let has = written(3, &[("n", "a"), ("n", "b")]);
        serving.note("n", "one", Some(&has), 4);
        // In a part of a difference, of which all but the last have the revision from before.
        serving.note("n", "one", Some(&written(7, &[("n", "b")])), 4);
        assert_eq!(serving.place("a"), Place::Left(7));
        // By a session that was late.
        serving.note("n", "one", Some(&written(8, &[])), 12);
        assert_eq!(serving.place("b"), Place::Left(8));
    }

    #[test]
    fn endpoints_that_a_full_set_lacks_are_gone() {
        let mut serving = Serving::default();
        serving.note("n", "one", Some(&endpoints(&[("n", "a")], &[])), 3);
        serving.keep_only(|uid| uid == "one", 5);
        assert_eq!(serving.place("a"), Place::Serves);
        serving.keep_only(|_| false, 6);
        assert_eq!(serving.place("a"), Place::Left(6));
        serving.left_unseen(["b"].into_iter(), 9);
        assert_eq!(serving.place("b"), Place::Left(9));
    }
}
