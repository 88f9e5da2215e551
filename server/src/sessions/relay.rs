//! Sends the reports of this manager's sessions to the leader, in batches.

use std::{collections::HashMap, sync::Arc, time::Duration};

use barge_proto::v1::{
    NodeRelay, RelayRequest, RelayResponse, Report, session_client::SessionClient,
};
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::receive::receive;
use crate::{error::ApiError, net::Dialer, security::auth::Principal, store::Store};

/// Reports that wait for their turn; beyond, sessions wait, and so do their agents.
const WAITING: usize = 1024;
const WAITING_BYTES: usize = 32 << 20;
/// Reports in one batch, and their size: one entry of the log.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// For one batch to become durable.
const ANSWER: Duration = Duration::from_secs(5);
/// Before the next try when there was no leader to take it.
const AGAIN: Duration = Duration::from_millis(50);

/// What became of a report: it is durable, or why it never will be.
pub type Verdict = Result<(), String>;

/// The way of reports to the leader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay {
    reports: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Item {
    node_uid: String,
    report: Report,
    verdict: oneshot::Sender<Verdict>,
    /// Its share of [`WAITING_BYTES`].
    _room: Option<OwnedSemaphorePermit>,
}

/// What the relay works with.
#[derive(Clone)]
pub struct Leading {
    /// The state.
    pub store: Store,
    /// The way to the leader.
    pub dialer: Dialer,
    /// This manager.
    pub principal: Principal,
}

impl Relay {
    /// Starts relaying, until `stop`.
    #[must_use]
    pub fn start(leading: Leading, stop: CancellationToken) -> Self {
        let (reports, inbox) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            stop.run_until_cancelled(run(leading, inbox)).await;
        });
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        Self { reports, room }
    }

    /// Hands over a report; what is returned resolves once it is durable, or refused for good. Waits when many are ahead.
    ///
    /// # Errors
    /// When this manager stops.
    pub async fn report(
        &self,
        node_uid: &str,
        report: Report,
    ) -> Result<oneshot::Receiver<Verdict>, ApiError> {
        let bytes = report.encoded_len().min(WAITING_BYTES);
        let room = self.room.clone();
        let room = room.acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX));
        let room = room.await.map_err(|_| ApiError::Stopping)?;
        let (verdict, answer) = oneshot::channel();
        let item = Item {
            node_uid: node_uid.to_owned(),
            report,
            verdict,
            _room: Some(room),
        };
        self.reports
            .send(item)
            .await
            .map_err(|_| ApiError::Stopping)?;
        Ok(answer)
    }
}

async fn run(leading: Leading, mut inbox: mpsc::Receiver<Item>) {
    let mut items = Vec::new();
    while inbox.recv_many(&mut items, MAX_BATCH).await > 0 {
        while let Some(batch) = next_batch(&mut items) {
            // In order; a batch that the leader cannot even read is halved, until the report to blame is alone.
            let mut open = vec![batch];
            while let Some(mut batch) = open.pop() {
                match deliver(&leading, &mut batch).await {
                    Ok(()) => {}
                    Err(reason) if batch.len() <= 1 => {
                        answer(batch, |_| Err(reason.clone()));
                    }
                    Err(_) => {
                        let second = batch.split_off(batch.len() / 2);
                        open.extend([second, batch]);
                    }
                }
            }
        }
    }
}

/// Says what became of reports, by their place.
fn answer(batch: impl IntoIterator<Item = Item>, verdict: impl Fn(usize) -> Verdict) {
    for (index, item) in batch.into_iter().enumerate() {
        // The session may have ended; its agent reports again to the next one.
        let _ = item.verdict.send(verdict(index));
    }
}

/// Takes as many reports as fit into one batch; absent when none is left.
fn next_batch(items: &mut Vec<Item>) -> Option<Vec<Item>> {
    if items.is_empty() {
        return None;
    }
    let mut bytes = 0;
    let mut count = 0;
    for item in items.iter() {
        bytes += item.report.encoded_len();
        if count > 0 && bytes > MAX_BATCH_BYTES {
            break;
        }
        count += 1;
    }
    Some(items.drain(..count).collect())
}

/// Sends a batch to the current leader until the leader has answered, or no session waits for it any more.
///
/// # Errors
/// Why no leader will ever take this batch as it is.
async fn deliver(leading: &Leading, batch: &mut Vec<Item>) -> Result<(), String> {
    loop {
        let nodes = batch.iter().map(|item| NodeRelay {
            node_uid: item.node_uid.clone(),
            report: Some(item.report.clone()),
        });
        let request = RelayRequest {
            nodes: nodes.collect(),
            revision: leading.store.read(barge_state::State::revision),
        };
        match send(leading, request).await {
            Ok(response) => {
                let refused = response.refused.into_iter();
                let refused: HashMap<_, _> =
                    refused.map(|r| (r.index as usize, r.reason)).collect();
                answer(batch.drain(..), |index| match refused.get(&index) {
                    Some(reason) => Err(reason.clone()),
                    None => Ok(()),
                });
                return Ok(());
            }
            // It is larger than a message may be, or no message at all.
            Err(status) if matches!(status.code(), Code::OutOfRange | Code::InvalidArgument) => {
                return Err(status.message().to_owned());
            }
            Err(error) => tracing::debug!(%error, "no leader took the reports"),
        }
        batch.retain(|item| !item.verdict.is_closed());
        if batch.is_empty() {
            return Ok(());
        }
        let mut leadership = leading.store.leadership();
        leadership.mark_unchanged();
        if let Ok(Err(_)) = timeout(AGAIN, leadership.changed()).await {
            batch.clear();
            return Ok(());
        }
    }
}

async fn send(leading: &Leading, request: RelayRequest) -> Result<RelayResponse, tonic::Status> {
    let mut following = leading.store.leadership();
    let leadership = following.borrow_and_update().clone();
    if leadership.is_leader {
        let by = leading.principal.to_string();
        return Ok(receive(&leading.store, by, &request).await?);
    }
    let Some((_, address)) = leadership.leader else {
        return Err(ApiError::NoQuorum("no manager leads".to_owned()).into());
    };
    let channel = leading
        .dialer
        .channel(&address)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut client = SessionClient::new(channel);
    tokio::select! {
        answer = timeout(ANSWER, client.relay(request)) => match answer {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(tonic::Status::deadline_exceeded(
                "the leader did not answer in time",
            )),
        },
        // A leader whose machine is gone says nothing for as long as the answer is waited for.
        _ = following.wait_for(|now| now.leader.is_some() && now.term != leadership.term) => {
            Err(tonic::Status::aborted("another manager leads now"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_proto::v1::EventReport;

    fn item(bytes: usize) -> Item {
        Item {
            node_uid: "n".to_owned(),
            report: Report {
                events: vec![EventReport {
                    message: "x".repeat(bytes),
                    ..EventReport::default()
                }],
                ..Report::default()
            },
            verdict: oneshot::channel().0,
            _room: None,
        }
    }

    #[test]
    fn batches_are_bounded_and_complete() {
        let mut items = vec![item(10), item(MAX_BATCH_BYTES), item(10), item(10)];
        let mut sizes = Vec::new();
        while let Some(batch) = next_batch(&mut items) {
            sizes.push(batch.len());
        }
        assert_eq!(sizes, [1, 1, 2]);
    }
}
