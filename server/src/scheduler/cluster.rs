//! The whole cluster in memory, kept up to date from changes: nodes, classes, pods and where they
//! are or are going.

pub use super::{
    class::Class,
    nodes::{NodeId, NodeInfo, Nodes},
};
use super::{class::View, queue::Queue};
use crate::controllers::{pods, stamp::nanos};
use barge_proto::v1::{Node, PodRecord, Revision};
use barge_state::{Changed, Kind, PackedPod, State};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// A class for as long as the scheduler knows it; never given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(u64);

/// The first wait of a pod whose binding was refused; it doubles each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// The wait of a pod whose binding had no answer, however often.
const UNANSWERED: Duration = Duration::from_secs(1);
/// Views kept of classes that have no pods to place.
const MAX_IDLE_VIEWS: usize = 64;

/// The records that the scheduler looks at, shared with the state. They are taken in slices, between which the state goes on: those of a
/// later slice may be newer than those of the first one. The changes after the revision of the first slice, applied in their order to
/// [`Cluster::new`], make up for it: the last change of a record says all of it.
///
/// All pods are taken before the first template: a pod whose template is missing here was taken before both went, which the changes say.
#[derive(Debug, Default)]
pub struct Snapshot {
    pods: Taken<PodRecord>,
    revisions: Taken<Revision>,
    nodes: Taken<Node>,
}

/// What was taken of a kind, by namespace and name.
#[derive(Debug)]
struct Taken<K: Kind> {
    records: Vec<Arc<K::Kept>>,
    all: bool,
}

impl Snapshot {
    /// Takes a whole state that does not go on meanwhile.
    #[cfg(test)]
    pub fn of(state: &State) -> Self {
        let mut snapshot = Self::default();
        while !snapshot.slice(state, usize::MAX) {}
        snapshot
    }

    /// Takes the next records, at most `most` of them. Answers whether there are no more.
    pub fn slice(&mut self, state: &State, most: usize) -> bool {
        let mut room = most;
        self.pods.take(state, &mut room);
        self.revisions.take(state, &mut room);
        self.nodes.take(state, &mut room);
        self.nodes.all
    }
}

impl<K: Kind> Default for Taken<K> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            all: false,
        }
    }
}

impl<K: Kind> Taken<K> {
    /// Takes the records after the last one that was taken, while there is room for them.
    fn take(&mut self, state: &State, room: &mut usize) {
        if self.all || *room == 0 {
            return;
        }
        let last = self.records.last().cloned();
        let after = last.as_deref().map(|record| {
            let (namespace, name) = (barge_state::Kept::namespace, barge_state::Kept::name);
            (namespace(record), name(record))
        });
        let before = self.records.len();
        let next = state.list_after::<K>(None, after).take(*room);
        self.records.extend(next.cloned());
        *room -= self.records.len() - before;
        self.all = *room > 0;
    }
}

/// Where a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere, and it should be.
    Pending,
    /// Nowhere, and its turn comes later: a binding was refused.
    Deferred(Instant),
    /// On its way: the binding is proposed.
    Assumed(NodeId),
    /// There.
    Bound(NodeId),
    /// It needs no place any more.
    Ended,
}

/// Small, as there is one of each pod, waiting or not.
#[derive(Debug)]
struct PodInfo {
    class: ClassId,
    /// Nanoseconds since 1970.
    created: i64,
    place: Place,
    refusals: u32,
}

#[derive(Debug)]
struct ClassEntry {
    uid: String,
    class: Class,
    /// Whether there is a record of it: pods of another class aren't placed.
    known: bool,
    pods: usize,
}

/// A pod and the node it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The pod.
    pub pod_uid: String,
    /// The node.
    pub node_uid: String,
}

/// The cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Nodes,
    classes: HashMap<ClassId, ClassEntry>,
    class_ids: HashMap<String, ClassId>,
    next_class: u64,
    pods: HashMap<Box<str>, PodInfo>,
    deferred: BTreeSet<(Instant, String)>,
    /// What is to be placed.
    pub(super) queue: Queue,
    views: HashMap<ClassId, View>,
    /// The class whose pods are being placed; see [`Self::being_placed`].
    placing: Option<ClassId>,
}

impl Cluster {
    /// The cluster as it is in a snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut cluster = Self::default();
        for node in &snapshot.nodes.records {
            cluster.nodes.set(node);
        }
        for revision in &snapshot.revisions.records {
            cluster.set_class(revision);
        }
        for pod in &snapshot.pods.records {
            cluster.set_pod(pod);
        }
        cluster
    }

    /// Follows a change of the state.
    pub fn apply(&mut self, changed: &Changed) {
        if let (before, Some(pod)) = changed.of::<PodRecord>() {
            // A template that came and went between two looks is still with the change.
            if before.is_none()
                && let Some(template) = &changed.template
            {
                self.set_class(template);
            }
            self.set_pod(pod);
        } else if let (Some(pod), None) = changed.of::<PodRecord>() {
            self.remove_pod(pod.uid());
        }
        match changed.of::<Node>() {
            (_, Some(node)) => self.nodes.set(node),
            (Some(node), None) => self.nodes.remove(node.uid()),
            (None, None) => {}
        }
        match changed.of::<Revision>() {
            (_, Some(revision)) => self.set_class(revision),
            (Some(revision), None) => self.remove_class(revision.uid()),
            (None, None) => {}
        }
    }

    fn set_class(&mut self, revision: &Revision) {
        let id = self.class_id(revision.uid());
        // A template never changes.
        if let Some(entry) = self.classes.get_mut(&id)
            && !entry.known
            && entry.pods == 0
        {
            entry.class = Class::of(revision);
            entry.known = true;
        }
    }

    fn remove_class(&mut self, uid: &str) {
        let Some(id) = self.class_ids.get(uid).copied() else {
            return;
        };
        if let Some(entry) = self.classes.get_mut(&id) {
            entry.known = false;
        }
        self.forget_unused(id);
    }

    fn class_id(&mut self, uid: &str) -> ClassId {
        if let Some(id) = self.class_ids.get(uid) {
            return *id;
        }
        let id = ClassId(self.next_class);
        self.next_class += 1;
        self.class_ids.insert(uid.to_owned(), id);
        self.classes.insert(
            id,
            ClassEntry {
                uid: uid.to_owned(),
                class: Class::unknown(),
                known: false,
                pods: 0,
            },
        );
        id
    }

    fn forget_unused(&mut self, id: ClassId) {
        let unused = |entry: &ClassEntry| !entry.known && entry.pods == 0;
        if self.classes.get(&id).is_some_and(unused)
            && let Some(entry) = self.classes.remove(&id)
        {
            self.class_ids.remove(&entry.uid);
            self.views.remove(&id);
        }
    }

    fn set_pod(&mut self, record: &PackedPod) {
        let uid = record.uid();
        let wanted = if pods::is_finished(record) {
            Place::Ended
        } else if record.is_bound() {
            Place::Bound(self.nodes.id(record.node_uid()))
        } else if pods::is_terminating(record) {
            Place::Ended
        } else {
            Place::Pending
        };
        if !self.pods.contains_key(uid) {
            let class = self.class_id(record.template_uid());
            if let Some(entry) = self.classes.get_mut(&class) {
                entry.pods += 1;
            }
            let created = record.created().as_ref().map_or(0, nanos);
            let created = i64::try_from(created).unwrap_or_default();
            self.pods.insert(
                uid.into(),
                PodInfo {
                    class,
                    created,
                    place: Place::Ended,
                    refusals: 0,
                },
            );
        }
        let Some(pod) = self.pods.get(uid) else {
            return;
        };
        match (pod.place, wanted) {
            // The change is older than the decision.
            (Place::Assumed(_) | Place::Deferred(_), Place::Pending) => {}
            (Place::Assumed(assumed), Place::Bound(node)) if assumed == node => {
                if let Some(pod) = self.pods.get_mut(uid) {
                    pod.place = wanted;
                }
            }
            (old, new) if old == new => {}
            _ => self.move_to(uid, wanted),
        }
    }

    fn remove_pod(&mut self, uid: &str) {
        self.move_to(uid, Place::Ended);
        let Some(pod) = self.pods.remove(uid) else {
            return;
        };
        if let Some(entry) = self.classes.get_mut(&pod.class) {
            entry.pods -= 1;
        }
        self.forget_unused(pod.class);
    }

    /// Moves a pod, and keeps all that counts pods in step.
    fn move_to(&mut self, uid: &str, place: Place) {
        let Some(pod) = self.pods.get_mut(uid) else {
            return;
        };
        let Some(entry) = self.classes.get(&pod.class) else {
            return;
        };
        match std::mem::replace(&mut pod.place, place) {
            Place::Pending => self.queue.remove(pod.class, pod.created, uid),
            Place::Deferred(until) => {
                self.deferred.remove(&(until, uid.to_owned()));
            }
            Place::Assumed(node) | Place::Bound(node) => {
                self.nodes.vacate(node, pod.class, &entry.class);
            }
            Place::Ended => {}
        }
        match place {
            Place::Pending => self.queue.insert(pod.class, pod.created, uid),
            Place::Deferred(until) => {
                self.deferred.insert((until, uid.to_owned()));
            }
            Place::Assumed(node) | Place::Bound(node) => {
                self.nodes.occupy(node, pod.class, &entry.class);
            }
            Place::Ended => {}
        }
    }

    /// The best node for a pod of the class.
    pub(super) fn best(&mut self, class: ClassId) -> Option<NodeId> {
        let entry = self.classes.get(&class).filter(|entry| entry.known)?;
        let view = self.views.entry(class).or_default();
        view.best(class, &entry.class, &self.nodes)
    }

    /// A panic from now on is charged to this class; with None to none.
    pub(super) fn set_placing(&mut self, class: Option<ClassId>) {
        self.placing = class;
    }

    /// The template of the class whose pods were being placed when a panic came.
    pub fn being_placed(&self) -> Option<&str> {
        self.placing.map(|class| self.template_of(class))
    }

    /// The uid of the template that a class stands for.
    pub(super) fn template_of(&self, class: ClassId) -> &str {
        self.classes.get(&class).map_or("", |entry| &entry.uid)
    }

    /// Why no node can take a pod of the class, as of the last [`Self::best`].
    pub(super) fn explain(&self, class: ClassId) -> Option<String> {
        #[cfg(test)]
        assert!(
            !self.classes[&class]
                .class
                .node_selector
                .contains_key(super::tests::POISONS_EXPLAIN)
        );
        Some(self.views.get(&class)?.explain())
    }

    /// Sends a pod to a node; the node counts it from now on.
    pub(super) fn assume(&mut self, pod: &str, node: NodeId) -> Option<Placement> {
        let node_uid = self.nodes.get(node)?.uid.clone();
        self.move_to(pod, Place::Assumed(node));
        Some(Placement {
            pod_uid: pod.to_owned(),
            node_uid,
        })
    }

    /// A binding was refused: the node no longer counts the pod, and its turn comes again later,
    /// with waits that double.
    pub fn refused(&mut self, pod_uid: &str, now: Instant) {
        let Some(pod) = self.pods.get_mut(pod_uid) else {
            return;
        };
        if !matches!(pod.place, Place::Assumed(_)) {
            return;
        }
        let doubled = 1_u32 << pod.refusals.min(10);
        pod.refusals = pod.refusals.saturating_add(1);
        let wait = FIRST_BACKOFF.saturating_mul(doubled).min(MAX_BACKOFF);
        self.move_to(pod_uid, Place::Deferred(now + wait));
    }

    /// A binding was not proposed, or nobody knows what became of it, which says nothing about the
    /// pod: its turn comes again soon. Should it be bound after all, a change will say so.
    pub fn unanswered(&mut self, pod_uid: &str, now: Instant) {
        let pod = self.pods.get(pod_uid);
        if pod.is_some_and(|pod| matches!(pod.place, Place::Assumed(_))) {
            self.move_to(pod_uid, Place::Deferred(now + UNANSWERED));
        }
    }

    /// Lets pods back in the queue whose time has come.
    pub fn release(&mut self, now: Instant) {
        while let Some((until, _)) = self.deferred.first()
            && *until <= now
            && let Some((_, uid)) = self.deferred.pop_first()
        {
            self.move_to(&uid, Place::Pending);
        }
    }

    /// When [`Self::release`] has something to do.
    pub fn next_release(&self) -> Option<Instant> {
        self.deferred.first().map(|(until, _)| *until)
    }

    /// Forgets what nodes mean to classes that have nothing to place, beyond a few.
    pub(super) fn trim_views(&mut self) {
        if self.views.len() > MAX_IDLE_VIEWS + self.queue.classes().count() {
            let queue = &self.queue;
            self.views.retain(|class, _| queue.has(*class));
        }
    }
}
