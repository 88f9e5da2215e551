//! Names: container ids that follow from the pod, labels by which everything is found again.

use sha2::{Digest, Sha256};

use super::RuntimeError;

/// containerd's bound on identifiers.
const LONGEST_ID: usize = 76;

/// Labels on containers, so that whoever comes after finds them.
pub mod label {
    /// Uid of the pod; every container of ours has it.
    pub const POD_UID: &str = "barge.io/pod-uid";
    /// Namespace of the pod.
    pub const POD_NAMESPACE: &str = "barge.io/pod-namespace";
    /// Name of the pod.
    pub const POD_NAME: &str = "barge.io/pod-name";
    /// Name in the pod.
    pub const CONTAINER: &str = "barge.io/container";
    /// Which restart.
    pub const ATTEMPT: &str = "barge.io/attempt";
    /// Name and digest of the image.
    pub const IMAGE_ID: &str = "barge.io/image-id";
    /// The signal that asks it to stop, as the pod or the image has it.
    pub const STOP_SIGNAL: &str = "barge.io/stop-signal";
}

/// The id of a container: the same for the same pod, name and attempt, whoever computes it.
pub fn container_id(pod_uid: &str, container: &str, attempt: u32) -> String {
    let plain = format!("{pod_uid}-{container}-{attempt}");
    // containerd takes neither long ids nor two separators in a row, DNS labels may have both.
    if plain.len() <= LONGEST_ID && !plain.contains("--") {
        return plain;
    }
    let digest = Sha256::digest(container.as_bytes());
    let short: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("{pod_uid}-{short}-{attempt}")
}

/// Refuses uids that are no file names or would make ids that containerd refuses.
pub fn check_uid(pod_uid: &str) -> Result<(), RuntimeError> {
    let separated = pod_uid
        .split('-')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if separated && pod_uid.len() <= 40 {
        return Ok(());
    }
    Err(RuntimeError {
        reason: "InvalidPod",
        message: format!(
            "the pod's uid \"{pod_uid}\" is not made of letters, digits and single dashes, at most 40"
        ),
        retryable: false,
    })
}

/// Refuses names that are not DNS labels: they become file names.
pub fn check_container(name: &str) -> Result<(), RuntimeError> {
    let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.is_empty() && name.len() <= 63 && name.bytes().all(byte) {
        return Ok(());
    }
    Err(RuntimeError {
        reason: "InvalidPod",
        message: format!("the container's name \"{name}\" is not a DNS label"),
        retryable: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_readable_where_they_can_be() {
        let uid = "3f0e4d5c-9a1b-4c7d-8e2f-001122334455";
        assert_eq!(container_id(uid, "nginx", 2), format!("{uid}-nginx-2"));
    }

    #[test]
    fn uids_are_file_names() {
        for bad in ["", "..", "a/b", "a--b", "-a", "a b"] {
            assert!(check_uid(bad).is_err(), "{bad}");
        }
        assert!(check_uid("3f0e4d5c-9a1b-4c7d-8e2f-001122334455").is_ok());
        assert!(check_container("../x").is_err());
    }

    proptest! {
        #[test]
        fn ids_satisfy_containerd(name in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", attempt: u32) {
            let id = container_id("3f0e4d5c-9a1b-4c7d-8e2f-001122334455", &name, attempt);
            prop_assert!(id.len() <= LONGEST_ID);
            prop_assert!(id.split('-').all(|part| !part.is_empty()));
        }
    }
}
