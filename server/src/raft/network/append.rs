//! Log entries to a follower: one stream, requests sent without waiting for answers, answers in order.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};

use super::{OPEN, Peer, malformed, rpc_error};
use crate::{
    raft::wire,
    storage::types::{AppendRequest, AppendResult, NetworkError, RpcError},
};

/// How long an answer may take. A follower answers after its disk has synced, which may stall; a follower that is gone is
/// noticed by the connection's own keep-alive.
const ANSWER: Duration = Duration::from_secs(5);

pub async fn run<S>(
    peer: &Peer,
    input: S,
) -> Result<BoxStream<'_, Result<AppendResult, RpcError>>, RpcError>
where
    S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
{
    let to = peer.to;
    // openraft waits between two attempts where it makes the first request of the second one: who connects before asking
    // for that tries again at once, and for ever.
    let mut input = input.peekable();
    if Pin::new(&mut input).peek().await.is_none() {
        return Ok(stream::empty().boxed());
    }
    let mut client = peer.client()?;
    // Answers are only waited for while some are owed: an idle stream is a healthy one.
    let owed = Arc::new(AtomicU64::new(0));
    let requests = input.map({
        let owed = owed.clone();
        move |request| {
            owed.fetch_add(1, Ordering::Relaxed);
            wire::append_to_proto(to, &request)
        }
    });
    let responses = peer.call(OPEN, client.append(requests)).await?;
    let answers = stream::unfold(Some(responses), move |responses| {
        let owed = owed.clone();
        async move {
            let mut responses = responses?;
            let response = loop {
                match tokio::time::timeout(ANSWER, responses.message()).await {
                    Ok(response) => break response,
                    Err(_) if owed.load(Ordering::Relaxed) == 0 => {}
                    Err(_) => {
                        let error = NetworkError::from_string("no answer to an append");
                        return Some((Err(error.into()), None));
                    }
                }
            };
            let answer = match response {
                Ok(Some(response)) => {
                    owed.fetch_sub(1, Ordering::Relaxed);
                    wire::append_result_from_proto(response).map_err(malformed)
                }
                Ok(None) => return None,
                Err(status) => Err(rpc_error(&status)),
            };
            // A refusal or a broken item ends the stream: what follows it means nothing.
            let rest = matches!(answer, Ok(Ok(_))).then_some(responses);
            Some((answer, rest))
        }
    });
    Ok(answers.boxed())
}
