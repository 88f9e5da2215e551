//! Request ids for changes: the cluster carries a repeated request out once.

use tonic::{Response, Status};

use super::{
    Client,
    attempt::{Failure, Repeat},
    managers::Manager,
};
use crate::{
    channel::ApiChannel,
    error::{self, ClientError},
    v1::RequestId,
};

/// How often a request id may be made anew: once to learn the revision, once more because what was learnt aged.
const IDS: usize = 3;

impl Client {
    /// Sends a change. `send` puts the request id into the request.
    pub(super) async fn change<T, F, Fut>(&self, send: F) -> Result<T, ClientError>
    where
        F: Fn(ApiChannel, RequestId) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.change_at(|manager, id| send(manager.channel, id))
            .await
    }

    /// As `change`, for what is not sent by a call of its own.
    pub(super) async fn change_at<T, F, Fut>(&self, send: F) -> Result<T, ClientError>
    where
        F: Fn(Manager, RequestId) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = None;
        for _ in 0..IDS {
            let id = RequestId {
                nonce: rand::random::<[u8; 16]>().to_vec(),
                seen_revision: self.seen_revision(),
            };
            let sent = std::sync::atomic::AtomicUsize::new(0);
            let result = self
                .attempt(Repeat::Safe, |manager| {
                    sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    send(manager, id.clone())
                })
                .await;
            let status = match result {
                Ok(answer) => return Ok(answer),
                Err(Failure::Error(error)) => return Err(error),
                Err(Failure::Status(status)) => status,
            };
            match error::reason(&status) {
                Some((reason, Some(revision))) if reason == "REVISION_REQUIRED" => {
                    self.saw(revision);
                }
                // The revision was old before the request was sent for the first time: nothing was done. After an
                // earlier attempt it may have been, and its answer forgotten.
                Some((reason, _)) if reason == "REQUEST_EXPIRED" => {
                    if sent.into_inner() > 1 {
                        return Err(ClientError::UnknownOutcome {
                            message: error::cause(&status),
                        });
                    }
                    self.learn_revision().await?;
                }
                _ => return Err((*status).into()),
            }
            last = Some(status);
        }
        Err(last.map_or(ClientError::Answer("a revision"), |status| (*status).into()))
    }
}
