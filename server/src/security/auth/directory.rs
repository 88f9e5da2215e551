//! Whether an identity still belongs to the cluster. Removing its record is its revocation.

use std::sync::Arc;

use barge_proto::v1::{CredentialRecord, ManagerRecord, Node, Role};
use barge_state::Kind;
use futures::future::BoxFuture;

use crate::{
    error::ApiError,
    runtime::clock,
    security::{
        auth::{Access, Principal},
        rbac::{
            Asked,
            identity::{has_account, user},
        },
        tokens::{self, Holder},
    },
    store::Store,
};

/// The identities that the cluster's state knows.
pub trait Directory: Send + Sync + 'static {
    /// The cluster's id; absent while this manager has no state yet.
    fn cluster_id(&self) -> Option<String>;

    /// What an identity may that the state of this manager knows; absent when it knows none.
    fn access(&self, principal: &Principal) -> Option<Access>;

    /// Whether the state of this manager knows the identity.
    fn knows(&self, principal: &Principal) -> bool {
        self.access(principal).is_some()
    }

    /// Whether it is allowed, by the state of this manager.
    fn may(&self, access: &Access, asked: &Asked<'_>) -> bool;

    /// Whose bearer token this is, by the uid in it and the digest of its secret.
    fn bearer(&self, uid: &str, secret_sha256: &[u8]) -> Bearer;

    /// Whose token of a service account this is, by its signature and the state of this manager.
    fn token(&self, token: &str) -> TokenBearer;

    /// The name of a credential or a node, for people.
    fn name_of(&self, principal: &Principal) -> Option<Named>;

    /// The Raft id that the next manager to join will get, as far as this manager's state knows.
    fn next_raft_id(&self) -> u64;

    /// Whether the deletion of the node with this uid is on record in the state of this manager. Uids are never used twice, so the record is right
    /// however far that state is behind.
    fn node_was_deleted(&self, uid: &str) -> bool;

    /// Waits until the state of this manager has everything that was acknowledged before the call.
    fn refresh(&self) -> BoxFuture<'_, Result<(), ApiError>>;
}

/// The name of a party.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// Of the credential or node.
    pub name: String,
    /// The user whose the credential is, when that is another name.
    pub user: Option<String>,
}

/// What the state knows of a bearer token.
#[derive(Debug, Clone)]
pub enum Bearer {
    /// It is valid: its sender, and the sender's rights.
    Holder(Principal, Access),
    /// Its life is over.
    Expired,
    /// There is no such token, or the secret is another one; the answer does not tell which.
    Unknown,
}

/// What a token of a service account says, and what the state knows of that.
#[derive(Debug, Clone)]
pub enum TokenBearer {
    /// It is valid: its sender, the sender's rights, and when it ends, in seconds since the epoch.
    Holder(Principal, Access, i64),
    /// It is none, or its time is over; this says why. No other manager would take it.
    Refused(String),
    /// It is one, and the account or pod that it names is not here (any more), as this says.
    Unknown(String),
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

    fn access(&self, principal: &Principal) -> Option<Access> {
        let uid = principal.uid.as_str();
        if let (Role::Admin, Some(holder)) = (principal.role, Holder::parse(uid)) {
            let account = self.0.read(|state| holder.account(state))?;
            return Some(Access::Bound(Arc::new(account.identity())));
        }
        self.0.read(|state| match principal.role {
            Role::Manager => {
                let manager = state.by_uid::<ManagerRecord>(uid);
                manager.map(|_| Access::Everything)
            }
            Role::Agent => state.by_uid::<Node>(uid).map(|_| Access::Nothing),
            Role::Admin => state
                .by_uid::<CredentialRecord>(uid)
                .filter(|credential| !has_expired(credential) && has_account(state, credential))
                .map(|credential| Access::of(credential)),
            Role::Anyone | Role::Unspecified => None,
        })
    }

    fn may(&self, access: &Access, asked: &Asked<'_>) -> bool {
        self.0.read(|state| access.may(state, asked))
    }

    fn bearer(&self, uid: &str, secret_sha256: &[u8]) -> Bearer {
        self.0.read(|state| {
            let credential = state.by_uid::<CredentialRecord>(uid).filter(|credential| {
                !credential.bearer_sha256.is_empty()
                    && credential.bearer_sha256 == secret_sha256
                    && has_account(state, credential)
            });
            match credential {
                None => Bearer::Unknown,
                Some(credential) if has_expired(credential) => Bearer::Expired,
                Some(credential) => {
                    let principal = Principal {
                        role: credential.role(),
                        uid: uid.to_owned(),
                    };
                    Bearer::Holder(principal, Access::of(credential))
                }
            }
        })
    }

    fn token(&self, token: &str) -> TokenBearer {
        let Some(cluster) = self.0.read(|state| state.cluster().cloned()) else {
            return TokenBearer::Unknown("this manager has not caught up yet".to_owned());
        };
        let audience = [tokens::issuer(cluster.uid())];
        match tokens::check(&cluster, token, &audience, clock::now().seconds) {
            Err(refused) => TokenBearer::Refused(refused.to_string()),
            Ok((claims, _)) => match self.0.read(|state| Holder::check(state, &claims)) {
                Err(gone) => TokenBearer::Unknown(gone),
                Ok(account) => {
                    let principal = Principal {
                        role: Role::Admin,
                        uid: Holder::of(&claims).to_string(),
                    };
                    let access = Access::Bound(Arc::new(account.identity()));
                    TokenBearer::Holder(principal, access, claims.exp)
                }
            },
        }
    }

    fn node_was_deleted(&self, uid: &str) -> bool {
        self.0.read(|state| state.deleted_node(uid).is_some())
    }

    fn name_of(&self, principal: &Principal) -> Option<Named> {
        let uid = principal.uid.as_str();
        if let (Role::Admin, Some(holder)) = (principal.role, Holder::parse(uid)) {
            let account = self.0.read(|state| holder.account(state))?;
            return Some(Named {
                name: account.identity().user,
                user: None,
            });
        }
        self.0.read(|state| match principal.role {
            Role::Agent => state.by_uid::<Node>(uid).map(|node| Named {
                name: node.meta().name.clone(),
                user: None,
            }),
            Role::Admin => state.by_uid::<CredentialRecord>(uid).map(|credential| {
                let identity = credential.identity.as_ref();
                let account = identity.and_then(|i| i.service_account.as_ref());
                Named {
                    name: credential.meta().name.clone(),
                    user: account.map(|_| user(credential)),
                }
            }),
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
