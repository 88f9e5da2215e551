//! The Cluster service: joining ([`admit`]), tokens ([`tokens`]), the members and their wanted roles ([`activate`],
//! [`roles`], [`reconcile`]), their status ([`status`]), the rotation of the CA ([`rotation`]), and the passphrase on the sealing
//! key ([`lock`]).

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
    cluster_server::Cluster,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{
    calls::leader::{LeaderCall, ToLeader},
    error::ApiError,
    net::Dialer,
    observe::logging::Logging,
    security::{
        auth::{Caller, Principal},
        issue::Issuer,
    },
    sessions::Sessions,
    store::Store,
};

pub mod activate;
pub mod admit;
pub mod backup;
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
    /// The identity of this manager.
    pub identity: KeptIdentity,
    /// Signs certificates.
    pub issuer: Issuer,
    /// The agents that are connected here.
    pub sessions: Sessions,
    /// What this manager writes.
    pub logging: Logging,
    /// The managers and agents that have not followed the rotation of the CA.
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

    /// Has a call answered by the leader: by `answer`, in the caller's name, where this manager leads.
    async fn at_leader<Q: LeaderCall, W>(
        &self,
        request: Request<Q>,
        answer: impl Fn(Arc<Parts>, String, Q) -> W,
    ) -> Result<Response<Q::Answer>, Status>
    where
        W: Future<Output = Result<Q::Answer, ApiError>>,
    {
        let caller = Caller::of(&request)?;
        let here = |request| answer(self.0.clone(), caller.name(), request);
        let to_leader = &self.0.to_leader;
        to_leader.call(&caller, request.into_inner(), here).await
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let joining = request.get_ref();
        Caller::of(&request)?.concerns.note(|| {
            format!("{} {}", joining.name, joining.address)
                .trim()
                .to_owned()
        });
        self.at_leader(request, |parts, _, request| async move {
            admit::admit(&parts, &request).await
        })
        .await
    }

    async fn activate(
        &self,
        request: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let Some(Principal {
            role: Role::Manager,
            uid,
        }) = &caller.principal
        else {
            return Err(Status::permission_denied("only a manager activates itself"));
        };
        caller.concerns.note(|| request.get_ref().address.clone());
        self.at_leader(request, |parts, _, request| async move {
            let (address, level) = (&request.address, request.feature_level);
            let done = activate::activate(&parts, uid, address, level).await;
            done.map(|()| ActivateResponse {})
        })
        .await
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
        self.at_leader(request, |parts, by, request| async move {
            schedule::set(&parts, by, &request)
                .await
                .map(|()| SetBackupScheduleResponse {})
        })
        .await
    }

    async fn rotate_ca(
        &self,
        request: Request<RotateCaRequest>,
    ) -> Result<Response<RotateCaResponse>, Status> {
        let caller = Caller::of(&request)?;
        caller.concerns.note(|| "the CA".to_owned());
        self.at_leader(request, |parts, by, request| async move {
            rotation::begin(&parts, by, &request)
                .await
                .map(|()| RotateCaResponse {})
        })
        .await
    }

    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        self.at_leader(request, |parts, by, request| async move {
            lock::lock(&parts, by, request.passphrase)
                .await
                .map(|()| LockResponse {})
        })
        .await
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
        self.at_leader(request, |parts, by, request| async move {
            lock::forget(&parts, by, request.passphrase)
                .await
                .map(|()| ForgetLockResponse {})
        })
        .await
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
        self.at_leader(request, |parts, by, request| async move {
            roles::set(&parts, by, &request).await
        })
        .await
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        let answer = self
            .at_leader(request, |parts, by, request| async move {
                tokens::create(&parts, by, &request).await
            })
            .await?;
        if let Some(info) = &answer.get_ref().info {
            caller.concerns.note(|| format!("token {}", info.id));
        }
        Ok(answer)
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
        self.at_leader(request, |parts, by, request| async move {
            tokens::revoke(&parts, by, &request.id)
                .await
                .map(|()| RevokeTokenResponse {})
        })
        .await
    }
}
