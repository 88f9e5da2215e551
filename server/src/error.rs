//! Errors of requests. This is the one place where errors become gRPC statuses.

use std::{collections::HashMap, time::Duration};

use barge_proto::v1::{Outcome, Refusal, RefusalReason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    pki::PkiError,
    store::{Lagged, MemberError, StoreError},
};

/// The domain of all reasons in error details.
pub const DOMAIN: &str = "barge";

/// The reason in the details of an error that says that another manager leads.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// The reason of [`ApiError::NoQuorum`].
pub const NO_QUORUM: &str = "NO_QUORUM";
/// The reason of [`ApiError::RevisionRequired`].
pub const REVISION_REQUIRED: &str = "REVISION_REQUIRED";

/// The reason in the details of an error that says that the leader did not find the calling manager at its address.
pub const ADVERTISE_UNREACHABLE: &str = "ADVERTISE_UNREACHABLE";

/// The reason in the details of an error that says that the caller was removed from the cluster.
pub const REVOKED: &str = "REVOKED";

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// Fields that break rules.
    #[error("{}", sentence(.0))]
    Invalid(Vec<Violation>),
    /// The object is not there.
    #[error("{0}")]
    NotFound(String),
    /// Something of that name is there.
    #[error("{0}")]
    Exists(String),
    /// It changed meanwhile, or is another incarnation.
    #[error("{0}")]
    Conflict(String),
    /// Fields that other managers set to other values.
    #[error("{}", sentence(.0))]
    FieldConflict(Vec<Violation>),
    /// An answer that is no longer remembered.
    #[error(
        "the request is older than what is remembered: look whether it was applied, then ask anew"
    )]
    RequestExpired,
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    RequestReused,
    /// A request id without the revision that it counts from.
    #[error("a request id needs the revision that the client last saw; it is {revision} now")]
    RevisionRequired {
        /// The revision now.
        revision: u64,
    },
    /// A watch from before the history that is kept.
    #[error("the history does not go back to revision {revision}: list again")]
    Expired {
        /// What was asked for.
        revision: u64,
    },
    /// A list that cannot go on at its revision.
    #[error(
        "the list of revision {revision} cannot be gone on with: begin it again, or go on with what there is now (`continue` in \
         this error's details)"
    )]
    ListExpired {
        /// What the pages before show.
        revision: u64,
        /// Goes on behind them with what there is now.
        resume: String,
    },
    /// A watch that was slower than the history that is kept.
    #[error("{0}")]
    Lagged(String),
    /// Another manager leads.
    #[error("this manager does not lead{}", leader_clause(leader.as_deref()))]
    NotLeader {
        /// Its address, when it is known.
        leader: Option<String>,
    },
    /// No manager leads, or the leader does not reach a quorum; nothing was changed.
    #[error("{0}")]
    NoQuorum(String),
    /// The change may have happened or not.
    #[error("the outcome is unknown: {0}; look whether it was applied before asking again")]
    UnknownOutcome(String),
    /// A token that does not admit.
    #[error("{0}")]
    Token(String),
    /// The caller was removed from the cluster.
    #[error("{0}")]
    Revoked(String),
    /// The caller may not.
    #[error("{0}")]
    Denied(String),
    /// The state does not allow it.
    #[error("{0}")]
    Precondition(String),
    /// The container does not have the program that was to be run in it.
    #[error("{0}")]
    ProgramNotFound(String),
    /// What was to be run in the container is no program, or may not be run.
    #[error("{0}")]
    ProgramNotExecutable(String),
    /// The address that a manager advertises does not lead to it.
    #[error("{0}")]
    AdvertiseUnreachable(String),
    /// There is no such session (any more).
    #[error("{0}")]
    NoSuchSession(String),
    /// A limit is reached; later may work.
    #[error("{0}")]
    Exhausted(String),
    /// So much is going on that this is refused, before anything was done.
    #[error("{what}: try again a little later")]
    Overloaded {
        /// What there is too much of.
        what: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Managers have too little space on their disks.
    #[error(
        "nothing can be written, the disks of managers run full ({0}): free space on them or make them larger, writes are \
         accepted again by themselves then; reads go on"
    )]
    DiskFull(String),
    /// This manager stops.
    #[error("this manager is stopping")]
    Stopping,
    /// Damage or a mistake of ours.
    #[error("{0}")]
    Internal(String),
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path ("spec.replicas"), which may begin with the object's name.
    pub field: String,
    /// One sentence.
    pub description: String,
}

impl ApiError {
    /// One field that breaks a rule.
    #[must_use]
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation {
            field: field.into(),
            description: description.into(),
        }])
    }

    /// The word for programs, and the status code.
    #[must_use]
    pub fn reason(&self) -> (&'static str, Code) {
        match self {
            Self::Invalid(_) => ("INVALID", Code::InvalidArgument),
            Self::NotFound(_) => ("NOT_FOUND", Code::NotFound),
            Self::Exists(_) => ("EXISTS", Code::AlreadyExists),
            Self::Conflict(_) => ("CONFLICT", Code::Aborted),
            Self::FieldConflict(_) => ("FIELD_CONFLICT", Code::Aborted),
            Self::RequestExpired => ("REQUEST_EXPIRED", Code::FailedPrecondition),
            Self::RequestReused => ("REQUEST_REUSED", Code::InvalidArgument),
            Self::RevisionRequired { .. } => (REVISION_REQUIRED, Code::FailedPrecondition),
            Self::Expired { .. } => ("EXPIRED", Code::OutOfRange),
            Self::ListExpired { .. } => ("EXPIRED", Code::OutOfRange),
            Self::Lagged(_) => ("EXPIRED", Code::OutOfRange),
            Self::NotLeader { .. } => (NOT_LEADER, Code::FailedPrecondition),
            Self::NoQuorum(_) => (NO_QUORUM, Code::Unavailable),
            Self::UnknownOutcome(_) => ("UNKNOWN_OUTCOME", Code::Unknown),
            Self::Token(_) => ("TOKEN", Code::Unauthenticated),
            Self::Revoked(_) => (REVOKED, Code::Unauthenticated),
            Self::Denied(_) => ("DENIED", Code::PermissionDenied),
            Self::Precondition(_) => ("PRECONDITION", Code::FailedPrecondition),
            Self::ProgramNotFound(_) => ("PROGRAM_NOT_FOUND", Code::FailedPrecondition),
            Self::ProgramNotExecutable(_) => ("PROGRAM_NOT_EXECUTABLE", Code::FailedPrecondition),
            Self::AdvertiseUnreachable(_) => (ADVERTISE_UNREACHABLE, Code::FailedPrecondition),
            Self::NoSuchSession(_) => ("NO_SUCH_SESSION", Code::NotFound),
            Self::Exhausted(_) => ("EXHAUSTED", Code::ResourceExhausted),
            Self::Overloaded { .. } => ("OVERLOADED", Code::ResourceExhausted),
            Self::DiskFull(_) => ("DISK_FULL", Code::ResourceExhausted),
            Self::Stopping => ("STOPPING", Code::Unavailable),
            Self::Internal(_) => ("INTERNAL", Code::Internal),
        }
    }

    /// Turns an outcome that was refused into an error.
    ///
    /// # Errors
    /// The refusal.
    pub fn check(outcome: Outcome) -> Result<Outcome, Self> {
        match outcome.refusal {
            None => Ok(outcome),
            Some(refusal) => Err(refusal.into()),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.reason();
        let message = refusal.message;
        match reason {
            RefusalReason::Exists => Self::Exists(message),
            RefusalReason::NotFound => Self::NotFound(message),
            RefusalReason::Conflict => Self::Conflict(message),
            RefusalReason::WrongTerm => Self::NotLeader { leader: None },
            RefusalReason::RequestExpired => Self::RequestExpired,
            RefusalReason::RequestReused => Self::RequestReused,
            RefusalReason::Taken => Self::Conflict(message),
            RefusalReason::Token => Self::Token(message),
            RefusalReason::FeatureLevel | RefusalReason::Invalid => Self::Precondition(message),
            RefusalReason::Unspecified => Self::Internal(message),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotLeader { leader } => Self::NotLeader {
                leader: leader.map(|(_, address)| address),
            },
            StoreError::NoQuorum => Self::NoQuorum(
                "the leader does not reach a majority of the voters (`barge cluster status` names them), and nothing was changed"
                    .to_owned(),
            ),
            StoreError::Unknown => Self::UnknownOutcome(
                "the leader lost its majority while the change was under way".to_owned(),
            ),
            StoreError::Full => Self::Overloaded {
                what: "too many changes are under way".to_owned(),
                retry_after: Duration::from_millis(200),
            },
            StoreError::TooLarge { size, max } => Self::invalid(
                "objects",
                format!(
                    "the change has {size} bytes, at most {max} are possible at once: send the objects in several requests, and \
                     move what is large out of them"
                ),
            ),
            StoreError::DiskFull(who) => Self::DiskFull(who.to_string()),
            StoreError::Stopped => Self::Stopping,
        }
    }
}

impl From<MemberError> for ApiError {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::Store(error) => error.into(),
            refused @ (MemberError::LastVoter(_) | MemberError::Refused(_)) => {
                Self::Precondition(refused.to_string())
            }
        }
    }
}

impl From<Lagged> for ApiError {
    fn from(error: Lagged) -> Self {
        Self::Lagged(error.to_string())
    }
}

impl From<PkiError> for ApiError {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::Malformed(what) => Self::invalid("csr", what),
            PkiError::Locked => Self::Precondition(error.to_string()),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let (reason, code) = error.reason();
        let mut metadata = HashMap::new();
        match &error {
            ApiError::RevisionRequired { revision } => {
                metadata.insert("revision".to_owned(), revision.to_string());
            }
            ApiError::NotLeader {
                leader: Some(address),
            } => {
                metadata.insert("leader".to_owned(), address.clone());
            }
            ApiError::ListExpired { resume, .. } => {
                metadata.insert("continue".to_owned(), resume.clone());
            }
            _ => {}
        }
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        if let ApiError::Invalid(violations) | ApiError::FieldConflict(violations) = &error {
            details.set_bad_request(
                violations
                    .iter()
                    .map(|v| FieldViolation::new(v.field.clone(), v.description.clone()))
                    .collect::<Vec<_>>(),
            );
        }
        if let ApiError::Overloaded { retry_after, .. } = &error {
            details.set_retry_info(Some(*retry_after));
        }
        Self::with_error_details(code, error.to_string(), details)
    }
}

/// The reason that one of our statuses carries.
#[must_use]
pub fn reason_of(status: &Status) -> Option<String> {
    let info = status.get_error_details().error_info()?.clone();
    (info.domain == DOMAIN).then_some(info.reason)
}

fn sentence(violations: &[Violation]) -> String {
    let all: Vec<_> = violations
        .iter()
        .map(|v| format!("{}: {}", v.field, v.description))
        .collect();
    all.join("; ")
}

fn leader_clause(leader: Option<&str>) -> String {
    match leader {
        Some(address) => format!("; {address} does"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_survive_the_way_to_the_client() {
        let status = Status::from(ApiError::invalid("spec.replicas", "must not be negative"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason_of(&status).as_deref(), Some("INVALID"));
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "spec.replicas");
        assert_eq!(violations[0].description, "must not be negative");
    }

    #[test]
    fn a_foreign_status_has_no_reason() {
        assert_eq!(reason_of(&Status::unavailable("x")), None);
    }
}
