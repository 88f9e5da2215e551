//! Errors of calls from a client to a cluster.

use std::{collections::HashMap, fmt, time::Duration};

pub use tonic::Code;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    channel::{AddressError, inner, root_cause},
    config::ConfigError,
    identity::NotValid,
    tls::{Refused, TlsError},
};

/// The domain of the reasons in error details.
const DOMAIN: &str = "barge";

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No manager could be reached; the request was not carried out.
    #[error("no manager can be reached: {}", attempts(tried))]
    Unreachable {
        /// Each address with what went wrong last.
        tried: Vec<Attempt>,
    },
    /// Managers were reached, but none could serve the request until the deadline: a leader or a quorum is missing.
    #[error("no manager could serve the request in time: {}", attempts(tried))]
    Unavailable {
        /// Each address with what went wrong last.
        tried: Vec<Attempt>,
    },
    /// The change may have been made or not: look before asking again.
    #[error(
        "the outcome is unknown: {message}; look whether the change was made before asking again"
    )]
    UnknownOutcome {
        /// What the last attempt met.
        message: String,
    },
    /// A manager answered with a refusal. Another attempt would be refused, too.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The credential cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The credential's key or certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The credential is not valid by this machine's clock: it has expired, or the clock is wrong.
    #[error("this credential's {0}")]
    NotValid(#[from] NotValid),
    /// A manager's address is not `host:port`.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// What is to be sent is larger than a manager takes.
    #[error(
        "the objects have {size} bytes together, at most {max} are possible in one request: send them in several, as `barge \
         apply` does"
    )]
    TooLarge {
        /// Bytes.
        size: usize,
        /// Bytes that are possible.
        max: usize,
    },
    /// An answer lacks what every answer of its kind has: the manager is of another version, or faulty.
    #[error("the manager's answer lacks {0}")]
    Answer(&'static str),
}

/// An attempt at one manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port`.
    pub manager: String,
    /// What went wrong.
    pub cause: String,
}

/// A refusal by a manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub code: Code,
    /// One word for programs (`NOT_FOUND`, `CONFLICT`, …); empty when the server gave none.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// The fields that break a rule, for `INVALID`.
    pub violations: Vec<Violation>,
    /// For an `EXPIRED` list, goes on with what there is now (see [`crate::Client::list_page`]); empty when it cannot be gone on with.
    pub r#continue: String,
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path ("spec.replicas").
    pub field: String,
    /// The rule, with the value that breaks it.
    pub description: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message.is_empty(), self.violations.first()) {
            (false, _) => f.write_str(&self.message),
            (true, Some(first)) => write!(f, "{}: {}", first.field, first.description),
            (true, None) => write!(f, "{}", self.code.description()),
        }
    }
}

impl ClientError {
    /// The server's word for what went wrong (`NOT_FOUND`, `CONFLICT`, …), if the server said something.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason.as_str()),
            _ => None,
        }
    }

    /// For a list whose pages ran out, where to go on with what there is now.
    pub(crate) fn resume(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) if refusal.reason == "EXPIRED" => {
                Some(refusal.r#continue.as_str()).filter(|token| !token.is_empty())
            }
            _ => None,
        }
    }

    /// Whether the object that was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == Code::NotFound)
    }

    /// Whether the credential was not accepted.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused(refusal)
            if matches!(refusal.code, Code::PermissionDenied | Code::Unauthenticated))
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let reason = details
            .error_info()
            .filter(|info| info.domain == DOMAIN)
            .map(|info| info.reason.clone())
            .unwrap_or_default();
        let token = details
            .error_info()
            .and_then(|info| info.metadata.get("continue").cloned());
        let violations = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|violation| Violation {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect()
        });
        Self::Refused(Box::new(Refusal {
            code: status.code(),
            reason,
            message: cause(&status),
            violations,
            r#continue: token.unwrap_or_default(),
        }))
    }
}

/// The server's sentence, or for a status that was made here what the transport met.
pub(crate) fn cause(status: &Status) -> String {
    use std::error::Error;
    match status.source() {
        Some(source) => root_cause(source),
        None => status.message().to_owned(),
    }
}

/// Whether a stream that ended like this is worth another.
pub(crate) fn may_resume(status: &Status) -> bool {
    use std::error::Error;
    status.source().is_some()
        || matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Internal
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted
        )
}

/// Whether the connection broke in the middle, something between gave up, or the manager is not up to it; for a status without a
/// reason of the server's.
pub(crate) fn is_broken(status: &Status) -> bool {
    use std::error::Error;
    status.source().is_some()
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        )
}

/// The server's word for what went wrong, and a number that came with it (`revision`).
pub(crate) fn reason(status: &Status) -> Option<(String, Option<u64>)> {
    let info = status.get_details_error_info()?;
    let revision = info
        .metadata
        .get("revision")
        .and_then(|revision| revision.parse().ok());
    (info.domain == DOMAIN).then_some((info.reason, revision))
}

/// A manager's word to an agent whose node's deletion is on record. A manager that merely lacks the node does not say it.
const NODE_DELETED: &str = "NODE_DELETED";

/// What a manager says to an agent whose node's deletion is on record.
#[must_use]
pub fn node_deleted(message: &str) -> Status {
    let details = ErrorDetails::with_error_info(NODE_DELETED, DOMAIN, HashMap::new());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// Whether a manager says by this that the deletion of the caller's node is on record.
#[must_use]
pub fn is_node_deleted(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && reason(status).is_some_and(|(reason, _)| reason == NODE_DELETED)
}

/// When a manager that has too much to do wants to be asked again; it has done nothing then.
pub(crate) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Whether the handshake failed because of whom the other side is.
pub(crate) fn is_refused_certificate(status: &Status) -> bool {
    use std::error::Error;
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return refused.is_final();
        }
        source = inner(error);
    }
    false
}

fn attempts(tried: &[Attempt]) -> String {
    let tried: Vec<_> = tried
        .iter()
        .map(|attempt| format!("{}: {}", attempt.manager, attempt.cause))
        .collect();
    tried.join("; ")
}
