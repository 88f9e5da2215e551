//! The calls that only the leader answers: how another manager forwards each of them, and whether it may send it twice.

use std::future::Future;

use barge_proto::v1::{
    ActivateRequest, ActivateResponse, CreateCredentialRequest, CreateCredentialResponse,
    CreateTokenRequest, CreateTokenResponse, DeleteRequest, DeleteResponse, ForgetLockRequest,
    ForgetLockResponse, JoinRequest, JoinResponse, LockRequest, LockResponse, RequestId,
    RevokeCredentialRequest, RevokeCredentialResponse, RevokeTokenRequest, RevokeTokenResponse,
    RolloutRequest, RolloutResponse, RotateCaRequest, RotateCaResponse, RotateTokenKeyRequest,
    RotateTokenKeyResponse, ScaleRequest, ScaleResponse, SetBackupScheduleRequest,
    SetBackupScheduleResponse, SetManagerRoleRequest, SetManagerRoleResponse,
    api_client::ApiClient, cluster_client::ClusterClient, credentials_client::CredentialsClient,
    service_accounts_client::ServiceAccountsClient,
};
use tonic::{Request, Response, Status, transport::Channel};

use super::Repeat;

/// A request that only the leader answers.
pub trait LeaderCall: Clone + Send + Sync + 'static {
    /// The leader's answer.
    type Answer: Send + 'static;

    /// Whether it may be sent again when the answer was lost.
    fn repeat(&self) -> Repeat;

    /// Sends it to the manager at the other end of a channel.
    fn send(
        channel: Channel,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;
}

macro_rules! leader_calls {
    ($($client:ident { $($rpc:ident($request:ty) -> $answer:ty: $repeat:expr;)+ })+) => {
        $($(
            impl LeaderCall for $request {
                type Answer = $answer;

                fn repeat(&self) -> Repeat {
                    let repeat: fn(&Self) -> Repeat = $repeat;
                    repeat(self)
                }

                async fn send(
                    channel: Channel,
                    request: Request<Self>,
                ) -> Result<Response<Self::Answer>, Status> {
                    $client::new(channel).$rpc(request).await
                }
            }
        )+)+
    };
}

leader_calls! {
    ApiClient {
        delete(DeleteRequest) -> DeleteResponse: |it| Repeat::of(it.request_id.as_ref(), it.dry_run);
        scale(ScaleRequest) -> ScaleResponse: |it| Repeat::of(it.request_id.as_ref(), false);
        rollout(RolloutRequest) -> RolloutResponse: |it| Repeat::of(it.request_id.as_ref(), it.dry_run);
    }
    ClusterClient {
        // The same key with the same token gets the same identity.
        join(JoinRequest) -> JoinResponse: |_| Repeat::Safe;
        activate(ActivateRequest) -> ActivateResponse: |_| Repeat::Safe;
        set_manager_role(SetManagerRoleRequest) -> SetManagerRoleResponse: |_| Repeat::Safe;
        set_backup_schedule(SetBackupScheduleRequest) -> SetBackupScheduleResponse: |_| Repeat::Safe;
        // It names the root to be replaced.
        rotate_ca(RotateCaRequest) -> RotateCaResponse: |_| Repeat::Safe;
        lock(LockRequest) -> LockResponse: |_| Repeat::Safe;
        forget_lock(ForgetLockRequest) -> ForgetLockResponse: |_| Repeat::Safe;
        // A token whose answer was lost only expires unused.
        create_token(CreateTokenRequest) -> CreateTokenResponse: |_| Repeat::Safe;
        revoke_token(RevokeTokenRequest) -> RevokeTokenResponse: |_| Repeat::Safe;
    }
    CredentialsClient {
        // The second would find the name taken, and the secret lost.
        create_credential(CreateCredentialRequest) -> CreateCredentialResponse: |_| Repeat::Unsafe;
        revoke_credential(RevokeCredentialRequest) -> RevokeCredentialResponse: |_| Repeat::Unsafe;
    }
    ServiceAccountsClient {
        // It names the key to be replaced.
        rotate_token_key(RotateTokenKeyRequest) -> RotateTokenKeyResponse: |_| Repeat::Safe;
    }
}

impl Repeat {
    /// Of a mutation: with an id, asking twice is the same as asking once; and a dry run changes nothing.
    #[must_use]
    pub fn of(id: Option<&RequestId>, dry_run: bool) -> Self {
        match id.is_some() || dry_run {
            true => Self::Safe,
            false => Self::Unsafe,
        }
    }
}
