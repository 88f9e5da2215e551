//! Making [`RuntimeError`]s, and containerd's answers into words.

use containerd_client::tonic::{Code, Status};

use super::RuntimeError;

/// Reasons, as people know them from Kubernetes.
pub mod reason {
    /// The image could not be fetched.
    pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
    /// The image's name is not one.
    pub const INVALID_IMAGE_NAME: &str = "InvalidImageName";
    /// The image is not here and must not be fetched.
    pub const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";
    /// The container could not be made.
    pub const CREATE_CONTAINER: &str = "CreateContainerError";
    /// What the container should be cannot be.
    pub const CREATE_CONTAINER_CONFIG: &str = "CreateContainerConfigError";
    /// The container's process could not be started.
    pub const RUN_CONTAINER: &str = "RunContainerError";
    /// What the container should run cannot be run: Kubernetes takes that for the container's end, with exit code 128.
    pub const START_ERROR: &str = "StartError";
    /// The program that is to be run in a container is not there.
    pub const PROGRAM_NOT_FOUND: &str = "ProgramNotFound";
    /// The program that is to be run in a container is none, or may not be run.
    pub const PROGRAM_NOT_EXECUTABLE: &str = "ProgramNotExecutable";
    /// The container could not be stopped or removed.
    pub const KILL_CONTAINER: &str = "KillContainerError";
    /// The pod could not be attached to the network, or made at all.
    pub const CREATE_SANDBOX: &str = "CreatePodSandboxError";
    /// A volume of the pod could not be made, or its files not written.
    pub const FAILED_MOUNT: &str = "FailedMount";
    /// Something of the pod could not be removed.
    pub const KILL_SANDBOX: &str = "KillPodSandboxError";
    /// The node's network is not set up.
    pub const NETWORK_NOT_READY: &str = "NetworkNotReady";
    /// containerd does not answer.
    pub const UNAVAILABLE: &str = "RuntimeUnavailable";
}

impl RuntimeError {
    /// Something that may go better another time.
    pub(crate) fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retryable: true,
        }
    }

    /// Something that stays wrong until somebody changes it.
    pub(crate) fn lasting(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retryable: false,
        }
    }

    /// What containerd answered to an attempt to `verb` ("create the task").
    pub(crate) fn from_status(reason: &'static str, verb: &str, status: &Status) -> Self {
        if is_late(status) {
            let message = format!("cannot {verb}: containerd did not answer in time");
            return Self::passing(reason::UNAVAILABLE, message);
        }
        if is_unreachable(status) {
            return Self::passing(
                reason::UNAVAILABLE,
                format!(
                    "cannot {verb}: containerd does not answer; is it installed and running? ({})",
                    innermost(status)
                ),
            );
        }
        Self::passing(reason, format!("cannot {verb}: {}", status.message()))
    }
}

/// Why a container's process did not start: what it should run is at fault, or anything else. runc and crun have words for it, and no
/// codes.
pub fn start_reason(status: &Status) -> &'static str {
    const WORDS: [&str; 4] = [
        "exec: \"",
        "executable file",
        "exec format error",
        "chdir to cwd",
    ];
    let words = status.message();
    // Without this, the program that is missing is the runtime's own.
    let began = words.contains("unable to start container process") || words.contains("crun: ");
    match began && WORDS.iter().any(|part| words.contains(part)) {
        true => reason::START_ERROR,
        false => reason::RUN_CONTAINER,
    }
}

/// Whether containerd itself was not reached, or went away in between.
pub fn is_unreachable(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled
        )
}

/// Whether a request's time ran out, here or at containerd.
fn is_late(status: &Status) -> bool {
    ["Timeout expired", "context deadline exceeded"]
        .iter()
        .any(|words| status.message().contains(words))
}

/// The cause at the bottom ("No such file or directory").
fn innermost(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Answers `None` when there is no such thing, which for whoever removes it is success.
pub fn unless_missing<T>(result: Result<T, Status>) -> Result<Option<T>, Status> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_that_cannot_run_is_a_start_error() {
        let runc = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ";
        for (words, reason) in [
            (
                format!("{runc}exec: \"nope\": executable file not found in $PATH: unknown"),
                reason::START_ERROR,
            ),
            (
                format!("{runc}exec: \"/x\": permission denied"),
                reason::START_ERROR,
            ),
            (
                format!("{runc}unable to apply cgroup configuration: disk full"),
                reason::RUN_CONTAINER,
            ),
            // The machine lacks the runtime itself.
            (
                "unable to retrieve OCI runtime error: exec: \"runc\": executable file not found in $PATH".to_owned(),
                reason::RUN_CONTAINER,
            ),
        ] {
            assert_eq!(start_reason(&Status::unknown(&words)), reason, "{words}");
        }
    }
}
