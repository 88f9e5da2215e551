//! Tokens of service accounts, and the keys that sign them.

use super::{Client, attempt::Repeat};
use crate::{
    error::ClientError,
    v1::{
        GetTokenKeysRequest, GetTokenKeysResponse, RequestTokenRequest, RequestTokenResponse,
        ReviewTokenRequest, ReviewTokenResponse, RotateTokenKeyRequest,
        service_accounts_client::ServiceAccountsClient,
    },
};

impl Client {
    /// Makes a token of a service account. One whose answer was lost ends unused.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request_token(
        &self,
        wanted: &RequestTokenRequest,
    ) -> Result<RequestTokenResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let wanted = wanted.clone();
            async move {
                ServiceAccountsClient::new(channel)
                    .request_token(wanted)
                    .await
            }
        })
        .await
    }

    /// Whose a token is, and whether it is good.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn review_token(
        &self,
        asked: &ReviewTokenRequest,
    ) -> Result<ReviewTokenResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let asked = asked.clone();
            async move {
                ServiceAccountsClient::new(channel)
                    .review_token(asked)
                    .await
            }
        })
        .await
    }

    /// What others need to check tokens by themselves.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn token_keys(&self) -> Result<GetTokenKeysResponse, ClientError> {
        self.call(Repeat::Safe, |channel| async move {
            ServiceAccountsClient::new(channel)
                .get_token_keys(GetTokenKeysRequest {})
                .await
        })
        .await
    }

    /// Replaces the key of this id by a new one, and tells the id of the newest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rotate_token_key(&self, replaces: &str) -> Result<String, ClientError> {
        let request = RotateTokenKeyRequest {
            replaces: replaces.to_owned(),
        };
        let response = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move {
                    ServiceAccountsClient::new(channel)
                        .rotate_token_key(request)
                        .await
                }
            })
            .await?;
        Ok(response.id)
    }
}
