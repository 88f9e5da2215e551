//! The leader's loops: each a pure plan over the state, in a shell that follows changes and
//! proposes.
//!
//! A plan is a function of the state, the time and a seed. Its shell proposes the plan's changes with
//! preconditions and the leader's term, so `apply` refuses work that was decided on an old state or by a deposed
//! leader. A plan that panics costs its key a back-off and an event; a loop that panics starts again
//! (`docs/design/controllers.md`). The loops keep nothing outside of the state, so a new leader goes on where the
//! last one stopped.

pub mod conditions;
pub mod deletions;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
pub mod guard;
pub mod meters;
pub mod names;
pub mod nodes;
pub mod plan;
pub mod pods;
pub mod propose;
pub mod replica;
pub mod replica_set;
pub mod replicas;
pub mod shell;
pub mod stamp;
pub mod supervise;
pub mod taints;
#[cfg(test)]
pub(crate) mod testing;
pub mod work;

use barge_proto::v1::{ObjectMeta, ObjectReference};
use barge_state::{Changed, RecordKind, State};
use meters::Meters;
use plan::Plan;
use replica::Replica;
use stamp::{Stamp, Stamps};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use supervise::supervise;
use tokio_util::sync::CancellationToken;

/// How long a node's agent may be silent before its node is not ready, and may be lost; unless a manager is told otherwise.
pub const NODE_GRACE: Duration = Duration::from_secs(4);

/// The shortest time between two nodes that are lost, unless a manager is told otherwise.
pub const NODE_LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// When agents were heard: what the leader notes of their life signs (`life::Heard`).
pub trait NodeHeartbeats: Send + Sync + 'static {
    /// When the agent of a node was last heard, by any manager that relays to this one; None if it
    /// never was.
    fn last_heard(&self, node_uid: &str) -> Option<Instant>;

    /// The latest moment at which the agent certainly lived: it echoed an answer that this leader gave then. A sign by itself
    /// may have waited in a buffer. None if it never did while this manager led.
    fn confirmed(&self, node_uid: &str) -> Option<Instant>;

    /// This leader has been awake, and able to hear, without a pause since then. Right also in the first moment after a pause.
    fn attentive_since(&self) -> Instant;
}

/// What all loops of one leadership share.
#[derive(Clone)]
pub struct Context {
    /// The term in which this manager leads.
    pub term: u64,
    /// Time and randomness.
    pub stamps: Arc<dyn Stamps>,
    /// Ends the loops.
    pub cancel: CancellationToken,
    /// What they measure.
    pub meters: Meters,
}

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Name {
    /// Of an object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        }
    }
}

/// Looks at one object at a time and says what should be done about it.
pub trait Controller: Send + Sync + 'static {
    /// Names what it looks at.
    type Key: Ord + Clone + fmt::Debug + Send + Sync + 'static;
    /// For principals ("controller/<name>") and events.
    const NAME: &'static str;
    /// The kinds whose changes matter to it.
    const KINDS: &'static [RecordKind];
    /// Transactions that it has under way at most.
    const RUNNING: usize = 16;

    /// Everything there is to look at.
    fn all(&self, state: &State) -> Vec<Self::Key>;

    /// What has to be looked at because of a change.
    fn dirtied(&self, state: &State, changed: &Changed, dirty: &mut dyn FnMut(Self::Key));

    /// What should be done now.
    fn plan(&self, state: &State, key: &Self::Key, stamp: &mut Stamp) -> Plan;

    /// The object that a failure is reported on.
    fn concerned(&self, state: &State, key: &Self::Key) -> Option<ObjectReference>;
}

/// Drives a controller in a task of its own, and anew when it fails.
pub async fn keep<R: Replica, C: Controller>(replica: &R, controller: C, context: &Context) {
    let controller = Arc::new(controller);
    supervise(C::NAME, replica, context, || {
        shell::drive(replica.clone(), controller.clone(), context.clone())
    })
    .await;
}
