//! Messages on their way to one agent: bounded in number and bytes, so that an agent that does not read costs little and delays nobody.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::{ManagerMessage, manager_message::Message as ToAgent};
use futures::{StreamExt, stream::BoxStream};
use prost::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages on their way to an agent.
pub const OUTBOX: usize = 64;
/// Their bytes. A larger message goes alone.
const ROOM: usize = 1 << 20;
/// An agent that does not take a message for this long is cut off. It goes on with its next session from what it has.
const SLOW: Duration = Duration::from_secs(10);

/// What a session's response is made of.
pub type Messages = BoxStream<'static, Result<ManagerMessage, Status>>;

/// The manager's end.
#[derive(Debug, Clone)]
pub struct Outbox {
    messages: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// A message, and its share of the room until it is taken.
type Waiting = (Result<ManagerMessage, Status>, Option<OwnedSemaphorePermit>);

impl Outbox {
    /// An outbox, and what comes out of it.
    #[must_use]
    pub fn new() -> (Self, Messages) {
        let (messages, waiting) = mpsc::channel(OUTBOX);
        let taken = ReceiverStream::new(waiting).map(|(message, _room): Waiting| message);
        let room = Arc::new(Semaphore::new(ROOM));
        (Self { messages, room }, taken.boxed())
    }

    /// Sends a message; waits while too much is on its way. Answers its size in bytes.
    ///
    /// # Errors
    /// CANCELLED when the agent is gone, RESOURCE_EXHAUSTED when it does not take what is on its way.
    pub async fn send(&self, message: ToAgent) -> Result<usize, Status> {
        let message = ManagerMessage {
            message: Some(message),
        };
        let bytes = message.encoded_len();
        let permits = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        let send = async {
            let room = self.room.clone().acquire_many_owned(permits).await;
            let room = room.map_err(|_| gone())?;
            let sent = self.messages.send((Ok(message), Some(room))).await;
            sent.map_err(|_| gone())
        };
        match timeout(SLOW, send).await {
            Ok(sent) => sent.map(|()| bytes),
            Err(_) => Err(Status::resource_exhausted(
                "the agent does not keep up with what it is sent",
            )),
        }
    }

    /// Says why the session ends, as long as there is room: an agent that is gone or too slow notices otherwise.
    pub fn end(&self, why: Status) {
        let _ = self.messages.try_send((Err(why), None));
    }
}

fn gone() -> Status {
    Status::cancelled("the agent is gone")
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::Assignment;
    use futures::FutureExt;

    use super::*;

    fn large() -> ToAgent {
        ToAgent::Assignment(Assignment {
            removed_pod_uids: vec!["x".repeat(400 << 10)],
            ..Assignment::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_does_not_read_has_little_on_its_way_and_is_cut_off() {
        let (outbox, mut messages) = Outbox::new();
        for _ in 0..2 {
            outbox.send(large()).now_or_never().unwrap().unwrap();
        }
        assert!(outbox.send(large()).now_or_never().is_none());
        // One that reads goes on.
        let (sent, taken) = tokio::join!(outbox.send(large()), messages.next());
        assert!(sent.is_ok() && taken.unwrap().is_ok());
        let refused = outbox.send(large()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }
}
