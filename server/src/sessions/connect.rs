//! One session of an agent: its reports go to the leader, assignments for its node go to the agent.

use std::time::Duration;

use barge_proto::v1::{
    Ack, AgentMessage, Hello, Refused, Report, agent_message::Message as FromAgent,
    manager_message::Message as ToAgent,
};
use barge_state::{Kind, State};
use futures::{StreamExt, stream::FuturesOrdered};
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{
    Relay, Sessions,
    outbox::{OUTBOX, Outbox},
    relay::Verdict,
    reports::unacceptable,
    tell::Teller,
};
use crate::{error::ApiError, pki::Keyring, store::Store};

/// For the first message, and for this manager to know as much as the agent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reports of one agent that are not durable yet, and their bytes; beyond, it is not read from.
const UNACKNOWLEDGED: usize = 32;
const UNACKNOWLEDGED_BYTES: usize = 2 << 20;

/// What a session works with.
#[derive(Clone)]
pub struct Host {
    /// The state.
    pub store: Store,
    /// The registry of sessions.
    pub sessions: Sessions,
    /// The way to the leader.
    pub relay: Relay,
    /// Opens Secrets for the nodes whose pods use them.
    pub keyring: Keyring,
    /// Ends all sessions.
    pub stop: CancellationToken,
}

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
            outbox.end(status);
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
        // Not acknowledged: the agent says it with every Hello. It is on its way as long as somebody could wait for it.
        let mut _on_its_way = None;
        if let Some(status) = &hello.status {
            let report = Report {
                node: Some(status.clone()),
                ..Report::default()
            };
            match unacceptable(&report) {
                None => _on_its_way = Some(self.host.relay.report(&self.node_uid, report).await?),
                Some(reason) => self.refused(&reason),
            }
        }
        let cut = place.cut.clone();
        tokio::select! {
            end = self.listen(inbound) => end,
            end = Teller::run(&self.host, &self.node_uid, &self.outbox, &hello, inbox) => end,
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

    /// What the agent says. A report that cannot be taken is answered, and ends nothing.
    async fn listen(&self, mut inbound: Streaming<AgentMessage>) -> Result<(), Status> {
        let mut verdicts = FuturesOrdered::new();
        let mut waiting = 0;
        loop {
            let has_room = verdicts.len() < UNACKNOWLEDGED && waiting < UNACKNOWLEDGED_BYTES;
            tokio::select! {
                message = inbound.message(), if has_room => {
                    let Some(message) = message? else {
                        return Ok(());
                    };
                    match message.message {
                        Some(FromAgent::Report(report)) => {
                            let (sequence, bytes) = (report.sequence, report.encoded_len());
                            let verdict = self.hand_over(report).await?;
                            waiting += bytes;
                            verdicts.push_back(async move { (sequence, bytes, verdict.await) });
                        }
                        Some(FromAgent::Hello(_)) => {
                            return Err(Status::invalid_argument("a second Hello"));
                        }
                        None => return Err(unknown_message()),
                    }
                }
                Some((sequence, bytes, verdict)) = verdicts.next() => {
                    waiting -= bytes;
                    if let Err(reason) = verdict.map_err(|_| ApiError::Stopping)? {
                        self.refused(&reason);
                        self.outbox.send(ToAgent::Refused(Refused { sequence, reason })).await?;
                    }
                    self.outbox.send(ToAgent::Ack(Ack { sequence })).await?;
                }
            }
        }
    }

    /// Sends a report on its way to the leader. One that can never be taken does not get there.
    async fn hand_over(&self, report: Report) -> Result<oneshot::Receiver<Verdict>, Status> {
        let Some(reason) = unacceptable(&report) else {
            return Ok(self.host.relay.report(&self.node_uid, report).await?);
        };
        let (verdict, answer) = oneshot::channel();
        // It is received below.
        let _ = verdict.send(Err(reason));
        Ok(answer)
    }

    fn refused(&self, reason: &str) {
        self.host.sessions.counters().refused_reports.inc();
        tracing::warn!(node_uid = self.node_uid, reason, "a report was refused");
    }
}

async fn first(inbound: &mut Streaming<AgentMessage>) -> Result<Hello, Status> {
    match inbound.message().await?.and_then(|first| first.message) {
        Some(FromAgent::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("a session begins with Hello")),
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
