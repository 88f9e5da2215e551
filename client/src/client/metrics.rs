//! What pods and nodes take.

use super::{Client, attempt::Repeat};
use crate::{
    channel::MESSAGE_BYTES,
    error::ClientError,
    v1::{
        NodeMetricsRequest, NodeMetricsResponse, PodMetricsRequest, PodMetricsResponse,
        metrics_client::MetricsClient,
    },
};

impl Client {
    /// What pods take, as their nodes measured it. Nodes that do not answer are named in the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pod_metrics(
        &self,
        asked: &PodMetricsRequest,
    ) -> Result<PodMetricsResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let asked = asked.clone();
            let mut client = MetricsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
            async move { client.pods(asked).await }
        })
        .await
    }

    /// What nodes take, as they measured it. Those that do not answer are named in the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn node_metrics(
        &self,
        asked: &NodeMetricsRequest,
    ) -> Result<NodeMetricsResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let asked = asked.clone();
            let mut client = MetricsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
            async move { client.nodes(asked).await }
        })
        .await
    }
}
