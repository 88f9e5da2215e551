//! What this node should run and know, as the managers last said: a value, and the rules for changing it.

use std::{collections::BTreeMap, sync::Arc};

use barge_proto::v1::{Assignment, Endpoints, Node, Peer, Pod, Service, Welcome};

/// The whole assignment of this node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The revision of the cluster that this is.
    pub revision: u64,
    /// Counts the full sets accepted since the process started; 0 means that this comes from the disk. Only a full
    /// set says that what is not in it should not be here.
    pub epoch: u64,
    /// By uid.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// By uid.
    pub services: BTreeMap<String, Arc<Service>>,
    /// By uid; named like their Service.
    pub endpoints: BTreeMap<String, Arc<Endpoints>>,
    /// The other nodes, by uid.
    pub peers: BTreeMap<String, Arc<Peer>>,
    /// What the cluster says of this node and itself.
    pub welcome: Option<Arc<Welcome>>,
}

/// Why an assignment was not acted on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// A manager that lags behind, or was restored from older data.
    #[error("revision {offered} is older than {acted}, which this node has acted on")]
    Older {
        /// Of the assignment.
        offered: u64,
        /// What was acted on.
        acted: u64,
    },
    /// A difference without anything to differ from.
    #[error("a difference came before the full assignment")]
    NoFullSet,
}

/// Which parts an assignment changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pods.
    pub pods: bool,
    /// Services, endpoints or peers.
    pub network: bool,
}

impl Desired {
    /// This with an assignment acted on. `in_session` says whether this session has had its full set.
    pub fn apply(
        &self,
        assignment: Assignment,
        in_session: bool,
    ) -> Result<(Self, Touched), Refused> {
        if assignment.revision < self.revision {
            return Err(Refused::Older {
                offered: assignment.revision,
                acted: self.revision,
            });
        }
        if !assignment.full && !in_session {
            return Err(Refused::NoFullSet);
        }
        let mut next = self.clone();
        let touched = next.merge(assignment);
        Ok((next, touched))
    }

    fn merge(&mut self, assignment: Assignment) -> Touched {
        self.revision = assignment.revision;
        let full = assignment.full;
        if full {
            self.epoch += 1;
        }
        let pods = update(
            &mut self.pods,
            full,
            assignment.pods,
            &assignment.removed_pod_uids,
            |pod| pod.metadata.as_ref().map_or("", |meta| &meta.uid),
        );
        let services = update(
            &mut self.services,
            full,
            assignment.services,
            &assignment.removed_service_uids,
            |service| service.metadata.as_ref().map_or("", |meta| &meta.uid),
        );
        let endpoints = update(
            &mut self.endpoints,
            full,
            assignment.endpoints,
            &assignment.removed_endpoints_uids,
            |endpoints| endpoints.metadata.as_ref().map_or("", |meta| &meta.uid),
        );
        let peers = update(
            &mut self.peers,
            full,
            assignment.peers,
            &assignment.removed_peer_uids,
            |peer| &peer.node_uid,
        );
        Touched {
            pods,
            network: services || endpoints || peers,
        }
    }

    /// The node as the cluster knows it.
    pub fn node(&self) -> Option<&Node> {
        self.welcome.as_ref()?.node.as_ref()
    }

    /// The range of addresses for this node's pods ("10.244.1.0/24"), empty while unknown.
    pub fn pod_cidr(&self) -> &str {
        self.node()
            .and_then(|node| node.spec.as_ref())
            .map_or("", |spec| &spec.pod_cidr)
    }

    /// The Service range, empty while unknown.
    pub fn service_cidr(&self) -> &str {
        self.welcome.as_ref().map_or("", |w| &w.service_cidr)
    }
}

/// Upserts and removals, or replacement by a full set. Tells whether anything changed.
fn update<T: PartialEq>(
    table: &mut BTreeMap<String, Arc<T>>,
    full: bool,
    upserts: Vec<T>,
    removed: &[String],
    uid: impl Fn(&T) -> &str,
) -> bool {
    let mut changed = false;
    if full {
        let keep: std::collections::BTreeSet<&str> = upserts.iter().map(&uid).collect();
        let before = table.len();
        table.retain(|key, _| keep.contains(key.as_str()));
        changed |= table.len() != before;
    }
    for object in upserts {
        let key = uid(&object).to_owned();
        if table.get(&key).is_none_or(|present| **present != object) {
            table.insert(key, Arc::new(object));
            changed = true;
        }
    }
    for key in removed {
        changed |= table.remove(key).is_some();
    }
    changed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::ObjectMeta;

    use super::*;

    fn pod(uid: &str) -> Pod {
        Pod {
            metadata: Some(ObjectMeta {
                uid: uid.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn full(revision: u64, uids: &[&str]) -> Assignment {
        Assignment {
            revision,
            full: true,
            pods: uids.iter().map(|uid| pod(uid)).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_full_set_replaces_and_a_difference_adds_and_removes() {
        let (desired, touched) = Desired::default()
            .apply(full(5, &["a", "b"]), false)
            .unwrap();
        assert!(touched.pods && !touched.network);
        assert_eq!(desired.epoch, 1);
        let difference = Assignment {
            revision: 6,
            pods: vec![pod("c")],
            removed_pod_uids: vec!["a".into()],
            ..Default::default()
        };
        let (desired, _) = desired.apply(difference, true).unwrap();
        assert_eq!(desired.pods.keys().collect::<Vec<_>>(), ["b", "c"]);
        let (desired, touched) = desired.apply(full(6, &["b", "c"]), false).unwrap();
        assert_eq!(touched, Touched::default());
        let (desired, _) = desired.apply(full(9, &["z"]), false).unwrap();
        assert_eq!(desired.pods.keys().collect::<Vec<_>>(), ["z"]);
    }

    #[test]
    fn what_is_older_or_baseless_is_refused() {
        let (desired, _) = Desired::default().apply(full(5, &["a"]), false).unwrap();
        assert_eq!(
            desired.apply(full(4, &[]), false).unwrap_err(),
            Refused::Older {
                offered: 4,
                acted: 5
            }
        );
        let difference = Assignment {
            revision: 7,
            ..Default::default()
        };
        assert_eq!(
            desired.apply(difference, false).unwrap_err(),
            Refused::NoFullSet
        );
    }
}
