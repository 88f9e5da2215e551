//! The nodes and managers that belong to the cluster, for code that must not wait for the state's lock: `apply` may hold that lock for long.
//! A task that follows the state publishes the identities here, where a lookup waits for nothing but another lookup.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use barge_client::identity::role_word;
use barge_proto::v1::{ClusterRecord, ManagerRecord, Node, Role};
use barge_state::{Changed, Kind, RecordKind, State};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    net::Peer,
    store::{Scope, Store},
};

/// What it is made of.
const KINDS: [RecordKind; 3] = [RecordKind::Cluster, RecordKind::Manager, RecordKind::Node];

/// Before another look at a state that is being replaced.
const AGAIN: Duration = Duration::from_millis(10);

/// The machines of the cluster, as of a moment ago. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Machines {
    cluster_id: Arc<str>,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    next_raft_id: u64,
    managers: HashSet<String>,
    nodes: HashSet<String>,
}

impl Machines {
    /// Those that this manager's state knows now; [`Machines::follow`] keeps them up to date.
    #[must_use]
    pub fn of(cluster_id: &str, store: &Store) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            known: Arc::new(RwLock::new(store.read(Known::of))),
        }
    }

    /// Publishes what this manager applies, until `stop`.
    pub async fn follow(self, store: Store, stop: CancellationToken) {
        let follow = async {
            loop {
                let revision = store.read(|state| {
                    let known = Known::of(state);
                    self.with(|published| *published = known);
                    state.revision()
                });
                let Ok(mut changes) = store.watch(revision, Scope::kinds(KINDS)) else {
                    // The state is being replaced by a snapshot: what is watched follows in a moment.
                    sleep(AGAIN).await;
                    continue;
                };
                // One that fell behind begins anew.
                while let Ok(changes) = changes.next().await {
                    self.with(|published| changes.iter().for_each(|one| published.take(one)));
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    /// Whether the node belongs to the cluster.
    #[must_use]
    pub fn has_node(&self, uid: &str) -> bool {
        self.look(|known| known.nodes.contains(uid))
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.look(|known| known.nodes.len())
    }

    /// The agent that asks, by its certificate: its node's uid.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a certificate of the cluster, PERMISSION_DENIED with that of somebody else than an agent,
    /// UNAVAILABLE for a node that this manager does not know: it may be behind, so another try may help.
    pub fn agent<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let uid = self.holder(request, Role::Agent)?.0;
        match self.has_node(&uid) {
            true => Ok(uid),
            false => Err(Status::unavailable(format!(
                "node {uid} is not known to this manager"
            ))),
        }
    }

    /// The manager that asks, by its certificate: its uid. One that joined after what this manager knows is let in: it may be the
    /// leader.
    ///
    /// # Errors
    /// As [`Machines::agent`]; REVOKED for a manager that was removed.
    pub fn manager<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let (uid, raft_id) = self.holder(request, Role::Manager)?;
        let removed = self.look(|known| {
            let raft_id = raft_id.unwrap_or_default();
            raft_id < known.next_raft_id && !known.managers.contains(&uid)
        });
        match removed {
            false => Ok(uid),
            true => Err(super::layer::revoked(Role::Manager, &uid)),
        }
    }

    /// Whether an agent or a manager of the cluster asks.
    ///
    /// # Errors
    /// As [`Machines::agent`] and [`Machines::manager`].
    pub fn belongs<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match self.holder(request, Role::Manager) {
            Ok(_) => self.manager(request).map(drop),
            Err(_) => self.agent(request).map(drop),
        }
    }

    fn holder<T>(&self, request: &Request<T>, role: Role) -> Result<(String, Option<u64>), Status> {
        let peer = request.extensions().get::<Peer>();
        let Some(subject) = peer.and_then(|peer| peer.subject.as_ref()) else {
            return Err(Status::unauthenticated(
                "a certificate of this cluster is needed",
            ));
        };
        if *subject.cluster_id != *self.cluster_id {
            return Err(Status::unauthenticated(format!(
                "the certificate is of another cluster, {}",
                subject.cluster_id
            )));
        }
        if subject.role != role {
            return Err(Status::permission_denied(format!(
                "this is for a {}, not for a {}",
                role_word(role),
                role_word(subject.role)
            )));
        }
        Ok((subject.uid.clone(), subject.raft_id))
    }

    fn look<T>(&self, f: impl FnOnce(&Known) -> T) -> T {
        f(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn of(state: &State) -> Self {
        let cluster = state.cluster();
        Self {
            next_raft_id: cluster.map_or(0, |cluster| cluster.next_raft_id),
            managers: uids::<ManagerRecord>(state),
            nodes: uids::<Node>(state),
        }
    }

    fn take(&mut self, change: &Changed) {
        match change.kind() {
            Some(RecordKind::Node) => set(&mut self.nodes, change),
            Some(RecordKind::Manager) => set(&mut self.managers, change),
            Some(RecordKind::Cluster) => {
                if let (_, Some(cluster)) = change.of::<ClusterRecord>() {
                    self.next_raft_id = cluster.next_raft_id;
                }
            }
            _ => {}
        }
    }
}

fn uids<K: Kind>(state: &State) -> HashSet<String> {
    use barge_state::Kept;
    let records = state.list::<K>(None);
    records.map(|record| record.uid().to_owned()).collect()
}

fn set(uids: &mut HashSet<String>, change: &Changed) {
    match (&change.before, &change.after) {
        (None, Some(_)) => {
            uids.insert(change.uid().to_owned());
        }
        (_, None) => {
            uids.remove(change.uid());
        }
        _ => {}
    }
}
