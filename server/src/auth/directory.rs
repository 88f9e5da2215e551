//! Whether an identity still belongs to the cluster. Removing its record is its revocation.

use barge_proto::v1::{CredentialRecord, ManagerRecord, Node, Role};
use barge_state::Kind;
use futures::future::BoxFuture;

use crate::{auth::Principal, clock, error::ApiError, store::Store};

/// The identities that the cluster's state knows.
pub trait Directory: Send + Sync + 'static {
    /// The cluster's id; absent while this manager has no state yet.
    fn cluster_id(&self) -> Option<String>;

    /// Whether the state of this manager knows the identity.
    fn knows(&self, principal: &Principal) -> bool;

    /// Whose bearer token this is, by the uid in it and the digest of its secret.
    fn bearer(&self, uid: &str, secret_sha256: &[u8]) -> Bearer;

    /// The name of a credential or a node, for people.
    fn name_of(&self, principal: &Principal) -> Option<String>;

    /// The Raft id that the next manager to join will get, as far as this manager's state knows.
    fn next_raft_id(&self) -> u64;

    /// Waits until the state of this manager has everything that was acknowledged before the call.
    fn refresh(&self) -> BoxFuture<'_, Result<(), ApiError>>;
}

/// What the state knows of a bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// It is valid, and this is who sent it.
    Holder(Principal),
    /// Its life is over.
    Expired,
    /// There is no such token, or the secret is another one; which of them is nobody's business.
    Unknown,
}

/// Whether a credential's life is over by this machine's clock.
fn has_expired(credential: &CredentialRecord) -> bool {
    let now = clock::now().seconds;
    credential
        .expires
        .is_some_and(|expires| expires.seconds <= now)
}

/// Whether a manager was removed, as far as can be known without asking others. A manager whose state is behind must
/// accept a leader that joined after its last entry, or it would never catch up; Raft ids only grow, so an unknown
/// manager with an id that was given out before is one that was removed.
pub fn manager_was_removed(directory: &dyn Directory, uid: &str, raft_id: u64) -> bool {
    let principal = Principal {
        role: Role::Manager,
        uid: uid.to_owned(),
    };
    raft_id < directory.next_raft_id() && !directory.knows(&principal)
}

/// The directory that is the replicated state.
#[derive(Clone)]
pub struct StateDirectory(pub Store);

impl Directory for StateDirectory {
    fn cluster_id(&self) -> Option<String> {
        self.0
            .read(|state| state.cluster().map(|cluster| cluster.uid().to_owned()))
    }

    fn knows(&self, principal: &Principal) -> bool {
        let uid = principal.uid.as_str();
        self.0.read(|state| match principal.role {
            Role::Manager => state.by_uid::<ManagerRecord>(uid).is_some(),
            Role::Agent => state.by_uid::<Node>(uid).is_some(),
            Role::Admin => state
                .by_uid::<CredentialRecord>(uid)
                .is_some_and(|credential| !has_expired(credential)),
            Role::Anyone | Role::Unspecified => false,
        })
    }

    fn bearer(&self, uid: &str, secret_sha256: &[u8]) -> Bearer {
        self.0.read(|state| {
            let credential = state.by_uid::<CredentialRecord>(uid).filter(|credential| {
                !credential.bearer_sha256.is_empty() && credential.bearer_sha256 == secret_sha256
            });
            match credential {
                None => Bearer::Unknown,
                Some(credential) if has_expired(credential) => Bearer::Expired,
                Some(credential) => Bearer::Holder(Principal {
                    role: credential.role(),
                    uid: uid.to_owned(),
                }),
            }
        })
    }

    fn name_of(&self, principal: &Principal) -> Option<String> {
        let uid = principal.uid.as_str();
        self.0.read(|state| match principal.role {
            Role::Agent => state
                .by_uid::<Node>(uid)
                .map(|node| node.meta().name.clone()),
            Role::Admin => state
                .by_uid::<CredentialRecord>(uid)
                .map(|credential| credential.meta().name.clone()),
            _ => None,
        })
    }

    fn next_raft_id(&self) -> u64 {
        self.0.read(|state| {
            state
                .cluster()
                .map(|cluster| cluster.next_raft_id)
                .unwrap_or_default()
        })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        Box::pin(async { self.0.read_index().await.map_err(ApiError::from) })
    }
}
