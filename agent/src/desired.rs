//! What this node should run and know, as the managers last said: a value, and the rules for changing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use barge_proto::v1::{Assignment, DeletedPod, Endpoints, Held, Node, Peer, Pod, Service, Welcome};

use crate::{configuration::Configuration, pods::Links};

mod serving;

pub use serving::{Place, Serving};

/// The whole assignment of this node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The revision of the cluster that this is.
    pub revision: u64,
    /// Counts the full sets accepted since the process started; 0 means that this comes from the disk.
    pub epoch: u64,
    /// The life of the cluster that the last full set accepted was of; `None` when this comes from the disk.
    pub life: Option<String>,
    /// What runs here, by uid. A pod leaves only on a recorded deletion.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// Those of `pods` that the last full set lacked, without a tombstone: the managers' state may be older than the pod.
    pub unknown: BTreeSet<String>,
    /// Uids of pods whose deletion was recorded, until the managers acknowledged that nothing of them is left here.
    pub deleted: BTreeSet<String>,
    /// By uid.
    pub services: BTreeMap<String, Arc<Service>>,
    /// Of `services`: what pods are told of them.
    pub links: Links,
    /// By uid; named like their Service.
    pub endpoints: BTreeMap<String, Arc<Endpoints>>,
    /// Of `endpoints`: which of this node's pods they have.
    pub serving: Serving,
    /// The revision that services, endpoints and peers are of. While the disk is slow it is ahead of `revision`.
    pub network_revision: u64,
    /// The other nodes, by uid.
    pub peers: BTreeMap<String, Arc<Peer>>,
    /// What pods use.
    pub configuration: Configuration,
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
    /// Something that is no further part of the full set which was begun.
    #[error("a part of another assignment came before a full set was complete")]
    Torn,
    /// A full set without an end.
    #[error("a full set is larger than {most} bytes")]
    TooLarge {
        /// What this node takes, in bytes.
        most: usize,
    },
}

/// Which parts an assignment changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pods.
    pub pods: bool,
    /// Services, endpoints or peers.
    pub network: bool,
    /// ConfigMaps or Secrets.
    pub configuration: bool,
}

impl Desired {
    /// What this node can go on from with differences, if it has all that was assigned to it up to its revision. After a start it asks
    /// for a full set once, also to be told which statuses the managers have; and when the managers lacked one of its pods.
    pub fn held(&self) -> Option<Held> {
        let whole = self.unknown.is_empty() && self.configuration.is_whole();
        let life = self.life.clone().filter(|_| whole)?;
        Some(Held { life })
    }

    /// Whether Services, endpoints, peers and what the cluster says of the node are the very ones of `other`. Costs a comparison of a pointer for
    /// each; the same content that came once more, in a full set for instance, counts as another.
    pub fn has_network_of(&self, other: &Self) -> bool {
        same(&self.services, &other.services)
            && same(&self.endpoints, &other.endpoints)
            && self.has_peers_of(other)
    }

    /// The same of peers and what the cluster says of the node alone.
    pub fn has_peers_of(&self, other: &Self) -> bool {
        let welcomes = (self.welcome.as_ref(), other.welcome.as_ref());
        let same_welcome = match welcomes {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_welcome && same(&self.peers, &other.peers)
    }

    /// This with an assignment acted on. `has_base` says whether the session's differences are to what this is: it has had its full
    /// set, or goes on from what is held.
    pub fn apply(
        &self,
        assignment: Assignment,
        has_base: bool,
    ) -> Result<(Self, Touched), Refused> {
        if assignment.revision < self.revision {
            return Err(Refused::Older {
                offered: assignment.revision,
                acted: self.revision,
            });
        }
        if !assignment.full && !has_base {
            return Err(Refused::NoFullSet);
        }
        let mut next = self.clone();
        let touched = next.merge(assignment);
        Ok((next, touched))
    }

    fn merge(&mut self, mut assignment: Assignment) -> Touched {
        self.revision = assignment.revision;
        self.network_revision = assignment.revision;
        let full = assignment.full;
        if full {
            self.epoch += 1;
            let welcome = self.welcome.as_ref();
            self.life = Some(welcome.map_or(String::new(), |welcome| welcome.life.clone()));
        }
        let configuration = self.configuration.merge(&mut assignment);
        let pods = if full {
            self.replace_pods(assignment.pods, &assignment.tombstones)
        } else {
            let buried = self.bury(&assignment.tombstones);
            self.change_pods(assignment.pods, &assignment.removed_pod_uids) || buried
        };
        let services = update(
            &mut self.services,
            full,
            assignment.services,
            &assignment.removed_service_uids,
            |service| service.metadata.as_ref().map_or("", |meta| &meta.uid),
        );
        if services {
            self.links = Links::of(self.services.values());
        }
        let told = assignment.endpoints.iter().map(endpoints_uid);
        let mut changed: Vec<_> = told.map(str::to_owned).collect();
        changed.extend(assignment.removed_endpoints_uids.iter().cloned());
        let endpoints = update(
            &mut self.endpoints,
            full,
            assignment.endpoints,
            &assignment.removed_endpoints_uids,
            endpoints_uid,
        );
        self.note_places(&changed);
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
            configuration,
        }
    }

    /// Follows which pods of this node are in Endpoints, of which these were told.
    fn note_places(&mut self, endpoints: &[String]) {
        let mut serving = std::mem::take(&mut self.serving);
        let node = self.name();
        let revision = self.revision;
        for uid in endpoints {
            serving.note(node, uid, self.endpoints.get(uid).map(|it| &**it), revision);
        }
        serving.keep_only(|uid| self.endpoints.contains_key(uid), revision);
        serving.forget(|pod| self.pods.contains_key(pod) || self.deleted.contains(pod));
        self.serving = serving;
    }

    /// Finds out which pods of this node are in Endpoints, after a start. Those that are ending may have left them a moment ago.
    pub fn find_places(&mut self) {
        let all: Vec<_> = self.endpoints.keys().cloned().collect();
        self.note_places(&all);
        let ending = |pod: &Pod| {
            let meta = pod.metadata.as_ref();
            meta.is_some_and(|meta| meta.deletion_timestamp.is_some())
        };
        let ending = self.pods.iter().filter(|(_, pod)| ending(pod));
        let ending = ending.map(|(uid, _)| uid).chain(&self.deleted);
        self.serving
            .left_unseen(ending.map(String::as_str), self.revision);
    }

    /// Acts on a full set. What it lacks runs on, unless a tombstone names it.
    fn replace_pods(&mut self, pods: Vec<Pod>, tombstones: &[DeletedPod]) -> bool {
        let listed: BTreeSet<String> = pods.iter().map(|pod| pod_uid(pod).to_owned()).collect();
        let gone: Vec<String> = tombstones
            .iter()
            .filter(|tombstone| !listed.contains(&tombstone.uid))
            .map(|tombstone| tombstone.uid.clone())
            .collect();
        let before = (self.unknown.clone(), self.deleted.clone());
        let changed = self.change_pods(pods, &gone);
        self.deleted.extend(gone);
        let unlisted = self.pods.keys().filter(|uid| !listed.contains(*uid));
        self.unknown = unlisted.cloned().collect();
        changed || before != (self.unknown.clone(), self.deleted.clone())
    }

    /// Pods whose deletion was recorded: to be ended, and confirmed in any case.
    fn bury(&mut self, tombstones: &[DeletedPod]) -> bool {
        let mut changed = false;
        for tombstone in tombstones {
            changed |= self.pods.remove(&tombstone.uid).is_some();
            changed |= self.deleted.insert(tombstone.uid.clone());
            self.unknown.remove(&tombstone.uid);
        }
        changed
    }

    /// Acts on a difference: removals in it are recorded deletions.
    fn change_pods(&mut self, pods: Vec<Pod>, removed: &[String]) -> bool {
        for uid in pods.iter().map(pod_uid) {
            self.unknown.remove(uid);
            self.deleted.remove(uid);
        }
        for uid in removed.iter().filter(|uid| self.pods.contains_key(*uid)) {
            self.unknown.remove(uid);
            self.deleted.insert(uid.clone());
        }
        update(&mut self.pods, false, pods, removed, pod_uid)
    }

    /// Nothing of these pods is left here, and the managers made that durable. Tells whether anything changed.
    pub fn confirm(&mut self, uids: &[String]) -> bool {
        let mut changed = false;
        for uid in uids {
            changed |= self.pods.remove(uid).is_some() | self.deleted.remove(uid);
            self.unknown.remove(uid);
        }
        changed
    }

    /// The deletion of the node was recorded, and with it that of all pods that were bound to it. Unknown ones were not: they run on.
    pub fn leave(&mut self) {
        let bound = self.pods.keys().filter(|uid| !self.unknown.contains(*uid));
        self.deleted.extend(bound.cloned());
        self.pods.retain(|uid, _| self.unknown.contains(uid));
    }

    /// Whether all that was bound to this node is marked as deleted.
    pub fn has_left(&self) -> bool {
        self.pods.keys().all(|uid| self.unknown.contains(uid))
    }

    /// The node as the cluster knows it.
    pub fn node(&self) -> Option<&Node> {
        self.welcome.as_ref()?.node.as_ref()
    }

    /// The node's name, empty while unknown.
    pub fn name(&self) -> &str {
        let meta = self.node().and_then(|node| node.metadata.as_ref());
        meta.map_or("", |meta| &meta.name)
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

fn same<T>(all: &BTreeMap<String, Arc<T>>, others: &BTreeMap<String, Arc<T>>) -> bool {
    let mut pairs = all.iter().zip(others);
    all.len() == others.len()
        && pairs.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
}

fn pod_uid(pod: &Pod) -> &str {
    pod.metadata.as_ref().map_or("", |meta| &meta.uid)
}

fn endpoints_uid(endpoints: &Endpoints) -> &str {
    endpoints.metadata.as_ref().map_or("", |meta| &meta.uid)
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
        let keep: BTreeSet<&str> = upserts.iter().map(&uid).collect();
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
mod tests;
