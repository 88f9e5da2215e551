//! A conversation between a client and what runs in a pod.
//!
//! To the client one piece is on its way at a time. To the far side there are [`WAITING`] at most, and one more for each that it says it has dealt with. So what a program
//! does not read never fills the windows of HTTP/2, and the far side learns at once when the client has gone.
//!
//! The conversation ends when the far side has said its last word, the client goes, its right ends, or this manager stops.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::TunnelChunk;
use futures::{StreamExt, stream::BoxStream};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::words::{Input, Reply};
use crate::{calls::shares::Share, error::ApiError, runtime::clock::PATIENCE};

/// How long a conversation goes on at most after the client's right to it has ended.
const RECHECK: Duration = Duration::from_secs(5);

/// Messages of a client on their way to the far side, whose agent keeps room for them: less than a window of HTTP/2.
const WAITING: usize = 4;

/// For the end of a client's call to arrive behind the end of its words. A client of ours says the end of an input in a word, and waits for nothing.
const MOMENT: Duration = Duration::from_secs(1);

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
    /// Whether the client is another manager, which counts what was dealt with.
    pub counts: bool,
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
            let room = Semaphore::new(WAITING);
            let hear = Hear {
                client: &self.client,
                room: &room,
                counts: self.counts,
            };
            let say = Say {
                input: &mut self.input,
                share: self.share.as_deref(),
                room: &room,
                of_manager: self.counts,
            };
            tokio::select! {
                end = hear.hear(from, check) => end,
                end = say.say(to, check) => end,
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

/// From the far side to the client.
struct Hear<'a, A> {
    client: &'a mpsc::Sender<Result<A, Status>>,
    room: &'a Semaphore,
    counts: bool,
}

impl<A: Reply> Hear<'_, A> {
    /// Answers why the conversation ends, if that is still to be told.
    async fn hear(
        self,
        mut from: BoxStream<'static, Result<A, Status>>,
        check: impl Fn() -> Result<(), Status>,
    ) -> Option<Status> {
        while let Some(word) = from.next().await {
            if let Err(refused) = check() {
                return Some(refused);
            }
            let word = match word {
                Ok(word) => word,
                Err(status) => return Some(status),
            };
            if word.is_taken() {
                self.room.add_permits(1);
                if !self.counts {
                    continue;
                }
            }
            self.client.send(Ok(word)).await.ok()?;
        }
        None
    }
}

/// From the client to the far side.
struct Say<'a, I> {
    input: &'a mut Streaming<I>,
    share: Option<&'a Share>,
    room: &'a Semaphore,
    /// A manager says the end of its client's input in a word.
    of_manager: bool,
}

impl<I: Input> Say<'_, I> {
    /// Answers why the conversation ends, if that is still to be told.
    async fn say(self, to: To<I>, check: impl Fn() -> Result<(), Status>) -> Option<Status> {
        loop {
            // It is never closed.
            self.room.acquire().await.ok()?.forget();
            let Ok(word) = self.input.message().await else {
                return None;
            };
            // A client that goes looks like one that has said all, and a program must not take half of its input for the whole. So a manager
            // that says no more has lost its client, and of another client it shows within a moment whether it still hears.
            match word {
                None if self.of_manager => return None,
                None => sleep(MOMENT).await,
                Some(_) => {}
            }
            if let Err(refused) = check() {
                return Some(refused);
            }
            let is_end = word.is_none();
            if let (Some(word), Some(share)) = (&word, self.share) {
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
