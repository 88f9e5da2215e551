//! Whether an identity still belongs to the cluster. Removing its record is its revocation.

use barge_proto::v1::{CredentialRecord, ManagerRecord, Node, Role};
use barge_state::Kind;
use futures::future::BoxFuture;

use crate::{auth::Principal, error::ApiError, store::Store};

/// The identities that the cluster's state knows.
pub trait Directory: Send + Sync + 'static {
    /// The cluster's id; absent while this manager has no state yet.
    fn cluster_id(&self) -> Option<String>;

    /// Whether the state of this manager knows the identity.
    fn knows(&self, principal: &Principal) -> bool;

    /// The Raft id that the next manager to join will get, as far as this manager's state knows.
    fn next_raft_id(&self) -> u64;

    /// Waits until the state of this manager has everything that was acknowledged before the call.
    fn refresh(&self) -> BoxFuture<'_, Result<(), ApiError>>;
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
            Role::Admin => state.by_uid::<CredentialRecord>(uid).is_some(),
            Role::Anyone | Role::Unspecified => false,
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
