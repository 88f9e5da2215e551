//! One session of an agent: what it says goes to the leader, what concerns its node comes back.

use std::time::Duration;

use barge_client::identity::roots_sha256;
use barge_proto::v1::{
    Ack, AgentMessage, Assignment, Hello, ManagerMessage, Node, Report, Trust, Welcome,
    agent_message::Message as FromAgent, manager_message::Message as ToAgent,
};
use barge_state::{Kind, RecordKind, State};
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Relay, Sessions, feed};
use crate::{
    cluster::status::members,
    error::ApiError,
    store::{Scope, Store},
};

/// Messages on their way to an agent.
pub const OUTBOX: usize = 64;
/// For the first message, and for this manager to know as much as the agent.
const PATIENCE: Duration = Duration::from_secs(10);
/// An agent that does not take a message for this long is cut off, and begins again with a full set.
const SLOW: Duration = Duration::from_secs(10);
/// When agents renew because of other roots: a hundred a second, within a time that is not too short for chance to spread
/// them, nor too long for who waits.
const RENEWAL: Duration = Duration::from_millis(10);
const RENEW_WITHIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Reports of one agent that are not durable yet; beyond, it is not read from.
const UNACKNOWLEDGED: usize = 32;

/// What a session works with.
#[derive(Clone)]
pub struct Host {
    /// The state.
    pub store: Store,
    /// The registry of sessions.
    pub sessions: Sessions,
    /// The way to the leader.
    pub relay: Relay,
    /// Ends all sessions.
    pub stop: CancellationToken,
}

type Outbox = mpsc::Sender<Result<ManagerMessage, Status>>;

/// Runs a session to its end and tells the agent why it ended.
pub async fn run(host: Host, node_uid: String, inbound: Streaming<AgentMessage>, outbox: Outbox) {
    let session = Session {
        host,
        node_uid,
        outbox: outbox.clone(),
    };
    let node_uid = session.node_uid.clone();
    match Box::pin(session.run(inbound)).await {
        Ok(()) => tracing::debug!(node_uid, "the agent ended its session"),
        Err(status) => {
            tracing::info!(node_uid, %status, "a session ended");
            // An agent that is gone or too slow does not get it; it notices otherwise.
            let _ = outbox.try_send(Err(status));
        }
    }
}

struct Session {
    host: Host,
    node_uid: String,
    outbox: Outbox,
}

impl Session {
    async fn run(self, mut inbound: Streaming<AgentMessage>) -> Result<(), Status> {
        let stop = self.host.stop.clone();
        let hello = tokio::select! {
            hello = timeout(PATIENCE, first(&mut inbound)) => {
                hello.map_err(|_| Status::deadline_exceeded("no Hello in time"))??
            }
            () = stop.cancelled() => return Err(ApiError::Stopping.into()),
        };
        tokio::select! {
            caught_up = timeout(PATIENCE, self.catch_up(&hello)) => {
                caught_up.map_err(|_| Status::unavailable("this manager is behind: try another"))??;
            }
            () = stop.cancelled() => return Err(ApiError::Stopping.into()),
        }
        let (orders, inbox) = mpsc::channel(OUTBOX);
        let place = self.host.sessions.enter(&self.node_uid, orders);
        if let Some(status) = hello.status {
            // Not acknowledged: the agent says it with every Hello.
            let report = Report {
                node: Some(status),
                ..Report::default()
            };
            self.host.relay.report(&self.node_uid, report).await?;
        }
        let cut = place.cut.clone();
        tokio::select! {
            end = self.listen(inbound) => end,
            end = self.tell(inbox) => end,
            () = cut.cancelled() => Err(Status::aborted("the agent began another session")),
            () = stop.cancelled() => Err(ApiError::Stopping.into()),
        }
    }

    /// Nothing older than what the agent acted on must reach it, and nothing of another cluster.
    async fn catch_up(&self, hello: &Hello) -> Result<(), Status> {
        let store = &self.host.store;
        store.read_index().await.map_err(ApiError::from)?;
        let cluster_id = store.read(|state| state.cluster().map(|c| c.uid().to_owned()));
        if !hello.cluster_id.is_empty() && cluster_id.as_ref() != Some(&hello.cluster_id) {
            return Err(Status::failed_precondition(format!(
                "the agent belongs to cluster {}, this is {}",
                hello.cluster_id,
                cluster_id.unwrap_or_default()
            )));
        }
        not_older(store.read(State::revision), hello.acted_revision)
    }

    /// What the agent says.
    async fn listen(&self, mut inbound: Streaming<AgentMessage>) -> Result<(), Status> {
        let mut acks = FuturesOrdered::new();
        loop {
            tokio::select! {
                message = inbound.message(), if acks.len() < UNACKNOWLEDGED => {
                    let Some(message) = message? else {
                        return Ok(());
                    };
                    match message.message {
                        Some(FromAgent::Report(report)) => {
                            let sequence = report.sequence;
                            let durable = self.host.relay.report(&self.node_uid, report).await?;
                            acks.push_back(durable_then(sequence, durable));
                        }
                        Some(FromAgent::Hello(_)) => {
                            return Err(Status::invalid_argument("a second Hello"));
                        }
                        None => return Err(unknown_message()),
                    }
                }
                Some(sequence) = acks.next() => {
                    self.send(ToAgent::Ack(Ack { sequence: sequence? })).await?;
                }
            }
        }
    }

    /// What the agent is told.
    async fn tell(&self, mut inbox: mpsc::Receiver<ManagerMessage>) -> Result<(), Status> {
        let store = &self.host.store;
        let (welcome, full) = self.beginning()?;
        let mut own = store
            .watch(full.revision, own_scope(&self.node_uid))
            .map_err(behind)?;
        let mut common = store.watch(full.revision, common_scope()).map_err(behind)?;
        let cluster_scope = Scope::kinds([RecordKind::Cluster]);
        let mut cluster = store.watch(full.revision, cluster_scope).map_err(behind)?;
        self.send(ToAgent::Welcome(welcome)).await?;
        self.send(ToAgent::Assignment(full)).await?;
        let mut told = None;
        self.tell_trust(&mut told).await?;
        loop {
            let (changes, of_node) = tokio::select! {
                changes = own.next() => (changes.map_err(behind)?, true),
                changes = common.next() => (changes.map_err(behind)?, false),
                changed = cluster.next() => {
                    changed.map_err(behind)?;
                    self.tell_trust(&mut told).await?;
                    continue;
                }
                order = inbox.recv() => {
                    // The registry forgets a session when another one takes its place.
                    let order = order
                        .ok_or_else(|| Status::aborted("the agent began another session"))?;
                    if let Some(message) = order.message {
                        self.send(message).await?;
                    }
                    continue;
                }
            };
            let difference = store.read(|state| feed::difference(state, &changes, &self.node_uid));
            if let Some(assignment) = difference.assignment {
                self.send(ToAgent::Assignment(assignment)).await?;
            }
            // The deletion of its pods was part of the node's, and the agent has it by now.
            if difference.node_gone && of_node {
                return Err(unknown_node());
            }
        }
    }

    /// What the agent should trust, when that is something else than it was told last.
    async fn tell_trust(&self, told: &mut Option<[u8; 32]>) -> Result<(), Status> {
        let (roots, nodes) = self.host.store.read(|state| {
            let roots = state.cluster().map(|cluster| roots_sha256(&cluster.roots));
            (roots, state.count::<Node>())
        });
        let Some(roots) = roots.filter(|roots| *told != Some(*roots)) else {
            return Ok(());
        };
        *told = Some(roots);
        let within = RENEWAL.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX));
        let within = within.clamp(RENEW_WITHIN.0, RENEW_WITHIN.1);
        self.send(ToAgent::Trust(Trust {
            roots_sha256: roots.to_vec(),
            within_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        }))
        .await
    }

    fn beginning(&self) -> Result<(Welcome, Assignment), Status> {
        let manager_addresses = members(&self.host.store)
            .into_iter()
            .map(|member| member.address)
            .collect();
        self.host
            .store
            .read(|state| {
                let node = state.by_uid::<Node>(&self.node_uid)?;
                let service_cidr = state.cluster().map(|c| c.service_cidr.clone());
                let welcome = Welcome {
                    manager_addresses,
                    node: Some(Node::clone(node)),
                    service_cidr: service_cidr.unwrap_or_default(),
                };
                Some((welcome, feed::full(state, &self.node_uid)))
            })
            .ok_or_else(unknown_node)
    }

    async fn send(&self, message: ToAgent) -> Result<(), Status> {
        let message = ManagerMessage {
            message: Some(message),
        };
        match timeout(SLOW, self.outbox.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the agent is gone")),
            Err(_) => Err(Status::resource_exhausted(
                "the agent does not keep up with what it is sent",
            )),
        }
    }
}

/// The node's own pods, and itself: of ten thousand nodes, each change of a pod costs one session.
fn own_scope(node_uid: &str) -> Scope {
    Scope {
        node: Some(node_uid.to_owned()),
        ..Scope::kinds([RecordKind::Pod, RecordKind::Node])
    }
}

/// What every node has to know.
fn common_scope() -> Scope {
    Scope::kinds([RecordKind::Service, RecordKind::Endpoints, RecordKind::Node])
}

async fn first(inbound: &mut Streaming<AgentMessage>) -> Result<Hello, Status> {
    match inbound.message().await?.and_then(|first| first.message) {
        Some(FromAgent::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("a session begins with Hello")),
    }
}

/// The report's number once it is durable.
async fn durable_then(sequence: u64, durable: oneshot::Receiver<()>) -> Result<u64, Status> {
    match durable.await {
        Ok(()) => Ok(sequence),
        Err(_) => Err(ApiError::Stopping.into()),
    }
}

/// After a read index this manager knows all that any manager has told, so an agent that acted on more was told by another life
/// of the cluster.
fn not_older(revision: u64, acted: u64) -> Result<(), Status> {
    match revision >= acted {
        true => Ok(()),
        false => Err(Status::failed_precondition(format!(
            "this cluster's state is of revision {revision}, and the node has acted on {acted}: it was put back from an older \
             copy; `barge-server recover` begins anew with it, above what was before"
        ))),
    }
}

/// An agent of before life signs sends heartbeats here, and its node would count as silent without a word.
fn unknown_message() -> Status {
    Status::failed_precondition(
        "the agent is of a version that this manager does not understand: install the managers' version on the node",
    )
}

fn unknown_node() -> Status {
    Status::failed_precondition("the node does not belong to this cluster (any more)")
}

fn behind<E: std::fmt::Display>(error: E) -> Status {
    Status::unavailable(format!("the session fell behind: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_older_than_what_was_acted_on_is_not_told() {
        assert!(not_older(7, 7).is_ok());
        assert!(not_older(8, 7).is_ok());
        let refused = not_older(6, 7).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("recover"), "{refused}");
    }
}
