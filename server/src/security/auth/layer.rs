//! The layer that every request passes before it reaches a service: no rule, no entry.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use barge_client::{error::node_deleted, identity::role_word};
use barge_proto::{auth::Rule, v1::Role};
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{
    Access, Caller, Directory, PRINCIPAL_METADATA, Principal, directory::manager_was_removed,
};
use crate::{
    error::{ApiError, REVISION_REQUIRED, reason_of},
    net::{
        Peer, Rules,
        rules::{ANYONE, roles_in_words},
    },
    observe::spans,
    pki::Subject,
    security::{
        audit::{Asker, AuditLog, Concerns, Entry},
        rbac::Asked,
    },
};

/// Authorises requests by the rules and the directory. Cheap to clone.
#[derive(Clone)]
pub struct AuthLayer {
    rules: Arc<Rules>,
    cluster_id: Arc<str>,
    pub(super) directory: Arc<dyn Directory>,
    audit: AuditLog,
}

impl std::fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthLayer").finish_non_exhaustive()
    }
}

impl AuthLayer {
    /// A layer for the manager of one cluster.
    #[must_use]
    pub fn new(
        rules: Rules,
        cluster_id: &str,
        directory: Arc<dyn Directory>,
        audit: AuditLog,
    ) -> Self {
        Self {
            rules: Arc::new(rules),
            cluster_id: cluster_id.into(),
            directory,
            audit,
        }
    }

    /// What the caller of a stream may do by now.
    ///
    /// # Errors
    /// As [`Self::authorise`].
    pub async fn access_now(&self, caller: &Caller) -> Result<Access, Status> {
        caller.check_time()?;
        match &caller.principal {
            Some(principal) => self.check_known(principal).await,
            None => Ok(caller.access.clone()),
        }
    }

    /// Who asks on a stream for what `path` stands for; absent where it is not to be written down.
    pub fn asker(&self, path: &str, caller: &Caller) -> Option<Arc<Asker>> {
        let audited = self.rules.audited(path).filter(|_| !caller.forwarded);
        audited
            .map(|rule| Arc::new(self.named(path, rule, caller.principal.as_ref(), &caller.peer)))
    }

    /// Writes down what came of a mutation that came in on a stream.
    pub fn answered(
        &self,
        asker: Option<&Arc<Asker>>,
        concerns: &Concerns,
        refusal: Option<&Status>,
    ) {
        let concerns = concerns.taken();
        let asked_for_id = refusal.is_some_and(is_part_of_another);
        if let (Some(asker), Some(concerns), false) = (asker, concerns, asked_for_id) {
            self.audit
                .record(|| entry(asker.clone(), concerns, refusal));
        }
    }

    /// Writes down what came of a mutation, at the manager where it came in.
    fn record(&self, asked: &Incoming, caller: Option<&Caller>, answer: Option<&Status>) {
        let Some(rule) = self.rules.audited(&asked.path) else {
            return;
        };
        if caller.map_or(asked.forwarded, |caller| caller.forwarded)
            || answer.is_some_and(is_part_of_another)
        {
            return;
        }
        let concerns = caller.map_or_else(|| Some(Default::default()), |c| c.concerns.taken());
        let Some(concerns) = concerns else {
            return;
        };
        self.audit.record(|| {
            let principal = match (caller, &asked.peer.subject) {
                (Some(caller), _) => caller.principal.clone(),
                // One that was not let in is known by its certificate.
                (None, Some(subject)) => Some(Principal {
                    role: subject.role,
                    uid: subject.uid.clone(),
                }),
                (None, None) => None,
            };
            let asker = self.named(&asked.path, rule, principal.as_ref(), &asked.peer);
            entry(Arc::new(asker), concerns, answer)
        });
    }

    fn named(&self, path: &str, rule: &Rule, principal: Option<&Principal>, peer: &Peer) -> Asker {
        let named = principal.and_then(|p| self.directory.name_of(p));
        let (name, user) = named.map_or((None, None), |it| (Some(it.name), it.user));
        Asker {
            who: principal.map_or_else(|| ANYONE.to_owned(), Principal::to_string),
            name,
            user,
            from: peer.address.to_string(),
            verb: rule.verb.clone(),
            resource: rule.resource.clone(),
            rpc: path.to_owned(),
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
            return self.without_certificate(path, rule, peer, headers).await;
        };
        if *subject.cluster_id != *self.cluster_id {
            return Err(Status::unauthenticated(format!(
                "the certificate is of cluster {}, this is {}",
                subject.cluster_id, self.cluster_id
            )));
        }
        let access = self.check_holder(&subject).await?;
        let (principal, access) = match claimed {
            None => {
                let principal = Principal {
                    role: subject.role,
                    uid: subject.uid.clone(),
                };
                (principal, access)
            }
            Some(_) if subject.role != Role::Manager => return Err(no_forwarding()),
            Some(value) if open && value == ANYONE => {
                return Ok(Caller {
                    principal: None,
                    access: Access::Nothing,
                    forwarded: true,
                    until: None,
                    peer,
                    concerns: Concerns::default(),
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
                // The forwarding manager names the caller. This manager checks that the caller belongs to the cluster.
                let access = self.check_known(&principal).await?;
                (principal, access)
            }
        };
        check_role(rule, &principal)?;
        self.check_bindings(rule, &principal, &access).await?;
        Ok(Caller {
            principal: Some(principal),
            access,
            forwarded: claimed.is_some(),
            until: None,
            peer,
            concerns: Concerns::default(),
        })
    }

    /// Decides on a call over a connection without a certificate: by a bearer token, or for what is open to anyone.
    async fn without_certificate(
        &self,
        path: &str,
        rule: &Rule,
        peer: Peer,
        headers: &HeaderMap,
    ) -> Result<Caller, Status> {
        if headers.contains_key(PRINCIPAL_METADATA) {
            return Err(no_forwarding());
        }
        let (principal, access, until) = match headers.get(AUTHORIZATION) {
            // A joiner has no certificate yet, only its join token.
            _ if rule.needs_no_certificate() => (None, Access::Nothing, None),
            None => {
                return Err(Status::unauthenticated(format!(
                    "{path} needs a certificate of this cluster, or a bearer token"
                )));
            }
            Some(header) => {
                let (principal, access, until) = self.bearer(header).await?;
                check_role(rule, &principal)?;
                self.check_bindings(rule, &principal, &access).await?;
                (Some(principal), access, until)
            }
        };
        Ok(Caller {
            principal,
            access,
            forwarded: false,
            until,
            peer,
            concerns: Concerns::default(),
        })
    }

    /// Whether the holder of the certificate belongs to the cluster.
    async fn check_holder(&self, subject: &Subject) -> Result<Access, Status> {
        match (subject.role, subject.raft_id) {
            (Role::Manager, Some(raft_id)) => {
                if manager_was_removed(&*self.directory, &subject.uid, raft_id) {
                    return Err(revoked(Role::Manager, &subject.uid));
                }
                Ok(Access::Everything)
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

    async fn check_known(&self, principal: &Principal) -> Result<Access, Status> {
        if let Some(access) = self.directory.access(principal) {
            return Ok(access);
        }
        // This manager may be behind: only what is missing everywhere was revoked.
        self.directory.refresh().await?;
        if let Some(access) = self.directory.access(principal) {
            return Ok(access);
        }
        if self.directory.cluster_id().is_none() {
            return Err(ApiError::NoQuorum("this manager has not caught up yet".to_owned()).into());
        }
        if principal.role == Role::Agent && self.directory.node_was_deleted(&principal.uid) {
            let message = format!("node {} was deleted from this cluster", principal.uid);
            return Err(node_deleted(&message));
        }
        Err(revoked(principal.role, &principal.uid))
    }

    /// Whether bindings allow what a rule says, when it says all: what is asked of objects is checked by who answers, and what is
    /// the machines' own by their role alone.
    async fn check_bindings(
        &self,
        rule: &Rule,
        principal: &Principal,
        access: &Access,
    ) -> Result<(), Status> {
        let free = rule.without_binding || rule.needs_no_certificate() || rule.is_by_object();
        if free || access.is_everything() || principal.role != Role::Admin {
            return Ok(());
        }
        let asked = Asked::of_cluster(&rule.verb, &rule.resource);
        if !matches!(rule.verb.as_str(), "get" | "list") {
            // What changes something is decided by what was acknowledged; how things are is also of use without a leader.
            self.directory.refresh().await?;
        }
        match self.directory.may(access, &asked) {
            true => Ok(()),
            false => Err(ApiError::Denied(access.refusal(&asked.to_string())).into()),
        }
    }
}

/// A request as it came in.
struct Incoming {
    path: String,
    forwarded: bool,
    peer: Peer,
}

/// Part of how a client gets its request id: the request follows.
fn is_part_of_another(answer: &Status) -> bool {
    reason_of(answer).as_deref() == Some(REVISION_REQUIRED)
}

fn entry(
    asker: Arc<Asker>,
    (objects, more_objects): (Vec<String>, usize),
    answer: Option<&Status>,
) -> Entry {
    Entry {
        time: SystemTime::now(),
        asker,
        objects,
        more_objects,
        outcome: answer.map_or("OK".into(), |status| code_word(status.code()).into()),
        message: answer
            .map(|status| Entry::shortened(status.message()))
            .unwrap_or_default(),
    }
}

/// "PERMISSION_DENIED"
fn code_word(code: Code) -> String {
    let mut word = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_uppercase());
    }
    word
}

fn check_role(rule: &Rule, principal: &Principal) -> Result<(), Status> {
    match rule.allows(principal.role) {
        true => Ok(()),
        false => Err(Status::permission_denied(format!(
            "{principal} may not {} {}: this is for {}",
            rule.verb,
            rule.resource,
            roles_in_words(rule)
        ))),
    }
}

/// The refusal for an identity that is not known (any more).
pub fn revoked(role: Role, uid: &str) -> Status {
    let message = format!(
        "{} {uid} does not belong to this cluster (any more)",
        role_word(role)
    );
    match role {
        // An agent ends for good on this one, where it would try another manager on others.
        Role::Agent => Status::failed_precondition(message),
        _ => ApiError::Revoked(message).into(),
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
            let asked = Incoming {
                path: request.uri().path().to_owned(),
                forwarded: request.headers().contains_key(PRINCIPAL_METADATA),
                peer: peer.clone(),
            };
            match auth.authorise(&asked.path, peer, request.headers()).await {
                Ok(caller) => {
                    spans::note_caller(caller.principal.as_ref().map(|p| p.role));
                    request.extensions_mut().insert(caller.clone());
                    let response = inner.call(request).await?;
                    // A refusal has no body, so its status stands in front.
                    let answer = Status::from_header_map(response.headers());
                    auth.record(&asked, Some(&caller), answer.as_ref());
                    Ok(response)
                }
                Err(status) => {
                    tracing::debug!(path = asked.path, %status, "refused");
                    auth.record(&asked, None, Some(&status));
                    Ok(status.into_http())
                }
            }
        })
    }
}
