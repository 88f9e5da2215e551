//! The layer that every request passes before it reaches a service: no rule, no entry.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use barge_client::identity::role_word;
use barge_proto::v1::Role;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    Caller, Directory, PRINCIPAL_METADATA, Principal, Rules, directory::manager_was_removed,
    principal::ANYONE, rules::roles_in_words,
};
use crate::{error::ApiError, net::Peer, pki::Subject};

/// Authorises requests by the rules and the directory. Cheap to clone.
#[derive(Clone)]
pub struct AuthLayer {
    rules: Arc<Rules>,
    cluster_id: Arc<str>,
    directory: Arc<dyn Directory>,
}

impl std::fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthLayer").finish_non_exhaustive()
    }
}

impl AuthLayer {
    /// A layer for the manager of one cluster.
    #[must_use]
    pub fn new(rules: Rules, cluster_id: &str, directory: Arc<dyn Directory>) -> Self {
        Self {
            rules: Arc::new(rules),
            cluster_id: cluster_id.into(),
            directory,
        }
    }

    /// Decides on a call of `path` by `peer`.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a path without a rule, UNAUTHENTICATED for nobody or an identity that is not known (any more),
    /// PERMISSION_DENIED for a role that may not, UNAVAILABLE while the identity cannot be looked up.
    pub async fn authorise(
        &self,
        path: &str,
        peer: Peer,
        headers: &HeaderMap,
    ) -> Result<Caller, Status> {
        let Some(rule) = self.rules.get(path) else {
            return Err(Status::unimplemented(format!("there is no RPC {path}")));
        };
        let open = rule.needs_no_certificate();
        let claimed = headers.get(PRINCIPAL_METADATA);
        let Some(subject) = peer.subject.clone() else {
            return match (open, claimed) {
                (_, Some(_)) => Err(no_forwarding()),
                (true, None) => Ok(Caller {
                    principal: None,
                    forwarded: false,
                    peer,
                }),
                (false, None) => Err(Status::unauthenticated(format!(
                    "{path} needs a certificate of this cluster"
                ))),
            };
        };
        if *subject.cluster_id != *self.cluster_id {
            return Err(Status::unauthenticated(format!(
                "the certificate is of cluster {}, this is {}",
                subject.cluster_id, self.cluster_id
            )));
        }
        self.check_holder(&subject).await?;
        let principal = match claimed {
            None => Principal {
                role: subject.role,
                uid: subject.uid.clone(),
            },
            Some(_) if subject.role != Role::Manager => return Err(no_forwarding()),
            Some(value) if open && value == ANYONE => {
                return Ok(Caller {
                    principal: None,
                    forwarded: true,
                    peer,
                });
            }
            Some(value) => {
                let principal = value
                    .to_str()
                    .ok()
                    .and_then(|text| text.parse::<Principal>().ok())
                    .ok_or_else(|| {
                        Status::invalid_argument(format!("malformed {PRINCIPAL_METADATA}"))
                    })?;
                // The forwarder's word is for who called it; whether that one belongs to the cluster is ours to say.
                self.check_known(&principal).await?;
                principal
            }
        };
        if !rule.allows(principal.role) {
            return Err(Status::permission_denied(format!(
                "{principal} may not {} {}: this is for {}",
                rule.verb,
                rule.resource,
                roles_in_words(rule)
            )));
        }
        Ok(Caller {
            principal: Some(principal),
            forwarded: claimed.is_some(),
            peer,
        })
    }

    /// Whether the holder of the certificate belongs to the cluster.
    async fn check_holder(&self, subject: &Subject) -> Result<(), Status> {
        match (subject.role, subject.raft_id) {
            (Role::Manager, Some(raft_id)) => {
                if manager_was_removed(&*self.directory, &subject.uid, raft_id) {
                    return Err(revoked(Role::Manager, &subject.uid));
                }
                Ok(())
            }
            _ => {
                self.check_known(&Principal {
                    role: subject.role,
                    uid: subject.uid.clone(),
                })
                .await
            }
        }
    }

    async fn check_known(&self, principal: &Principal) -> Result<(), Status> {
        if self.directory.knows(principal) {
            return Ok(());
        }
        // This manager may be behind: only what is missing everywhere was revoked.
        self.directory.refresh().await?;
        if self.directory.knows(principal) {
            return Ok(());
        }
        if self.directory.cluster_id().is_none() {
            return Err(ApiError::NoQuorum("this manager has not caught up yet".to_owned()).into());
        }
        Err(revoked(principal.role, &principal.uid))
    }
}

fn revoked(role: Role, uid: &str) -> Status {
    let message = format!(
        "{} {uid} does not belong to this cluster (any more)",
        role_word(role)
    );
    match role {
        // An agent ends for good on this one, where it would try another manager on others.
        Role::Agent => Status::failed_precondition(message),
        _ => Status::unauthenticated(message),
    }
}

fn no_forwarding() -> Status {
    Status::permission_denied(format!("only managers may send {PRINCIPAL_METADATA}"))
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authorised<S>;

    fn layer(&self, inner: S) -> Authorised<S> {
        Authorised {
            inner,
            auth: self.clone(),
        }
    }
}

/// A service behind an [`AuthLayer`].
#[derive(Debug, Clone)]
pub struct Authorised<S> {
    inner: S,
    auth: AuthLayer,
}

impl<S> Service<Request<Body>> for Authorised<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let auth = self.auth.clone();
        // The clone has not been polled ready; the one that has is taken.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let Some(peer) = request.extensions().get::<Peer>().cloned() else {
                return Ok(Status::internal("the connection is not known").into_http());
            };
            match auth
                .authorise(request.uri().path(), peer, request.headers())
                .await
            {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(status) => {
                    tracing::debug!(path = request.uri().path(), %status, "refused");
                    Ok(status.into_http())
                }
            }
        })
    }
}
