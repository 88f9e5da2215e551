//! An agent's chunks, as clients get what is in them.

use std::time::Duration;

use barge_proto::v1::TunnelChunk;
use futures::{StreamExt, stream::BoxStream};
use tonic::{Status, Streaming};

use crate::error::ApiError;

/// Before a client asks an agent again that had no place for its stream.
const AGAIN: Duration = Duration::from_secs(1);

/// What a client gets of an agent's chunks.
pub trait Answer: Sized + Send + 'static {
    /// What a chunk says, if it says anything to the client.
    fn of(chunk: TunnelChunk) -> Option<Self>;
    /// Whether nothing follows this one.
    fn is_last(&self) -> bool {
        false
    }
    /// Whether the stream is whole once this one has come.
    fn is_end(&self) -> bool {
        self.is_last()
    }
    /// Whether the stream is whole only then: an agent that goes looks like one that has said all.
    const HAS_END: bool = false;
}

/// The agent's chunks as the client gets them. One at a time: a client that does not read holds back the agent.
pub fn answers<A: Answer>(chunks: Streaming<TunnelChunk>) -> BoxStream<'static, Result<A, Status>> {
    futures::stream::unfold(Some((chunks, !A::HAS_END)), |open| async move {
        let (mut chunks, is_whole) = open?;
        loop {
            let chunk = match chunks.message().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if is_whole => return None,
                Ok(None) | Err(_) => {
                    let broken = Status::unavailable("the connection to the agent broke");
                    return Some((Err(broken), None));
                }
            };
            if !chunk.error.is_empty() {
                return Some((Err(failure(chunk).into()), None));
            }
            if let Some(answer) = A::of(chunk) {
                let is_whole = is_whole || answer.is_end();
                let rest = (!answer.is_last()).then_some((chunks, is_whole));
                return Some((Ok(answer), rest));
            }
        }
    })
    .boxed()
}

/// Why the agent ended a stream: its sentence, and exit codes for what was not begun.
fn failure(chunk: TunnelChunk) -> ApiError {
    match chunk.exit_code {
        Some(127) => ApiError::ProgramNotFound(chunk.error),
        Some(126) => ApiError::ProgramNotExecutable(chunk.error),
        // Of sysexits: the agent has no place for the stream.
        Some(75) => ApiError::Overloaded {
            what: chunk.error,
            retry_after: AGAIN,
        },
        _ => ApiError::Precondition(chunk.error),
    }
}
