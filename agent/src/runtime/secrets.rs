//! What a pod brings to get its images.

use std::sync::Arc;

use super::keyring::Keyring;

/// The pull secrets of a pod, in its order. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullSecrets(pub Arc<Vec<PullSecret>>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// Namespace of the Secret and of the pod.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// Uid of the Secret; empty when this node has not heard of it yet.
    pub uid: String,
    /// Its credentials; `None` when this node has not heard of it yet.
    pub keyring: Option<Keyring>,
}

impl PullSecrets {
    /// Those that this node has not heard of yet. They may exist.
    pub fn unknown(&self) -> impl Iterator<Item = &PullSecret> {
        self.0.iter().filter(|secret| secret.keyring.is_none())
    }
}
