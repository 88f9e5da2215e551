//! From the sessions of this manager to the leader: what was reported, in batches.

use std::time::Duration;

use barge_proto::v1::{
    NodeRelay, RelayRequest, RelayResponse, Report, session_client::SessionClient,
};
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::reports;
use crate::{auth::Principal, error::ApiError, net::Dialer, store::Store, transaction::Draft};

/// Reports that wait for their turn; beyond, sessions wait, and so do their agents.
const WAITING: usize = 1024;
/// Reports in one batch, and their size: one entry of the log.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// For one batch to become durable.
const ANSWER: Duration = Duration::from_secs(5);
/// Before the next try when there was no leader to take it.
const AGAIN: Duration = Duration::from_millis(50);

/// The way of reports to the leader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay {
    reports: mpsc::Sender<Item>,
}

#[derive(Debug)]
struct Item {
    node_uid: String,
    report: Report,
    durable: oneshot::Sender<()>,
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
        Self { reports }
    }

    /// Hands over a report; what is returned resolves once it is durable, or refused for good. Waits when many are ahead.
    ///
    /// # Errors
    /// When this manager stops.
    pub async fn report(
        &self,
        node_uid: &str,
        report: Report,
    ) -> Result<oneshot::Receiver<()>, ApiError> {
        let (durable, done) = oneshot::channel();
        let item = Item {
            node_uid: node_uid.to_owned(),
            report,
            durable,
        };
        self.reports
            .send(item)
            .await
            .map_err(|_| ApiError::Stopping)?;
        Ok(done)
    }
}

async fn run(leading: Leading, mut inbox: mpsc::Receiver<Item>) {
    let mut items = Vec::new();
    while inbox.recv_many(&mut items, MAX_BATCH).await > 0 {
        while let Some(batch) = next_batch(&mut items) {
            deliver(&leading, batch).await;
        }
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

/// Brings a batch to the leader, whoever that is, for as long as somebody waits for it.
async fn deliver(leading: &Leading, batch: Vec<Item>) {
    let (mut waiting, reports): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|item| (item.durable, (item.node_uid, item.report)))
        .unzip();
    loop {
        let nodes = reports.iter().map(|(node_uid, report)| NodeRelay {
            node_uid: node_uid.clone(),
            report: Some(report.clone()),
        });
        let nodes = nodes.collect();
        match send(leading, RelayRequest { nodes }).await {
            Ok(()) => break,
            Err(error) => tracing::debug!(%error, "no leader took the reports"),
        }
        waiting.retain(|durable| !durable.is_closed());
        if waiting.is_empty() {
            return;
        }
        let mut leadership = leading.store.leadership();
        leadership.mark_unchanged();
        if let Ok(Err(_)) = timeout(AGAIN, leadership.changed()).await {
            return;
        }
    }
    for durable in waiting {
        // The session may have ended; its agent reports again to the next one.
        let _ = durable.send(());
    }
}

async fn send(leading: &Leading, request: RelayRequest) -> Result<(), tonic::Status> {
    let mut following = leading.store.leadership();
    let leadership = following.borrow_and_update().clone();
    if leadership.is_leader {
        let by = leading.principal.to_string();
        receive(&leading.store, by, &request).await?;
        return Ok(());
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
            Ok(answer) => answer.map(|_| ()),
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

/// The leader's end: makes the reports durable.
///
/// # Errors
/// NOT_LEADER when this manager does not lead; NO_QUORUM and the like when the reports did not become durable.
pub async fn receive(
    store: &Store,
    by: String,
    request: &RelayRequest,
) -> Result<RelayResponse, ApiError> {
    let leadership = store.leadership().borrow().clone();
    if !leadership.is_leader {
        return Err(ApiError::NotLeader {
            leader: leadership.leader.map(|(_, address)| address),
        });
    }
    let reports: Vec<_> = request
        .nodes
        .iter()
        .filter(|n| n.report.is_some())
        .collect();
    if let Err(refused) = propose(store, &by, leadership.term, &reports).await? {
        // One report that breaks a rule must not hold back the others.
        tracing::debug!(
            message = refused,
            "a batch of reports was refused, going one by one"
        );
        for one in reports {
            if let Err(refused) = propose(store, &by, leadership.term, &[one]).await? {
                tracing::warn!(
                    node = one.node_uid,
                    message = refused,
                    "a report was refused"
                );
            }
        }
    }
    Ok(RelayResponse {
        term: leadership.term,
    })
}

/// Makes reports durable; the inner error is a refusal by the rules of the state.
async fn propose(
    store: &Store,
    by: &str,
    term: u64,
    relays: &[&NodeRelay],
) -> Result<Result<(), String>, ApiError> {
    let mut draft = Draft::new();
    store.read(|state| {
        for relay in relays {
            reports::plan(state, relay, &mut draft);
        }
    });
    if draft.is_empty() {
        return Ok(Ok(()));
    }
    let mut transaction = draft.build(by.to_owned(), None);
    transaction.term = term;
    let outcome = store.propose(transaction).await?;
    match ApiError::check(outcome) {
        Ok(_) => Ok(Ok(())),
        Err(error @ ApiError::NotLeader { .. }) => Err(error),
        Err(refused) => Ok(Err(refused.to_string())),
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
            durable: oneshot::channel().0,
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
