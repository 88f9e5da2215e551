//! The Credentials service. Certificates are renewed by any manager: what is signed is decided by the certificate that the
//! caller shows; the authorisation layer has checked that its holder still belongs to the cluster. Credentials of people and
//! programs are [`records`] of the state; [`holder`] decides their user and groups.

use std::sync::Arc;

use barge_proto::v1::{
    CreateCredentialRequest, CreateCredentialResponse, CredentialRecord, ListCredentialsRequest,
    ListCredentialsResponse, RenewRequest, RenewResponse, RevokeCredentialRequest,
    RevokeCredentialResponse, credentials_server::Credentials,
};
use tonic::{Request, Response, Status};

use crate::{
    calls::leader::ToLeader,
    error::ApiError,
    pki::{RequestedKey, Subject},
    security::{
        auth::{Caller, Principal},
        issue::Issuer,
    },
    store::Store,
};

pub mod holder;
pub mod records;

/// What the service works with.
pub struct Parts {
    /// The state.
    pub store: Store,
    /// The way to the leader.
    pub to_leader: ToLeader,
    /// Signs certificates.
    pub issuer: Issuer,
    /// The cluster's id.
    pub cluster_id: String,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct CredentialsService(Arc<Parts>);

impl CredentialsService {
    /// Puts the service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

#[tonic::async_trait]
impl Credentials for CredentialsService {
    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (Some(Principal { role, uid }), Some(_)) = (caller.principal, &caller.peer.subject)
        else {
            return Err(Status::unauthenticated(
                "a certificate is renewed with a certificate",
            ));
        };
        // A certificate of a root that was replaced meanwhile would soon be of no use.
        self.0.store.read_index().await.map_err(ApiError::from)?;
        let left = self.0.store.read(|state| {
            state
                .by_uid::<CredentialRecord>(&uid)
                .and_then(|credential| records::left(credential))
        });
        let key = RequestedKey::from_csr(&request.get_ref().csr).map_err(ApiError::from)?;
        let subject = Subject {
            cluster_id: self.0.cluster_id.clone(),
            role,
            uid,
            raft_id: None,
        };
        let renewed = self.0.issuer.issue(&subject, &key, left)?;
        tracing::info!(role = ?role, uid = subject.uid, "renewed a certificate");
        Ok(Response::new(renewed))
    }

    async fn create_credential(
        &self,
        request: Request<CreateCredentialRequest>,
    ) -> Result<Response<CreateCredentialResponse>, Status> {
        let caller = Caller::of(&request)?;
        caller
            .concerns
            .note(|| format!("credential {}", request.get_ref().name));
        // Sent on to an older manager, it would become an administrator's.
        self.0
            .store
            .read(|state| holder::check_level(state, request.get_ref()))?;
        let here = |request| {
            let (parts, by, access) = (self.0.clone(), caller.name(), caller.access.clone());
            async move { records::create(&parts, by, &access, &request).await }
        };
        let to_leader = &self.0.to_leader;
        to_leader.call(&caller, request.into_inner(), here).await
    }

    async fn list_credentials(
        &self,
        _: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        self.0.store.read_index().await.map_err(ApiError::from)?;
        Ok(Response::new(ListCredentialsResponse {
            credentials: records::list(&self.0.store),
        }))
    }

    async fn revoke_credential(
        &self,
        request: Request<RevokeCredentialRequest>,
    ) -> Result<Response<RevokeCredentialResponse>, Status> {
        let caller = Caller::of(&request)?;
        caller
            .concerns
            .note(|| format!("credential {}", request.get_ref().name));
        let here = |request: RevokeCredentialRequest| {
            let (parts, by) = (self.0.clone(), caller.name());
            async move {
                let done = records::revoke(&parts, by, &request.name).await;
                done.map(|()| RevokeCredentialResponse {})
            }
        };
        let to_leader = &self.0.to_leader;
        to_leader.call(&caller, request.into_inner(), here).await
    }
}
