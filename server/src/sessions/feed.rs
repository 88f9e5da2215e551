//! The feed of a session: a full set at first, then differences.
//!
//! The feed collects references into the state, and renders them into messages, part by part, when they are sent. So nothing
//! is copied while the state's lock is held, and an agent that reads slowly costs the memory of one part.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use barge_proto::configuration::Source;
use barge_proto::level::{PODS, of_pod, of_service};
use barge_proto::v1::{
    Assignment, ConfigMap, DeletedPod, Endpoints, Node, ObjectName, Peer, PodRecord, PodTombstone,
    Revision, Secret, Service, ServiceAccount,
};
use barge_state::{Changed, Kind, PackedPod, RecordKind, State, Stored, whole_pod};
use prost::Message;

use super::needs::{Found, Need, short};

/// The last word on each object that concerns a node, by kind and uid.
#[derive(Debug, Default)]
pub struct News {
    items: BTreeMap<(RecordKind, String), Item>,
    /// What pods use; it goes first, so that no pod comes before it.
    configuration: BTreeMap<Need, Found>,
    /// The feature level whose fields of pods the agent acts on.
    pod_level: u32,
}

#[derive(Debug)]
enum Item {
    Pod(Arc<PackedPod>, Option<Arc<Revision>>),
    Service(Arc<Service>),
    Endpoints(Arc<Endpoints>),
    Peer(Arc<Node>),
    Tombstone(Arc<PodTombstone>),
    /// It is not there (any more).
    Gone,
}

impl News {
    /// Nothing yet, for an agent that acts on the fields of pods up to a feature level.
    #[must_use]
    pub fn new(pod_level: u32) -> Self {
        Self {
            pod_level,
            ..Self::default()
        }
    }

    /// Everything that a node should run and know.
    #[must_use]
    pub fn full(state: &State, node_uid: &str, pod_level: u32) -> Self {
        let mut news = Self::new(pod_level);
        for pod in state.pods_on(node_uid) {
            let template = state.template(pod).cloned();
            if news.withholds(template.as_deref()) {
                continue;
            }
            news.put::<PodRecord>(pod.uid(), Item::Pod(pod.clone(), template));
        }
        for service in state.list::<Service>(None) {
            let item = news.told(service);
            news.put::<Service>(service.uid(), item);
        }
        for endpoints in state.list::<Endpoints>(None) {
            news.put::<Endpoints>(endpoints.uid(), Item::Endpoints(endpoints.clone()));
        }
        for node in state.list::<Node>(None) {
            if node.uid() != node_uid {
                news.put::<Node>(node.uid(), Item::Peer(node.clone()));
            }
        }
        for tombstone in state.tombstones_on(node_uid) {
            news.put::<PodTombstone>(tombstone.uid(), Item::Tombstone(tombstone.clone()));
        }
        news
    }

    /// Adds what a change means to a node.
    pub fn add(&mut self, change: &Changed, node_uid: &str) {
        match change.record() {
            Some(Stored::Pod(_)) => self.pod(change, node_uid),
            Some(Stored::PodTombstone(_)) => self.tombstone(change, node_uid),
            Some(Stored::Service(_)) => self.service(change),
            Some(Stored::Endpoints(_)) => {
                let (_, after) = change.of::<Endpoints>();
                let item = after.cloned().map_or(Item::Gone, Item::Endpoints);
                self.put::<Endpoints>(change.uid(), item);
            }
            Some(Stored::Node(node)) if node.uid() != node_uid => self.peer(change),
            _ => {}
        }
    }

    /// Whether nothing concerns the node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.configuration.is_empty()
    }

    /// Adds what there is under a name that pods use.
    pub fn put_configuration(&mut self, need: Need, found: Found) {
        self.configuration.insert(need, found);
    }

    /// Whether the agent would not do what a template says: it would drop a field.
    fn withholds(&self, template: Option<&Revision>) -> bool {
        if self.pod_level >= PODS {
            return false;
        }
        let template = template.and_then(|it| it.template.as_ref());
        let spec = template.and_then(|it| it.spec.as_ref());
        spec.is_some_and(|spec| of_pod(spec) > self.pod_level)
    }

    /// A Service, unless the agent would let in whom it keeps out. Without its other new fields it serves as it did before there were any.
    fn told(&self, service: &Arc<Service>) -> Item {
        let spec = service.spec.as_ref();
        let keeps_out = spec.is_some_and(|spec| !spec.load_balancer_source_ranges.is_empty());
        match keeps_out && self.pod_level < of_service(service) {
            true => Item::Gone,
            false => Item::Service(service.clone()),
        }
    }

    /// Puts it into messages of about `bytes` bytes, for the node that `node` is.
    pub fn parts(self, node: Arc<Node>, bytes: usize) -> Parts {
        Parts {
            items: self.items,
            configuration: self.configuration,
            node,
            bytes,
        }
    }

    fn put<K: Kind>(&mut self, uid: &str, item: Item) {
        self.items.insert((K::KIND, uid.to_owned()), item);
    }

    fn pod(&mut self, change: &Changed, node_uid: &str) {
        let (before, after) = change.of::<PodRecord>();
        let here = |pod: &&Arc<PackedPod>| pod.node_uid() == node_uid;
        let (before, after) = (before.filter(here), after.filter(here));
        // What the agent itself reported is no news to it.
        let told =
            matches!((before, after), (Some(before), Some(after)) if same_orders(before, after));
        let item = match after {
            Some(_) if self.withholds(change.template.as_deref()) => return,
            Some(pod) => Item::Pod(pod.clone(), change.template.clone()),
            None if before.is_some() => Item::Gone,
            None => return,
        };
        match self.items.entry((RecordKind::Pod, change.uid().to_owned())) {
            Entry::Occupied(mut entry) => drop(entry.insert(item)),
            Entry::Vacant(entry) if !told => drop(entry.insert(item)),
            Entry::Vacant(_) => {}
        }
    }

    /// The node confirms a tombstone, so that it went is no news.
    fn tombstone(&mut self, change: &Changed, node_uid: &str) {
        let (_, after) = change.of::<PodTombstone>();
        match after.filter(|tombstone| tombstone.node_uid == node_uid) {
            Some(tombstone) => {
                self.put::<PodTombstone>(tombstone.uid(), Item::Tombstone(tombstone.clone()));
            }
            None => {
                let key = (RecordKind::PodTombstone, change.uid().to_owned());
                self.items.remove(&key);
            }
        }
    }

    fn service(&mut self, change: &Changed) {
        let (before, after) = change.of::<Service>();
        let key = (RecordKind::Service, change.uid().to_owned());
        if let (Some(before), Some(after)) = (before, after)
            && before.spec == after.spec
            && before.status == after.status
            && !self.items.contains_key(&key)
        {
            return;
        }
        let item = after.map_or(Item::Gone, |service| self.told(service));
        self.items.insert(key, item);
    }

    fn peer(&mut self, change: &Changed) {
        let (before, after) = change.of::<Node>();
        if before.map(|node| peer(node)) != after.map(|node| peer(node)) {
            let item = after.cloned().map_or(Item::Gone, Item::Peer);
            self.put::<Node>(change.uid(), item);
        }
    }
}

/// What is left to be put into messages.
pub struct Parts {
    items: BTreeMap<(RecordKind, String), Item>,
    configuration: BTreeMap<Need, Found>,
    node: Arc<Node>,
    bytes: usize,
}

impl Parts {
    /// The next part, its revision still to be set, and whether there are more. The first one may be empty.
    pub fn next_part(&mut self) -> (Assignment, bool) {
        let mut part = Assignment::default();
        let mut bytes = 0;
        while bytes < self.bytes
            && let Some((need, found)) = self.configuration.pop_first()
        {
            bytes += configuration(need, found, &mut part);
        }
        while bytes < self.bytes
            && let Some(((kind, uid), item)) = self.items.pop_first()
        {
            bytes += self.render(kind, uid, item, &mut part);
        }
        let more = !self.items.is_empty() || !self.configuration.is_empty();
        (part, more)
    }

    /// Adds an object to a message, and tells its size in bytes.
    fn render(&self, kind: RecordKind, uid: String, item: Item, to: &mut Assignment) -> usize {
        match item {
            Item::Pod(pod, template) => {
                let whole = whole_pod(pod.record(), template.as_deref(), Some(&self.node));
                push(&mut to.pods, whole)
            }
            Item::Service(service) => push(&mut to.services, Arc::unwrap_or_clone(service)),
            Item::Endpoints(endpoints) => push(&mut to.endpoints, Arc::unwrap_or_clone(endpoints)),
            Item::Peer(node) => push(&mut to.peers, peer(&node)),
            Item::Tombstone(tombstone) => push(&mut to.tombstones, deleted(&tombstone)),
            Item::Gone => {
                let removed = match kind {
                    RecordKind::Pod => &mut to.removed_pod_uids,
                    RecordKind::Service => &mut to.removed_service_uids,
                    RecordKind::Endpoints => &mut to.removed_endpoints_uids,
                    RecordKind::Node => &mut to.removed_peer_uids,
                    _ => return 0,
                };
                removed.push(uid);
                removed.last().map_or(0, String::len)
            }
        }
    }
}

/// Adds what there is under a name to a message, and tells its size in bytes.
fn configuration((source, namespace, name): Need, found: Found, to: &mut Assignment) -> usize {
    match found {
        Found::ConfigMap(it) => push(
            &mut to.config_maps,
            ConfigMap {
                metadata: it.metadata.as_ref().map(short),
                ..Arc::unwrap_or_clone(it)
            },
        ),
        Found::Secret(it) => push(
            &mut to.secrets,
            Secret {
                metadata: it.metadata.as_ref().map(short),
                ..Arc::unwrap_or_clone(it)
            },
        ),
        Found::ServiceAccount(it) => push(
            &mut to.service_accounts,
            ServiceAccount {
                metadata: it.metadata.as_ref().map(short),
                // For people only.
                secrets: Vec::new(),
                ..Arc::unwrap_or_clone(it)
            },
        ),
        Found::Nothing => {
            let removed = match source {
                Source::ConfigMap => &mut to.removed_config_maps,
                Source::Secret => &mut to.removed_secrets,
                Source::ServiceAccount => &mut to.removed_service_accounts,
            };
            push(removed, ObjectName { namespace, name })
        }
    }
}

fn push<T: Message>(to: &mut Vec<T>, message: T) -> usize {
    let bytes = message.encoded_len();
    to.push(message);
    bytes
}

fn deleted(tombstone: &PodTombstone) -> DeletedPod {
    DeletedPod {
        uid: tombstone.uid().to_owned(),
        namespace: tombstone.pod_namespace.clone(),
        name: tombstone.pod_name.clone(),
        revision: tombstone.revision(),
    }
}

fn same_orders(before: &PackedPod, after: &PackedPod) -> bool {
    before.template_uid() == after.template_uid()
        && before.deletion() == after.deletion()
        && before.own_labels() == after.own_labels()
        && before.own_annotations() == after.own_annotations()
}

fn peer(node: &Node) -> Peer {
    let address = node
        .status
        .iter()
        .flat_map(|status| &status.addresses)
        .find(|address| address.r#type == "InternalIP");
    Peer {
        node_uid: node.uid().to_owned(),
        name: node.meta().name.clone(),
        address: address.map(|a| a.address.clone()).unwrap_or_default(),
        pod_cidr: node
            .spec
            .as_ref()
            .map(|spec| spec.pod_cidr.clone())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
