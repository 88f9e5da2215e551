//! One call, with all its attempts at several managers.

use std::{collections::BTreeMap, error::Error, time::Duration};

use rand::Rng;

use tokio::time::{Instant, sleep, timeout};
use tonic::{ConnectError, Response, Status};

use super::{Client, managers::Manager};
use crate::{
    backoff::Backoff,
    channel::ApiChannel,
    error::{self, Attempt, ClientError},
};

/// What a manager that has too much to do may ask for.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Whether a call may be sent again when it is not known what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing, or carries a request id.
    Safe,
    /// It would be carried out twice.
    Unsafe,
}

/// What to do after an attempt that failed.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Ask another manager; `connected` says whether this one was reached.
    Rotate { connected: bool },
    /// It may have been carried out, and must not be sent again.
    Unknown,
    /// The answer stands.
    Stop,
}

impl Client {
    /// Sends a request until a manager answers it, within the client's deadlines.
    pub(super) async fn call<T, F, Fut>(&self, repeat: Repeat, send: F) -> Result<T, ClientError>
    where
        F: Fn(ApiChannel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempt(repeat, |manager| send(manager.channel))
            .await
            .map_err(Failure::into)
    }

    /// As `call`, with the status of a refusal left whole.
    pub(super) async fn attempt<T, F, Fut>(&self, repeat: Repeat, send: F) -> Result<T, Failure>
    where
        F: Fn(Manager) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let options = &self.shared.options;
        let managers = &self.shared.managers;
        let begun = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut tried = BTreeMap::new();
        let mut reached = false;
        for number in 1_usize.. {
            let manager = managers.current();
            let left = options.deadline.saturating_sub(begun.elapsed());
            let limit = options.attempt_timeout.min(left);
            let status = match timeout(limit, send(manager.clone())).await {
                Ok(Ok(response)) => {
                    if !options.only_given {
                        managers.learn(response.metadata());
                    }
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    Status::deadline_exceeded(format!("no answer within {} ms", limit.as_millis()))
                }
            };
            if let Some(delay) = error::retry_after(&status) {
                // Nobody is helped by all who were refused coming back at the same moment.
                let wait = delay
                    .min(LONGEST_DELAY)
                    .mul_f64(rand::rng().random_range(1.0..=1.5));
                if begun.elapsed() + wait >= options.deadline {
                    return Err(Failure::Status(Box::new(status)));
                }
                tracing::debug!(manager = %manager.address, ?wait, "overloaded");
                sleep(wait).await;
                managers.rotate(&manager);
                continue;
            }
            match next(&status, repeat) {
                Next::Stop => return Err(Failure::Status(Box::new(status))),
                Next::Unknown => {
                    return Err(Failure::Error(ClientError::UnknownOutcome {
                        message: error::cause(&status),
                    }));
                }
                Next::Rotate { connected } => reached |= connected,
            }
            let cause = error::cause(&status);
            tracing::debug!(manager = %manager.address, cause, "try another manager");
            // A last attempt that was cut short says less than the one before it.
            if limit == options.attempt_timeout || !tried.contains_key(&*manager.address) {
                tried.insert(manager.address.to_string(), cause);
            }
            managers.rotate(&manager);
            // One quick round over all managers, then with pauses.
            let wait = match number % managers.len() {
                0 => backoff.wait(),
                _ => Duration::ZERO,
            };
            let patience = match reached {
                true => options.deadline,
                false => options.unreachable_after.min(options.deadline),
            };
            if begun.elapsed() + wait >= patience {
                break;
            }
            sleep(wait).await;
        }
        let tried = tried
            .into_iter()
            .map(|(manager, cause)| Attempt { manager, cause })
            .collect();
        Err(Failure::Error(match reached {
            true => ClientError::Unavailable { tried },
            false => ClientError::Unreachable { tried },
        }))
    }
}

/// Why a call failed, with the whole status where a manager refused.
pub(super) enum Failure {
    Status(Box<Status>),
    Error(ClientError),
}

impl From<Failure> for ClientError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Status(status) => (*status).into(),
            Failure::Error(error) => error,
        }
    }
}

fn next(status: &Status, repeat: Repeat) -> Next {
    if never_connected(status) {
        return Next::Rotate { connected: false };
    }
    let rotate = Next::Rotate { connected: true };
    let reason = error::reason(status).map(|(reason, _)| reason);
    match reason.as_deref() {
        // Said before anything was done.
        Some("NOT_LEADER" | "NO_QUORUM" | "STOPPING") => return rotate,
        Some("UNKNOWN_OUTCOME") => {
            return match repeat {
                Repeat::Safe => rotate,
                Repeat::Unsafe => Next::Unknown,
            };
        }
        Some(_) => return Next::Stop,
        None => {}
    }
    match (error::is_broken(status), repeat) {
        (false, _) => Next::Stop,
        (true, Repeat::Safe) => rotate,
        (true, Repeat::Unsafe) => Next::Unknown,
    }
}

/// Whether the request never left, because no connection came about.
fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn status(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, "barge", HashMap::new());
        Status::with_error_details(code, "m", details)
    }

    #[test]
    fn what_is_repeated_and_what_is_not() {
        let rotate = Next::Rotate { connected: true };
        let quorum = status(Code::Unavailable, "NO_QUORUM");
        assert_eq!(next(&quorum, Repeat::Unsafe), rotate);
        let unknown = status(Code::Unknown, "UNKNOWN_OUTCOME");
        assert_eq!(next(&unknown, Repeat::Safe), rotate);
        assert_eq!(next(&unknown, Repeat::Unsafe), Next::Unknown);
        let bare = Status::unavailable("going away");
        assert_eq!(next(&bare, Repeat::Safe), rotate);
        assert_eq!(next(&bare, Repeat::Unsafe), Next::Unknown);
        for reason in ["NOT_FOUND", "INVALID", "REQUEST_EXPIRED", "TOKEN"] {
            let refusal = status(Code::FailedPrecondition, reason);
            assert_eq!(next(&refusal, Repeat::Safe), Next::Stop, "{reason}");
        }
        let denied = Status::permission_denied("no");
        assert_eq!(next(&denied, Repeat::Safe), Next::Stop);
    }
}
