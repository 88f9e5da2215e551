//! A conversation between a client and what runs in a pod.
//!
//! Each direction has one piece on its way and waits for the other side; neither waits for the other direction. The conversation ends when the far side has said its
//! last word, the client goes, its right ends, or this manager stops. Then the far side hears that the client is gone.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::TunnelChunk;
use futures::{StreamExt, stream::BoxStream};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::words::Input;
use crate::{calls::shares::Share, error::ApiError, runtime::clock::PATIENCE};

/// How long a conversation goes on at most after the client's right to it has ended.
const RECHECK: Duration = Duration::from_secs(5);

/// The far side.
pub struct Far<I: Input> {
    pub to: To<I>,
    pub from: BoxStream<'static, Result<I::Answer, Status>>,
}

/// Where to the client's words go. Dropped, it tells the far side that the client is gone.
pub enum To<I> {
    /// The agent.
    Agent(mpsc::Sender<Result<TunnelChunk, Status>>),
    /// The manager that the agent is connected to.
    Manager(mpsc::Sender<I>),
}

impl<I: Input> To<I> {
    /// Answers whether the far side is still there.
    async fn say(&self, word: I) -> Result<bool, ApiError> {
        Ok(match self {
            Self::Agent(to) => to.send(Ok(word.chunk()?)).await.is_ok(),
            Self::Manager(to) => to.send(word).await.is_ok(),
        })
    }
}

/// The client's side.
pub struct Talk<I: Input, S> {
    pub input: Streaming<I>,
    pub client: mpsc::Sender<Result<I::Answer, Status>>,
    /// What has been received is given back as it is passed on.
    pub share: Option<Arc<Share>>,
    /// Whether the right depends on bindings, and is looked at for each word.
    pub each: bool,
    /// Whether the client still has its right.
    pub still: S,
    pub stop: CancellationToken,
}

impl<I: Input, S: Fn() -> Result<(), Status> + Send + Sync> Talk<I, S> {
    /// Until the end.
    pub async fn run(mut self, far: Far<I>) {
        let client = self.client.clone();
        let end = {
            let Far { to, from } = far;
            let (each, still) = (self.each, &self.still);
            let check = move || if each { still() } else { Ok(()) };
            tokio::select! {
                end = hear(from, &self.client, check) => end,
                end = say(&mut self.input, to, self.share.as_deref(), check) => end,
                refused = until_refused(still) => Some(refused),
                () = self.stop.cancelled() => Some(ApiError::Stopping.into()),
                () = client.closed() => None,
            }
        };
        if let Some(status) = end {
            // A client that does not read by then does not hear why.
            let _ = timeout(PATIENCE, self.client.send(Err(status))).await;
        }
    }
}

/// From the far side to the client. Answers why the conversation ends, if that is still to be told.
async fn hear<A>(
    mut from: BoxStream<'static, Result<A, Status>>,
    client: &mpsc::Sender<Result<A, Status>>,
    check: impl Fn() -> Result<(), Status>,
) -> Option<Status> {
    while let Some(word) = from.next().await {
        if let Err(refused) = check() {
            return Some(refused);
        }
        match word {
            Ok(word) => client.send(Ok(word)).await.ok()?,
            Err(status) => return Some(status),
        }
    }
    None
}

/// From the client to the far side. Answers why the conversation ends, if that is still to be told.
async fn say<I: Input>(
    input: &mut Streaming<I>,
    to: To<I>,
    share: Option<&Share>,
    check: impl Fn() -> Result<(), Status>,
) -> Option<Status> {
    loop {
        let Ok(word) = input.message().await else {
            // The client is gone.
            return None;
        };
        if let Err(refused) = check() {
            return Some(refused);
        }
        let is_end = word.is_none();
        if let (Some(word), Some(share)) = (&word, share) {
            share.give_back(word.received_bytes());
        }
        let there = match to.say(word.unwrap_or_else(I::end)).await {
            Ok(there) => there,
            Err(error) => return Some(error.into()),
        };
        if is_end || !there {
            // What is still to be heard ends the conversation; until then the far side must not take the client for gone.
            return std::future::pending().await;
        }
    }
}

async fn until_refused(still: &impl Fn() -> Result<(), Status>) -> Status {
    let mut ticks = interval_at(Instant::now() + RECHECK, RECHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(refused) = still() {
            return refused;
        }
    }
}
