//! Turns plans into transactions. The leader plans on its state, and plans again when the state changed before the transaction was applied.

use std::time::Duration;

use barge_proto::v1::{Kind, Object, Outcome, RefusalReason, RequestId, RequestRecord};
use barge_state::{Changed, RecordKind, State};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::{
    error::ApiError,
    observe::spans,
    store::{Store, transaction::Draft},
};

/// Each further try means that another write was applied.
const TRIES: usize = 32;
/// The longest pause between two of them. Proposals that come in together are applied together, so those that are made again at
/// once keep meeting the same ones: another writer, and what a controller answers to it.
const PAUSE: Duration = Duration::from_millis(10);

/// What became of a plan.
#[derive(Debug)]
pub enum Committed<A> {
    /// It was applied.
    Applied(A, Outcome),
    /// There was nothing to change.
    Nothing(A),
    /// The request had been answered before.
    Repeated(Outcome),
}

/// The record of a request, by which a repetition is known.
///
/// # Errors
/// What `body_sha256` says; INVALID for an id that is none; REVISION_REQUIRED when it does not say what the client last saw.
pub fn request_record(
    store: &Store,
    id: Option<&RequestId>,
    body_sha256: impl FnOnce() -> Result<Vec<u8>, ApiError>,
) -> Result<Option<RequestRecord>, ApiError> {
    let Some(id) = id else {
        return Ok(None);
    };
    if id.nonce.len() != 16 {
        return Err(ApiError::invalid(
            "request_id.nonce",
            "16 bytes are expected",
        ));
    }
    if id.seen_revision == 0 {
        return Err(ApiError::RevisionRequired {
            revision: store.read(State::revision),
        });
    }
    Ok(Some(RequestRecord {
        nonce: id.nonce.clone(),
        seen_revision: id.seen_revision,
        body_sha256: body_sha256()?,
    }))
}

/// The digest of a request without its id.
#[must_use]
pub fn digest(body: &impl Message) -> Vec<u8> {
    Sha256::digest(body.encode_to_vec()).to_vec()
}

/// Plans by the leader's state, proposes, and plans again when the state changed before the plan was applied.
///
/// # Errors
/// What `plan` says by an up-to-date state; CONFLICT when others are always faster; what the store says.
pub async fn commit<A>(
    store: &Store,
    by: String,
    request: Option<RequestRecord>,
    plan: impl Fn(&Store) -> Result<(Draft, A), ApiError>,
) -> Result<Committed<A>, ApiError> {
    let plan = |store: &Store| {
        let _span = spans::child("plan");
        plan(store)
    };
    let mut conflict = None;
    for tried in 0..TRIES {
        if tried > 1 {
            sleep(PAUSE.mul_f64(rand::random())).await;
        }
        let (draft, answer) = match plan(store) {
            Ok((draft, answer)) if !draft.is_empty() => (draft, answer),
            // Nothing will be proposed that would find out whether this state is the latest.
            _ => {
                Box::pin(store.read_index()).await?;
                if let Some(outcome) = answered(store, &by, request.as_ref())? {
                    return Ok(Committed::Repeated(outcome));
                }
                match plan(store)? {
                    (draft, answer) if draft.is_empty() => return Ok(Committed::Nothing(answer)),
                    planned => planned,
                }
            }
        };
        let outcome = {
            let _span = spans::child("propose");
            let transaction = draft.build(by.clone(), request.clone());
            store.propose(transaction).await?
        };
        match &outcome.refusal {
            None if outcome.repeated_request => return Ok(Committed::Repeated(outcome)),
            None => return Ok(Committed::Applied(answer, outcome)),
            Some(refusal) => match refusal.reason() {
                // By the state as it is now, the plan is another one, or an error that says why.
                RefusalReason::Exists
                | RefusalReason::NotFound
                | RefusalReason::Conflict
                | RefusalReason::Taken => conflict = Some(refusal.clone()),
                _ => return Err(refusal.clone().into()),
            },
        }
    }
    Err(match conflict {
        Some(refusal) => {
            ApiError::Conflict(format!("{}; it keeps changing, try again", refusal.message))
        }
        None => ApiError::Internal("a plan that was never tried".to_owned()),
    })
}

/// Goes all the way but the commit: plans by an up-to-date state, and asks the rules of the state itself.
///
/// # Errors
/// Whatever `commit` would say.
pub async fn rehearse<A>(
    store: &Store,
    by: String,
    plan: impl Fn(&Store) -> Result<(Draft, A), ApiError>,
) -> Result<(A, Vec<Changed>), ApiError> {
    store.read_index().await?;
    let mut tries = 1;
    loop {
        let (draft, answer) = plan(store)?;
        let rehearsed = store.rehearse(draft.build(by.clone(), None)).await?;
        match ApiError::check(rehearsed.outcome) {
            Ok(_) => return Ok((answer, rehearsed.changes)),
            // The state changed between the two looks.
            Err(ApiError::Conflict(_) | ApiError::Exists(_) | ApiError::NotFound(_))
                if tries < TRIES =>
            {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What an object would be after the changes of a rehearsal; `otherwise` when they do not touch it.
pub fn after(store: &Store, changes: &[Changed], otherwise: Object) -> Object {
    let of_it = |change: &&Changed| {
        change.namespace() == otherwise.namespace()
            && match otherwise.kind() {
                // The record has another name.
                Kind::Custom => change.uid() == otherwise.uid(),
                _ => change.name() == otherwise.name(),
            }
            && change
                .kind()
                .is_some_and(|kind| RecordKind::of(otherwise.kind()) == Some(kind))
    };
    let last = changes.iter().rev().find(of_it);
    let after = last.and_then(|change| Some((change.after.as_ref()?, change.template.as_ref())));
    let object =
        after.and_then(|(after, template)| store.read(|state| state.view(after, template)));
    object.unwrap_or(otherwise)
}

/// The earlier answer to this very request.
fn answered(
    store: &Store,
    by: &str,
    request: Option<&RequestRecord>,
) -> Result<Option<Outcome>, ApiError> {
    let Some(request) = request else {
        return Ok(None);
    };
    store
        .read(|state| state.answered(request, by))
        .map_err(ApiError::from)
}
