//! Brings a request to the leader: this manager serves it when it leads, and forwards it to the leader otherwise.

use std::{future::Future, time::Duration};

use barge_proto::v1::Role;
use tokio::time::{Instant, timeout};
use tonic::{ConnectError, Request, Response, Status, metadata::MetadataValue, transport::Channel};

use crate::{
    error::{ApiError, NO_QUORUM, NOT_LEADER, REVOKED, reason_of},
    net::Dialer,
    observe::spans,
    security::auth::{Caller, PRINCIPAL_METADATA},
    store::{Member, Store},
};

mod call;

pub use call::LeaderCall;

/// How long a request waits for a leader.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long the leader may take to answer a request that was sent on; afterwards its outcome is unknown.
const ANSWER: Duration = Duration::from_secs(10);
/// How soon to look again when the leader that was asked says that it is none.
const AGAIN: Duration = Duration::from_millis(20);

/// Finds the leader for requests. Cheap to clone.
#[derive(Clone)]
pub struct ToLeader {
    store: Store,
    dialer: Dialer,
}

/// What may be done with a request whose answer did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Sent again: applying it twice is the same as once.
    Safe,
    /// Only sent again when it certainly was not received.
    Unsafe,
}

impl ToLeader {
    /// Sends requests by this dialer.
    #[must_use]
    pub fn new(store: Store, dialer: Dialer) -> Self {
        Self { store, dialer }
    }

    /// Has a call answered by the leader: `here` answers it where this manager leads.
    ///
    /// # Errors
    /// As [`ToLeader::run`].
    pub async fn call<Q, L, LF>(
        &self,
        caller: &Caller,
        request: Q,
        here: L,
    ) -> Result<Response<Q::Answer>, Status>
    where
        Q: LeaderCall,
        L: Fn(Q) -> LF,
        LF: Future<Output = Result<Q::Answer, ApiError>>,
    {
        let repeat = request.repeat();
        let answer = self.run(caller, request, repeat, here, Q::send).await?;
        Ok(Response::new(answer))
    }

    /// Answers a request at the leader: by `local` where this manager leads, by `remote` where another does. Waits up to
    /// [`PATIENCE`] for a leader; a request that was forwarded is not sent on.
    ///
    /// # Errors
    /// What `local` or the leader says; NO_QUORUM when no leader is found in time; UNKNOWN_OUTCOME when an answer was
    /// lost that must not be asked for twice.
    pub async fn run<Q, R, L, LF, M, MF>(
        &self,
        caller: &Caller,
        request: Q,
        repeat: Repeat,
        local: L,
        remote: M,
    ) -> Result<R, Status>
    where
        Q: Clone,
        L: Fn(Q) -> LF,
        LF: Future<Output = Result<R, ApiError>>,
        M: Fn(Channel, Request<Q>) -> MF,
        MF: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut leadership = self.store.leadership();
        loop {
            let now = leadership.borrow_and_update().clone();
            let failure: Status = if now.is_leader {
                match local(request.clone()).await {
                    Err(error @ ApiError::NotLeader { .. }) => error.into(),
                    Err(error) => return Err(self.explained(error).await.into()),
                    done => return done.map_err(Status::from),
                }
            } else if caller.forwarded {
                let leader = now.leader.map(|(_, address)| address);
                return Err(ApiError::NotLeader { leader }.into());
            } else if let Some((_, address)) = now.leader {
                let channel = self.channel(&address)?;
                let mut sent = on_behalf_of(caller, request.clone())?;
                sent.set_timeout(ANSWER);
                // Apart, so that what is done here is not as large as what is sent: requests by the thousand are moved about.
                let sent = Box::pin(timeout(ANSWER, remote(channel, sent)));
                match sent.await {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    // The refusal concerns this manager, not its caller: another manager serves the caller.
                    Ok(Err(status)) if was_removed(&status) && !is_manager(caller) => {
                        return Err(ApiError::Stopping.into());
                    }
                    Ok(Err(status)) => again(status, repeat)?,
                    Err(_) => {
                        return Err(ApiError::UnknownOutcome(format!(
                            "the leader at {address} did not answer in time"
                        ))
                        .into());
                    }
                }
            } else {
                ApiError::NoQuorum("no manager leads".to_owned()).into()
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let none = match reason_of(&failure).as_deref() {
                    Some(NOT_LEADER) => "no leader was found in time",
                    Some(NO_QUORUM) => "no manager leads",
                    _ => return Err(failure),
                };
                return Err(self
                    .explained(ApiError::NoQuorum(none.to_owned()))
                    .await
                    .into());
            }
            let wait = if leadership.borrow().leader.is_some() {
                AGAIN.min(left)
            } else {
                left
            };
            // An election may have ended before what we know of it changes: look again in any case.
            if let Ok(Err(_)) = timeout(wait, leadership.changed()).await {
                return Err(ApiError::Stopping.into());
            }
        }
    }

    /// Adds to the error of a blocked cluster the voters that do not answer, and the way out.
    async fn explained(&self, error: ApiError) -> ApiError {
        let what = match &error {
            ApiError::NoQuorum(what) | ApiError::UnknownOutcome(what) => what,
            _ => return error,
        };
        let what = match &*self.store.silent_voters().await {
            [] => return error,
            silent => format!("{what}: {}", remedy(silent)),
        };
        match error {
            ApiError::NoQuorum(_) => ApiError::NoQuorum(what),
            _ => ApiError::UnknownOutcome(what),
        }
    }

    fn channel(&self, address: &str) -> Result<Channel, ApiError> {
        self.dialer
            .channel(address)
            .map_err(|error| ApiError::Internal(error.to_string()))
    }
}

/// A request that says for whom it is, and for which call.
///
/// # Errors
/// INTERNAL, never for a caller that passed the authorisation.
pub fn on_behalf_of<Q>(caller: &Caller, message: Q) -> Result<Request<Q>, Status> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(caller.name())
        .map_err(|_| Status::internal("a principal that is no metadata"))?;
    request.metadata_mut().insert(PRINCIPAL_METADATA, value);
    spans::pass_on(request.metadata_mut());
    Ok(request)
}

/// What to do about voters that do not answer.
fn remedy(silent: &[Member]) -> String {
    let names: Vec<_> = silent.iter().map(Member::name).collect();
    let (verb, them, their) = match names.len() {
        1 => ("does", "it", "its data is"),
        _ => ("do", "them", "their data is"),
    };
    format!(
        "{} {verb} not answer. Start {them}, or, if {their} lost, stop a manager that is left and run `barge-server recover` on it",
        names.join(", ")
    )
}

fn was_removed(status: &Status) -> bool {
    reason_of(status).as_deref() == Some(REVOKED)
}

fn is_manager(caller: &Caller) -> bool {
    let principal = caller.principal.as_ref();
    principal.is_some_and(|principal| principal.role == Role::Manager)
}

/// Whether the request may be sent again after this answer.
///
/// # Errors
/// The answer as it goes to the caller when not.
fn again(status: Status, repeat: Repeat) -> Result<Status, Status> {
    if reason_of(&status).as_deref() == Some(NOT_LEADER) {
        return Ok(status);
    }
    // What the leader says has no source; what was said on the way has.
    let Some(source) = std::error::Error::source(&status) else {
        return Err(status);
    };
    let mut cause = Some(source);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return Ok(status);
        }
        cause = error.source();
    }
    match repeat {
        Repeat::Safe => Ok(status),
        Repeat::Unsafe => {
            Err(ApiError::UnknownOutcome("the connection to the leader broke".to_owned()).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_cluster_says_whom_to_start() {
        let silent = |id| Member {
            id,
            address: format!("m{id}:1"),
            ..Member::default()
        };
        let one = remedy(&[silent(2)]);
        assert!(
            one.starts_with("m2:1 (ID 2) does not answer. Start it,"),
            "{one}"
        );
        let two = remedy(&[silent(2), silent(3)]);
        assert!(
            two.starts_with("m2:1 (ID 2), m3:1 (ID 3) do not answer. Start them,"),
            "{two}"
        );
        assert!(two.contains("`barge-server recover`"), "{two}");
    }

    #[test]
    fn a_refusal_of_the_leader_is_final() {
        let refused = Status::invalid_argument("no");
        assert_eq!(
            again(refused, Repeat::Safe).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
    }

    #[test]
    fn another_leader_is_looked_for() {
        let status = Status::from(ApiError::NotLeader { leader: None });
        assert!(again(status, Repeat::Unsafe).is_ok());
    }

    #[test]
    fn a_broken_connection_leaves_the_outcome_open() {
        let broken = || Status::from_error(Box::new(std::io::Error::other("reset")));
        assert!(again(broken(), Repeat::Safe).is_ok());
        let status = again(broken(), Repeat::Unsafe).unwrap_err();
        assert_eq!(reason_of(&status).as_deref(), Some("UNKNOWN_OUTCOME"));
    }

    #[test]
    fn a_connection_that_never_was_harms_nothing() {
        let refused = Status::from_error(Box::new(ConnectError("refused".into())));
        assert!(again(refused, Repeat::Unsafe).is_ok());
    }
}
