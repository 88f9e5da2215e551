//! The leader's end of the relay: makes reports durable, and refuses those that can never be.

use std::time::Duration;

use barge_proto::v1::{NodeRelay, RefusedReport, RelayRequest, RelayResponse};
use tokio::time::timeout;

use super::reports;
use crate::{
    error::ApiError,
    store::{Store, StoreError, transaction::Draft},
};

/// For this manager to apply what the sender of reports has applied. Shorter than the sender waits.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Makes the reports durable that can be.
///
/// # Errors
/// NOT_LEADER when this manager does not lead; NO_QUORUM and the like when the reports did not become durable. All of them are to be sent
/// again then.
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
    // An agent may have heard of a pod before this manager applied its binding.
    match timeout(CATCH_UP, store.wait_applied(request.revision)).await {
        Ok(caught_up) => caught_up?,
        Err(_) => {
            let why = "the leader has not yet applied what the reports are about";
            return Err(ApiError::NoQuorum(why.to_owned()));
        }
    }
    let reports = request.nodes.iter().enumerate();
    let reports: Vec<_> = reports.filter(|(_, n)| n.report.is_some()).collect();
    let mut refused = Vec::new();
    // One that breaks a rule must not hold back the others: what is refused is halved, until it is alone.
    let mut open = vec![reports.as_slice()];
    while let Some(some) = open.pop() {
        let Err(reason) = propose(store, &by, leadership.term, some).await? else {
            continue;
        };
        if let [(index, one)] = some {
            tracing::warn!(node = one.node_uid, reason, "a report was refused");
            refused.push(RefusedReport {
                index: u32::try_from(*index).unwrap_or(u32::MAX),
                reason,
            });
        } else {
            let (first, second) = some.split_at(some.len() / 2);
            open.extend([second, first]);
        }
    }
    Ok(RelayResponse {
        term: leadership.term,
        refused,
    })
}

/// Makes reports durable; the inner error is a refusal by the rules of the state.
async fn propose(
    store: &Store,
    by: &str,
    term: u64,
    relays: &[(usize, &NodeRelay)],
) -> Result<Result<(), String>, ApiError> {
    let mut draft = Draft::new();
    store.read(|state| {
        for (_, relay) in relays {
            reports::plan(state, relay, &mut draft);
        }
    });
    if draft.is_empty() {
        return Ok(Ok(()));
    }
    let mut transaction = draft.build(by.to_owned(), None);
    transaction.term = term;
    let outcome = match store.propose(transaction).await {
        Err(StoreError::TooLarge { size, max }) => {
            return Ok(Err(format!(
                "the report takes {size} bytes of the log, at most {max} are possible at once"
            )));
        }
        outcome => outcome?,
    };
    match ApiError::check(outcome) {
        Ok(_) => Ok(Ok(())),
        Err(error @ ApiError::NotLeader { .. }) => Err(error),
        Err(refused) => Ok(Err(refused.to_string())),
    }
}
