//! The agent's life with the managers: with one of them at a time, for as long as it lives.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use barge_client::error::is_node_deleted;
use barge_proto::v1::{NodeStatus, OpenStream};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};

use crate::{
    desired::{Desired, Refused},
    life::Lane,
    managers::Managers,
    outbox::Outbox,
};

mod incarnation;
mod keeper;
mod parts;
mod saved;
mod secrets;
mod stream;

pub use incarnation::Incarnation;
use keeper::Keeper;
pub use saved::{AssignmentFiles, SavedError};
use stream::Ended;

/// First wait after a session ended.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The wait when the managers refuse this node, or assign more than it takes, which only a person can change.
const REFUSED_WAIT: Duration = Duration::from_secs(15);

/// Serves what managers ask for on behalf of a client. Called for each; must not block.
pub trait Streams: Send + Sync + 'static {
    /// Dials the manager back over `channel`, which nothing else uses, and sends what was asked for.
    fn open(&self, channel: Channel, request: OpenStream);
}

/// What a session needs.
pub struct Options {
    /// The cluster this node belongs to.
    pub cluster_id: String,
    /// The way to the managers.
    pub managers: Arc<dyn Managers>,
    /// Says which manager to be with.
    pub lane: Lane,
    /// What is to be said.
    pub outbox: Arc<Outbox>,
    /// The machine, as it is now.
    pub node: watch::Receiver<NodeStatus>,
    /// Where assignments are kept.
    pub files: AssignmentFiles,
    /// Who serves what managers ask for.
    pub streams: Arc<dyn Streams>,
    /// Gets the connection of the session that is open, for small questions to its manager.
    pub open: watch::Sender<Open>,
    /// Cancelled when the node's deletion is on record and its pods are marked as deleted on disk.
    pub left: CancellationToken,
}

/// The connection of the session that is open, with the manager's address; nothing between two sessions.
pub type Open = Option<(String, Channel)>;

/// Talks to the managers.
pub struct Session {
    options: Options,
    keeper: Keeper,
    /// Whether managers are reached; logged when it changes.
    away: AtomicBool,
}

impl Session {
    /// A session that goes on from what `desired` holds, and puts there what managers assign.
    pub fn new(options: Options, desired: watch::Sender<Arc<Desired>>) -> Self {
        let keeper = Keeper::new(options.files.clone(), options.cluster_id.clone(), desired);
        Self {
            options,
            keeper,
            away: AtomicBool::new(false),
        }
    }

    /// Keeps a session with the manager that life signs are answered by, until `stop` is cancelled or the node was deleted. Losing it
    /// changes nothing on this machine.
    pub async fn run(self, stop: CancellationToken) {
        let options = &self.options;
        let kept = self.keeper.run(&options.managers, &options.outbox);
        let both = async { tokio::join!(self.follow(), kept) };
        stop.run_until_cancelled(both).await;
    }

    async fn follow(&self) {
        let mut chosen = self.options.lane.chosen();
        let mut round = Round::default();
        loop {
            let address = match chosen.wait_for(Option::is_some).await {
                Ok(address) => address.clone().unwrap_or_default(),
                // Life signs have ended, so this agent is about to.
                Err(_) => return,
            };
            let ended = tokio::select! {
                ended = self.with(&address) => ended,
                Ok(_) = chosen.wait_for(|chosen| chosen.as_ref() != Some(&address)) => {
                    tracing::warn!(manager = address, "life signs go to another manager now (this one does not answer them, or left the cluster): the session moves there");
                    continue;
                }
            };
            self.log(&address, &ended);
            if ended.is_node_deleted() {
                self.leave().await;
                self.options.left.cancel();
                // Others go on with what is desired for as long as this is here.
                return std::future::pending().await;
            }
            if ended.may_be_older() {
                self.keeper.hold_nothing();
            }
            self.options.lane.give_up(&address);
            let pause = round.pause(&ended, self.count());
            // Spread, so that the next manager does not meet all agents of the lost one at once.
            sleep(jittered(FIRST_WAIT)).await;
            chosen.mark_unchanged();
            if let Some(pause) = pause {
                // A manager that answers ends the wait.
                tokio::select! {
                    () = sleep(jittered(pause)) => {}
                    Ok(()) = chosen.changed() => {}
                }
            }
        }
    }

    /// How many managers there are, as far as is known.
    fn count(&self) -> usize {
        let managers = &self.options.managers;
        managers.addresses().len() + managers.by_hand().len()
    }

    async fn with(&self, address: &str) -> Ended {
        match self.options.managers.channel(address) {
            Ok(channel) => {
                let open = &self.options.open;
                open.send_replace(Some((address.to_owned(), channel.clone())));
                let _until_ended = Closes(open);
                stream::hold(self, address, channel).await
            }
            Err(message) => Ended::Unreachable(message),
        }
    }

    /// Marks the pods of a deleted node as deleted, and returns when that is durable.
    async fn leave(&self) {
        let mut next = Desired::clone(&self.keeper.head());
        next.leave();
        self.keeper.bury(next).await;
    }

    fn log(&self, address: &str, ended: &Ended) {
        use std::sync::atomic::Ordering::Relaxed;
        if ended.is_node_deleted() {
            tracing::warn!(manager = address, reason = %ended, "this node was deleted: its pods end");
        } else if ended.was_welcome() {
            self.away.store(false, Relaxed);
            tracing::info!(manager = address, reason = %ended, "the session ended; looking for a manager");
        } else if ended.is_refusal() {
            tracing::error!(manager = address, reason = %ended, "the manager refuses this node; its containers go on running");
        } else if ended.is_too_large() {
            tracing::error!(manager = address, reason = %ended, "cannot take what the manager assigns; containers go on running");
        } else if !self.away.swap(true, Relaxed) {
            tracing::warn!(manager = address, reason = %ended, "cannot reach the manager; containers go on running");
        } else {
            tracing::debug!(manager = address, reason = %ended, "no session");
        }
    }
}

impl Ended {
    /// Whether the managers' state may be older than what this node acted on. In the same life of the cluster, too: when the disks of all
    /// managers were put back. Once it has passed the node's revision, differences would lack what was written before.
    fn may_be_older(&self) -> bool {
        match self {
            Self::Refused(refused) => matches!(refused, Refused::Older { .. }),
            Self::Status { status, .. } => status.code() == Code::FailedPrecondition,
            _ => false,
        }
    }

    /// Whether the deletion of this node is on record.
    fn is_node_deleted(&self) -> bool {
        match self {
            Self::Status { status, .. } => is_node_deleted(status),
            _ => false,
        }
    }

    /// Whether every manager would send as much again.
    fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused(Refused::TooLarge { .. }))
    }

    fn is_refusal(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(
                status.code(),
                Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated
            ),
            _ => false,
        }
    }
}

/// Takes back the connection of a session that ends, or is given up.
struct Closes<'a>(&'a watch::Sender<Open>);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

/// Attempts that came to nothing, since a session began or the last pause.
#[derive(Debug)]
struct Round {
    attempts: usize,
    refused: bool,
    wait: Duration,
}

impl Default for Round {
    fn default() -> Self {
        Self {
            attempts: 0,
            refused: false,
            wait: FIRST_WAIT,
        }
    }
}

impl Round {
    /// How long to wait after one more session ended, if that was the last manager of a round.
    fn pause(&mut self, ended: &Ended, managers: usize) -> Option<Duration> {
        if ended.was_welcome() {
            *self = Self::default();
            return None;
        }
        self.attempts += 1;
        self.refused |= ended.is_refusal() || ended.is_too_large();
        if self.attempts < managers && !ended.is_too_large() {
            return None;
        }
        let pause = if self.refused {
            REFUSED_WAIT
        } else {
            self.wait
        };
        *self = Self {
            wait: (self.wait * 2).min(LONGEST_WAIT),
            ..Self::default()
        };
        Some(pause)
    }
}

/// Between half and the whole.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests;
