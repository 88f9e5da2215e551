//! The cluster itself: members, status, tokens.

use super::{Client, attempt::Repeat};
use crate::{
    channel::ApiChannel,
    error::ClientError,
    v1::{
        CreateTokenRequest, CreateTokenResponse, ForgetLockRequest, GetManagerStatusRequest,
        GetStatusRequest, GetStatusResponse, ListMembersRequest, ListMembersResponse,
        ListTokensRequest, LockRequest, ManagerRole, ManagerStatus, RevokeTokenRequest,
        RotateCaRequest, SetBackupScheduleRequest, SetLogLevelRequest, SetManagerRoleRequest,
        SetManagerRoleResponse, TokenInfo, UnlockRequest, cluster_client::ClusterClient,
    },
};

fn cluster(channel: ApiChannel) -> ClusterClient<ApiChannel> {
    ClusterClient::new(channel)
}

impl Client {
    /// How the cluster is: what every manager says of itself, and what is wrong.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<GetStatusResponse, ClientError> {
        self.call(Repeat::Safe, |channel| async move {
            cluster(channel).get_status(GetStatusRequest {}).await
        })
        .await
    }

    /// What the manager that was reached says of itself.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn manager_status(&self) -> Result<ManagerStatus, ClientError> {
        self.call(Repeat::Safe, |channel| async move {
            let request = GetManagerStatusRequest {};
            cluster(channel).get_manager_status(request).await
        })
        .await
    }

    /// The managers, and warnings about the membership (such as an even number of voters).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn members(&self) -> Result<ListMembersResponse, ClientError> {
        self.call(Repeat::Safe, |channel| async move {
            cluster(channel).list_members(ListMembersRequest {}).await
        })
        .await
    }

    /// Says what a manager (its Raft id, uid or address) should be, and waits some seconds for it to be so. Safe to repeat,
    /// until the answer says that it is done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_manager_role(
        &self,
        manager: &str,
        role: ManagerRole,
    ) -> Result<SetManagerRoleResponse, ClientError> {
        let request = SetManagerRoleRequest {
            manager: manager.to_owned(),
            role: role.into(),
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).set_manager_role(request).await }
        })
        .await
    }

    /// Has the CA replaced by a new one; [`Client::status`] shows how far that is. Safe to repeat.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rotate_ca(&self, request: RotateCaRequest) -> Result<(), ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).rotate_ca(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Makes a join token. Not repeated once it was sent: each would be another token.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_token(
        &self,
        request: CreateTokenRequest,
    ) -> Result<CreateTokenResponse, ClientError> {
        self.call(Repeat::Unsafe, |channel| {
            let request = request.clone();
            async move { cluster(channel).create_token(request).await }
        })
        .await
    }

    /// The tokens that may still be used.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, ClientError> {
        let response = self
            .call(Repeat::Safe, |channel| async move {
                cluster(channel).list_tokens(ListTokensRequest {}).await
            })
            .await?;
        Ok(response.tokens)
    }

    /// Sets when and where the leader takes backups; an empty place ends the schedule.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_backup_schedule(
        &self,
        request: SetBackupScheduleRequest,
    ) -> Result<(), ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).set_backup_schedule(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Changes what the manager that is reached logs, and returns what it logged before. Meant for a client of one manager.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_log_level(&self, filter: &str) -> Result<String, ClientError> {
        let request = SetLogLevelRequest {
            filter: filter.to_owned(),
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).set_log_level(request).await }
        })
        .await
        .map(|answer| answer.before)
    }

    /// Makes every manager keep the sealing key under this passphrase, so that it is locked after its next start.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lock(&self, passphrase: &str) -> Result<(), ClientError> {
        let request = LockRequest {
            passphrase: passphrase.to_owned(),
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).lock(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Unlocks the manager that is reached. Meant for a client of one manager.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn unlock(&self, passphrase: &str) -> Result<(), ClientError> {
        let request = UnlockRequest {
            passphrase: passphrase.to_owned(),
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).unlock(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Ends what [`Client::lock`] began.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn forget_lock(&self, passphrase: &str) -> Result<(), ClientError> {
        let request = ForgetLockRequest {
            passphrase: passphrase.to_owned(),
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).forget_lock(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Makes a token useless.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke_token(&self, id: &str) -> Result<(), ClientError> {
        let request = RevokeTokenRequest { id: id.to_owned() };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { cluster(channel).revoke_token(request).await }
        })
        .await
        .map(|_| ())
    }
}
