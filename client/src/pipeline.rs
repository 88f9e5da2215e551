//! Many applies over one stream to one manager. Requests that wait to be sent go in one message, and so do the answers. For programs that
//! write a lot: a call for each request costs both sides several times as much.

use std::{collections::HashMap, mem};

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming, metadata::MetadataMap};

use crate::{
    channel::{ApiChannel, MESSAGE_BYTES},
    v1::{
        ApplyRequest, ApplyResponse, ApplyStreamAnswer, ApplyStreamItem, ApplyStreamRequest,
        ApplyStreamResponse, api_client::ApiClient, apply_stream_answer::Answer,
    },
};

/// Requests that may wait to be sent; a caller with a further request waits for a place.
const QUEUE: usize = 1024;
/// Requests that may wait for their answers, which is as many as a manager takes from one stream.
const WAITING: usize = 1024;
/// A message that has as many bytes takes no further request.
const MESSAGE: usize = 64 << 10;
/// A request that has more bytes is not for a stream, where others would wait for it.
pub const LARGEST: usize = 256 << 10;
/// Messages on their way to the connection.
const OUTBOX: usize = 2;

/// Sends requests over one stream, which is opened with the first of them and again with the first after it broke. Cheap to
/// clone; it ends with the last clone.
#[derive(Debug, Clone)]
pub struct Pipeline {
    queue: mpsc::Sender<Asked>,
}

#[derive(Debug)]
struct Asked {
    request: ApplyRequest,
    answer: oneshot::Sender<Result<Response<ApplyResponse>, Status>>,
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Response<ApplyResponse>, Status>>>;

impl Pipeline {
    /// A pipeline over this channel. Has to be called within a runtime of tokio.
    #[must_use]
    pub fn new(channel: ApiChannel) -> Self {
        let (queue, asked) = mpsc::channel(QUEUE);
        tokio::spawn(run(channel, asked));
        Self { queue }
    }

    /// Sends one request, and waits for its answer. Others that are on their way may be carried out before or after it.
    ///
    /// # Errors
    /// The manager's; UNAVAILABLE with a source when the stream broke, and then it is not known what became of it.
    pub async fn apply(&self, request: ApplyRequest) -> Result<Response<ApplyResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        // Its task lasts as long as this, or as the runtime that it was made in.
        let gone = || Status::unavailable("the runtime of the pipeline has ended");
        let asked = self.queue.send(Asked { request, answer });
        asked.await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn run(channel: ApiChannel, mut queue: mpsc::Receiver<Asked>) {
    while let Some(first) = queue.recv().await {
        let mut stream = Stream::default();
        stream.take(first);
        let end = stream.serve(&channel, &mut queue).await;
        for (_, answer) in stream.waiting.drain() {
            // Whoever does not wait any more needs no answer.
            answer.send(Err(end.clone())).ok();
        }
    }
}

/// One stream, from its opening to its end.
#[derive(Default)]
struct Stream {
    next_id: u64,
    /// What is to be sent with the next message, and how much that is.
    staged: Vec<ApplyStreamItem>,
    staged_bytes: usize,
    waiting: Waiting,
    /// What came with the opening: the first answer carries it.
    opening: MetadataMap,
}

impl Stream {
    fn take(&mut self, asked: Asked) {
        let id = self.next_id;
        self.next_id += 1;
        self.staged_bytes += asked.request.encoded_len();
        self.staged.push(ApplyStreamItem {
            id,
            request: Some(asked.request),
        });
        self.waiting.insert(id, asked.answer);
    }

    /// Runs until the stream breaks, or the last clone of the pipeline is gone and all are answered.
    async fn serve(&mut self, channel: &ApiChannel, queue: &mut mpsc::Receiver<Asked>) -> Status {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        // Sent with the opening.
        if outbox.try_send(self.message()).is_err() {
            return Status::internal("an empty queue that is full");
        }
        let mut client = ApiClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let opened = client.apply_stream(ReceiverStream::new(messages)).await;
        let mut answers = match opened {
            Ok(response) => {
                let (metadata, answers, _) = response.into_parts();
                self.opening = metadata;
                answers
            }
            Err(status) => return status,
        };
        let mut outbox = Some(outbox);
        let mut closed = false;
        loop {
            if closed && self.staged.is_empty() {
                // No sender is left; requests that were sent are still answered.
                outbox = None;
            }
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.answered(answer),
                    Ok(None) => return Status::unavailable("the manager ended the stream"),
                    Err(status) => return status,
                },
                place = reserve(outbox.as_ref()), if !self.staged.is_empty() => match place {
                    Some(place) => place.send(self.message()),
                    // The connection is gone; how, the answers tell.
                    None => return last(&mut answers).await,
                },
                asked = queue.recv(), if self.has_room() && !closed => match asked {
                    Some(asked) => self.take(asked),
                    None => closed = true,
                },
            }
            // What is there already goes with it.
            while self.has_room()
                && let Ok(asked) = queue.try_recv()
            {
                self.take(asked);
            }
        }
    }

    fn has_room(&self) -> bool {
        self.staged_bytes < MESSAGE && self.waiting.len() < WAITING
    }

    fn message(&mut self) -> ApplyStreamRequest {
        self.staged_bytes = 0;
        ApplyStreamRequest {
            items: mem::take(&mut self.staged),
        }
    }

    fn answered(&mut self, message: ApplyStreamResponse) {
        for ApplyStreamAnswer { id, answer } in message.answers {
            let Some(waiting) = self.waiting.remove(&id) else {
                continue;
            };
            let answer = match answer {
                Some(Answer::Response(response)) => Ok(Response::from_parts(
                    mem::take(&mut self.opening),
                    response,
                    Default::default(),
                )),
                Some(Answer::Refused(refused)) => Err(Status::with_details(
                    refused.code.into(),
                    refused.message,
                    refused.details.into(),
                )),
                None => Err(Status::internal("an answer without content")),
            };
            // Whoever does not wait any more needs no answer.
            waiting.send(answer).ok();
        }
    }
}

async fn reserve(
    outbox: Option<&mpsc::Sender<ApplyStreamRequest>>,
) -> Option<mpsc::Permit<'_, ApplyStreamRequest>> {
    outbox?.reserve().await.ok()
}

/// The status at the end of a stream that takes no more.
async fn last(answers: &mut Streaming<ApplyStreamResponse>) -> Status {
    match answers.message().await {
        Err(status) => status,
        Ok(_) => Status::unavailable("the manager ended the stream"),
    }
}
