//! The caller's own user and rights.

use super::{Client, attempt::Repeat};
use crate::{
    error::ClientError,
    v1::{
        AccessReviewRequest, AccessReviewResponse, ListRulesRequest, PolicyRule, WhoAmIRequest,
        WhoAmIResponse, access_client::AccessClient,
    },
};

impl Client {
    /// The user and groups that the managers see in this client's credential.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn who_am_i(&self) -> Result<WhoAmIResponse, ClientError> {
        self.call(Repeat::Safe, |channel| async move {
            AccessClient::new(channel).who_am_i(WhoAmIRequest {}).await
        })
        .await
    }

    /// Whether this client may do something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn may(
        &self,
        asked: &AccessReviewRequest,
    ) -> Result<AccessReviewResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let asked = asked.clone();
            async move { AccessClient::new(channel).review(asked).await }
        })
        .await
    }

    /// All that this client may do in a namespace; in an empty one, what it may everywhere.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rules(&self, namespace: &str) -> Result<Vec<PolicyRule>, ClientError> {
        let request = ListRulesRequest {
            namespace: namespace.to_owned(),
        };
        let response = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { AccessClient::new(channel).list_rules(request).await }
            })
            .await?;
        Ok(response.rules)
    }
}
