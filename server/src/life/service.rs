//! The Life service: agents send signs, and other managers relay their agents' signs.

use std::time::Duration;

use barge_proto::v1::{
    LifeAnswer, LifeSign, RelayLifeRequest, RelayLifeResponse, RelayedSign, life_server,
};
use futures::{StreamExt, stream::BoxStream};
use tokio::{sync::watch, time::Instant};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    leader::Leader,
    relay::{Relay, Waiting},
};
use crate::{calls::streams::until_stopped, error::NOT_LEADER, security::auth::Machines};

/// The service. Cheap to clone.
#[derive(Clone)]
pub(super) struct LifeService {
    pub machines: Machines,
    pub leader: Leader,
    pub relay: Relay,
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl life_server::Life for LifeService {
    type SignsStream = BoxStream<'static, Result<LifeAnswer, Status>>;

    async fn signs(
        &self,
        request: Request<Streaming<LifeSign>>,
    ) -> Result<Response<Self::SignsStream>, Status> {
        let node_uid = self.machines.agent(&request)?;
        // The newest answer replaces one that was not sent yet.
        let (answers, answered) = watch::channel(LifeAnswer::default());
        tokio::spawn(self.clone().listen(node_uid, request.into_inner(), answers));
        let answers = WatchStream::from_changes(answered).map(Ok);
        Ok(Response::new(until_stopped(answers, &self.stop)))
    }

    async fn relay(
        &self,
        request: Request<RelayLifeRequest>,
    ) -> Result<Response<RelayLifeResponse>, Status> {
        self.machines.manager(&request)?;
        let now = Instant::now();
        let signs = request.into_inner().signs;
        let none = LifeSign::default();
        let signs = signs.iter().map(|relayed: &RelayedSign| {
            let age = Duration::from_millis(relayed.age_ms.into());
            let at = now.checked_sub(age).unwrap_or(now);
            let sign = relayed.sign.as_ref().unwrap_or(&none);
            (relayed.node_uid.as_str(), sign, at)
        });
        let answer = self.leader.hear(signs)?;
        Ok(Response::new(RelayLifeResponse {
            answer: Some(answer),
        }))
    }
}

impl LifeService {
    /// Takes the signs of an agent until its stream ends, or the agent takes no answers any more.
    async fn listen(
        self,
        node_uid: String,
        mut signs: Streaming<LifeSign>,
        answers: watch::Sender<LifeAnswer>,
    ) {
        loop {
            let sign = tokio::select! {
                sign = signs.message() => sign,
                () = answers.closed() => return,
                () = self.stop.cancelled() => return,
            };
            let Ok(Some(sign)) = sign else {
                return;
            };
            // A node that was removed meanwhile.
            if !self.machines.has_node(&node_uid) {
                return;
            }
            self.take(&node_uid, sign, &answers);
        }
    }

    fn take(&self, node_uid: &str, sign: LifeSign, answers: &watch::Sender<LifeAnswer>) {
        let waiting = Waiting::new(sign, answers.clone());
        match self
            .leader
            .hear([(node_uid, waiting.sign(), waiting.at())].into_iter())
        {
            Ok(answer) => waiting.answer(&answer),
            Err(error) if error.reason().0 == NOT_LEADER => self.relay.hand(node_uid, waiting),
            Err(error) => tracing::debug!(%error, node_uid, "a life sign is not answered"),
        }
    }
}
