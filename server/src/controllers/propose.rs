//! Proposing the changes of a leader's loop, and catching up when a proposal has no answer.

use super::{
    Context, meters,
    replica::{NoOutcome, Replica},
    stamp::Stamp,
};
use crate::store::transaction::Draft;
use barge_client::backoff::Backoff;
use barge_proto::v1::{Outcome, Refusal, RefusalReason};
use std::time::Duration;
use tokio::time::sleep;

/// The first pause between two attempts to catch up, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What became of a draft.
#[derive(Debug)]
pub enum Proposed {
    /// Applied, or there was nothing to do.
    Applied(Outcome),
    /// Refused whole.
    Refused(Refusal),
    /// It cannot be proposed.
    Failed(String),
    /// Outcome unknown, or not proposed; the draft is not the cause. Whatever was proposed before is decided and applied here by now, so
    /// that the next plan sees it.
    Unanswered(String),
    /// The term is over.
    Deposed,
}

/// The term is over: nothing that was decided in it is applied any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deposed;

/// Proposes a draft in the name of a loop, in the term that it was made in. Returns only when it is decided what became of it, or the term is
/// over.
pub async fn propose<R: Replica>(
    replica: &R,
    context: &Context,
    name: &str,
    draft: Draft,
    stamp: &mut Stamp,
) -> Proposed {
    if draft.is_empty() {
        return Proposed::Applied(Outcome::default());
    }
    let evicted: Vec<_> = draft
        .changes()
        .iter()
        .filter_map(|change| meters::eviction(change.change.as_ref()?))
        .collect();
    let id = stamp.uid().into_bytes();
    let principal = format!("controller/{name}");
    let transaction = draft.build_at(principal, id, stamp.now, context.term);
    match replica.propose(transaction).await {
        Err(NoOutcome::Impossible(error)) => Proposed::Failed(error),
        Err(NoOutcome::NotProposed(error)) => Proposed::Unanswered(error),
        Err(NoOutcome::Unknown(error)) => match catch_up(replica, context).await {
            Ok(()) => Proposed::Unanswered(error),
            Err(Deposed) => Proposed::Deposed,
        },
        Ok(outcome) => match outcome.refusal {
            None => {
                evicted.iter().for_each(|why| context.meters.evicted(why));
                Proposed::Applied(outcome)
            }
            Some(refusal) if refusal.reason() == RefusalReason::WrongTerm => Proposed::Deposed,
            Some(refusal) => Proposed::Refused(refusal),
        },
    }
}

/// Waits until this leader has applied every entry that was proposed before, by whichever leader.
///
/// It proposes an empty transaction until one is applied. Entries are applied in the order of the log, so all before it are applied too, or
/// never will be. A read index would not do: it says what is committed, and an entry whose proposer gave up may be in the log and be committed
/// later.
///
/// # Errors
/// [`Deposed`] when the term is over.
pub async fn catch_up<R: Replica>(replica: &R, context: &Context) -> Result<(), Deposed> {
    let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
        let id = stamp.uid().into_bytes();
        let nothing =
            Draft::new().build_at("controller/leader".to_owned(), id, stamp.now, context.term);
        match replica.propose(nothing).await {
            Ok(outcome) => {
                let refusal = outcome.refusal.map(|refusal| refusal.reason());
                return match refusal {
                    Some(RefusalReason::WrongTerm) => Err(Deposed),
                    _ => Ok(()),
                };
            }
            Err(error) => tracing::debug!(%error, "catch up with what was proposed"),
        }
        tokio::select! {
            () = context.cancel.cancelled() => return Err(Deposed),
            () = sleep(pauses.wait()) => {}
        }
    }
}
