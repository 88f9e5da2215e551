//! The Cluster service: joining ([`admit`]), tokens ([`tokens`]), who the members are and should be ([`activate`],
//! [`roles`], [`reconcile`]), how they are ([`status`]), the CA that they trust ([`rotation`]), and whether they need a passphrase
//! after a start ([`lock`]).

use std::sync::Arc;

use barge_client::identity::KeptIdentity;
use barge_proto::v1::{
    ActivateRequest, ActivateResponse, BackupRequest, CreateTokenRequest, CreateTokenResponse,
    ForgetLockRequest, ForgetLockResponse, GetManagerStatusRequest, GetStatusRequest,
    GetStatusResponse, JoinRequest, JoinResponse, ListMembersRequest, ListMembersResponse,
    ListTokensRequest, ListTokensResponse, LockRequest, LockResponse, ManagerStatus,
    RevokeTokenRequest, RevokeTokenResponse, Role, RotateCaRequest, RotateCaResponse,
    SetBackupScheduleRequest, SetBackupScheduleResponse, SetLogLevelRequest, SetLogLevelResponse,
    SetManagerRoleRequest, SetManagerRoleResponse, UnlockRequest, UnlockResponse,
    cluster_client::ClusterClient, cluster_server::Cluster,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use self::issue::Issuer;
use crate::{
    auth::{Caller, Principal},
    error::ApiError,
    leader::{Repeat, ToLeader},
    logging::Logging,
    net::Dialer,
    sessions::Sessions,
    store::Store,
};

pub mod activate;
pub mod admit;
pub mod backup;
pub mod issue;
pub mod level;
pub mod lock;
pub mod pod_range;
pub mod previous;
pub mod reconcile;
mod record;
pub mod roles;
pub mod rotation;
pub mod schedule;
pub mod status;
pub mod tokens;
pub mod waiting;

/// What the Cluster service works with.
pub struct Parts {
    /// The state.
    pub store: Store,
    /// The way to the leader.
    pub to_leader: ToLeader,
    /// The way to every manager.
    pub dialer: Dialer,
    /// Who this manager is.
    pub identity: KeptIdentity,
    /// Signs certificates.
    pub issuer: Issuer,
    /// The agents that are connected here.
    pub sessions: Sessions,
    /// What this manager writes.
    pub logging: Logging,
    /// Who is missing while the CA is rotated.
    pub missing: rotation::Missing,
    /// One backup at a time.
    pub backups: Arc<Semaphore>,
    /// One passphrase at a time: each costs time and memory.
    pub unlocking: Arc<Semaphore>,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct ClusterService(Arc<Parts>);

impl ClusterService {
    /// Puts the service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    fn parts(&self) -> Arc<Parts> {
        self.0.clone()
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let caller = Caller::of(&request)?;
        let joining = request.get_ref();
        caller.concerns.note(|| {
            format!("{} {}", joining.name, joining.address)
                .trim()
                .to_owned()
        });
        let answer = self
            .0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                // The same key with the same token gets the same identity.
                Repeat::Safe,
                |request| {
                    let parts = self.parts();
                    async move { admit::admit(&parts, &request).await }
                },
                |channel, request| async move { ClusterClient::new(channel).join(request).await },
            )
            .await?;
        Ok(Response::new(answer))
    }

    async fn activate(
        &self,
        request: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let uid = match &caller.principal {
            Some(Principal {
                role: Role::Manager,
                uid,
            }) => uid.clone(),
            _ => return Err(Status::permission_denied("only a manager activates itself")),
        };
        caller.concerns.note(|| request.get_ref().address.clone());
        self.0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                Repeat::Safe,
                |request| {
                    let (parts, uid) = (self.parts(), uid.clone());
                    async move {
                        activate::activate(&parts, &uid, &request.address, request.feature_level)
                            .await
                    }
                },
                |channel, request| async move {
                    ClusterClient::new(channel)
                        .activate(request)
                        .await
                        .map(|done| done.map(|_| ()))
                },
            )
            .await?;
        Ok(Response::new(ActivateResponse {}))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(status::of_cluster(&self.0).await))
    }

    async fn get_manager_status(
        &self,
        _: Request<GetManagerStatusRequest>,
    ) -> Result<Response<ManagerStatus>, Status> {
        Ok(Response::new(status::of_this_manager(&self.0)))
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        // What this manager knows is good enough to find the others.
        let members = status::members(&self.0.store);
        Ok(Response::new(ListMembersResponse {
            warnings: status::warnings_of_members(&members),
            members,
            roots: self
                .0
                .store
                .read(|state| state.cluster().map(|cluster| cluster.roots.clone()))
                .unwrap_or_default(),
        }))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        let caller = Caller::of(&request)?;
        let filter = request.into_inner().filter;
        let before = self
            .0
            .logging
            .set(&filter)
            .map_err(|what| ApiError::invalid("filter", what))?;
        tracing::info!(
            filter,
            before,
            by = caller.name(),
            "logs something else now"
        );
        Ok(Response::new(SetLogLevelResponse { before }))
    }

    async fn set_backup_schedule(
        &self,
        request: Request<SetBackupScheduleRequest>,
    ) -> Result<Response<SetBackupScheduleResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                Repeat::Safe,
                |request| {
                    let (parts, by) = (self.parts(), caller.name());
                    async move { schedule::set(&parts, by, &request).await }
                },
                |channel, request| async move {
                    ClusterClient::new(channel)
                        .set_backup_schedule(request)
                        .await
                        .map(|done| done.map(|_| ()))
                },
            )
            .await?;
        Ok(Response::new(SetBackupScheduleResponse {}))
    }

    async fn rotate_ca(
        &self,
        request: Request<RotateCaRequest>,
    ) -> Result<Response<RotateCaResponse>, Status> {
        let caller = Caller::of(&request)?;
        caller.concerns.note(|| "the CA".to_owned());
        self.0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                // It names the root to be replaced.
                Repeat::Safe,
                |request| {
                    let (parts, by) = (self.parts(), caller.name());
                    async move { rotation::begin(&parts, by, &request).await }
                },
                |channel, request| async move {
                    ClusterClient::new(channel)
                        .rotate_ca(request)
                        .await
                        .map(|done| done.map(|_| ()))
                },
            )
            .await?;
        Ok(Response::new(RotateCaResponse {}))
    }

    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                Repeat::Safe,
                |request| {
                    let (parts, by) = (self.parts(), caller.name());
                    async move { lock::lock(&parts, by, request.passphrase).await }
                },
                |channel, request| async move {
                    let done = ClusterClient::new(channel).lock(request).await;
                    done.map(|done| done.map(|_| ()))
                },
            )
            .await?;
        Ok(Response::new(LockResponse {}))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        lock::unlock(&self.0, request.into_inner().passphrase).await?;
        Ok(Response::new(UnlockResponse {}))
    }

    async fn forget_lock(
        &self,
        request: Request<ForgetLockRequest>,
    ) -> Result<Response<ForgetLockResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                Repeat::Safe,
                |request| {
                    let (parts, by) = (self.parts(), caller.name());
                    async move { lock::forget(&parts, by, request.passphrase).await }
                },
                |channel, request| async move {
                    let done = ClusterClient::new(channel).forget_lock(request).await;
                    done.map(|done| done.map(|_| ()))
                },
            )
            .await?;
        Ok(Response::new(ForgetLockResponse {}))
    }

    type BackupStream = backup::Chunks;

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<backup::Chunks>, Status> {
        let chunks = backup::send(&self.0, request.into_inner().passphrase).await?;
        Ok(Response::new(chunks))
    }

    async fn set_manager_role(
        &self,
        request: Request<SetManagerRoleRequest>,
    ) -> Result<Response<SetManagerRoleResponse>, Status> {
        let caller = Caller::of(&request)?;
        let answer = self
            .0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                Repeat::Safe,
                |request| {
                    let (parts, by) = (self.parts(), caller.name());
                    async move { roles::set(&parts, by, &request).await }
                },
                |channel, request| async move {
                    ClusterClient::new(channel).set_manager_role(request).await
                },
            )
            .await?;
        Ok(Response::new(answer))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        let answer = self
            .0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                // A token that nobody saw is only one that expires unused.
                Repeat::Safe,
                |request| {
                    let (parts, by) = (self.parts(), caller.name());
                    async move { tokens::create(&parts, by, &request).await }
                },
                |channel, request| async move {
                    ClusterClient::new(channel).create_token(request).await
                },
            )
            .await?;
        if let Some(info) = &answer.info {
            caller.concerns.note(|| format!("token {}", info.id));
        }
        Ok(Response::new(answer))
    }

    async fn list_tokens(
        &self,
        _: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        self.0.store.read_index().await.map_err(ApiError::from)?;
        Ok(Response::new(ListTokensResponse {
            tokens: tokens::list(&self.0.store),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        caller
            .concerns
            .note(|| format!("token {}", request.get_ref().id));
        self.0
            .to_leader
            .run(
                &caller,
                request.into_inner(),
                Repeat::Safe,
                |request| {
                    let (parts, by) = (self.parts(), caller.name());
                    async move { tokens::revoke(&parts, by, &request.id).await }
                },
                |channel, request| async move {
                    ClusterClient::new(channel)
                        .revoke_token(request)
                        .await
                        .map(|done| done.map(|_| ()))
                },
            )
            .await?;
        Ok(Response::new(RevokeTokenResponse {}))
    }
}
