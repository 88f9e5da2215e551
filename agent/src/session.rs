//! The agent's life with the managers: over any of them, one at a time, for as long as it lives.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use barge_proto::v1::{NodeStatus, OpenStream};
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};

use crate::{desired::Desired, outbox::Outbox};

mod saved;
mod stream;

pub use saved::{AssignmentFiles, SavedError};
use stream::Ended;

/// First wait after a session ended.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The wait when the managers refuse this node, which only a person can change.
const REFUSED_WAIT: Duration = Duration::from_secs(15);

/// The way to the managers.
pub trait Managers: Send + Sync + 'static {
    /// Where they are (`host:port`), as known now.
    fn addresses(&self) -> Vec<String>;
    /// A channel to one of them, which connects when it is used.
    fn channel(&self, address: &str) -> Result<Channel, String>;
    /// A manager said where all of them are.
    fn learned(&self, addresses: &[String]);
    /// What this node trusts, as `Heartbeat` has it.
    fn roots_sha256(&self) -> [u8; 32];
    /// A manager said what is to be trusted, and within what time to renew when that is something else.
    fn told_roots(&self, roots_sha256: [u8; 32], within: Duration);
}

/// Serves what managers ask for on behalf of a client. Called for each; must not block.
pub trait Streams: Send + Sync + 'static {
    /// Dials back over `channel` and sends what was asked for.
    fn open(&self, channel: Channel, request: OpenStream);
}

/// What a session needs.
pub struct Options {
    /// The cluster this node belongs to.
    pub cluster_id: String,
    /// The way to the managers.
    pub managers: Arc<dyn Managers>,
    /// What is to be said.
    pub outbox: Arc<Outbox>,
    /// The machine, as it is now.
    pub node: watch::Receiver<NodeStatus>,
    /// Where assignments are kept.
    pub files: AssignmentFiles,
    /// Who serves logs.
    pub streams: Arc<dyn Streams>,
}

/// Talks to the managers.
pub struct Session {
    options: Options,
    desired: watch::Sender<Arc<Desired>>,
    /// Whether managers are reached; logged when it changes.
    away: AtomicBool,
}

impl Session {
    /// A session that goes on from what `desired` holds, and puts there what managers assign.
    pub fn new(options: Options, desired: watch::Sender<Arc<Desired>>) -> Self {
        Self {
            options,
            desired,
            away: AtomicBool::new(false),
        }
    }

    /// Keeps a session with some manager until `stop` is cancelled. Losing them changes nothing on this machine.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.rotate()).await;
    }

    async fn rotate(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            let mut addresses = self.options.managers.addresses();
            addresses.shuffle(&mut rand::rng());
            let mut pause = None;
            for address in addresses {
                let ended = self.with(&address).await;
                self.log(&address, &ended);
                if ended.was_welcome() {
                    wait = FIRST_WAIT;
                    break;
                }
                if ended.is_refusal() {
                    pause = Some(REFUSED_WAIT);
                }
                // Spread, so that the next manager does not meet all agents of the lost one at once.
                tokio::time::sleep(jittered(FIRST_WAIT)).await;
            }
            tokio::time::sleep(jittered(pause.unwrap_or(wait))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn with(&self, address: &str) -> Ended {
        match self.options.managers.channel(address) {
            Ok(channel) => stream::hold(self, address, channel).await,
            Err(message) => Ended::Unreachable(message),
        }
    }

    fn log(&self, address: &str, ended: &Ended) {
        use std::sync::atomic::Ordering::Relaxed;
        if ended.was_welcome() {
            self.away.store(false, Relaxed);
            tracing::info!(manager = address, reason = %ended, "the session ended; looking for a manager");
        } else if ended.is_refusal() {
            tracing::error!(manager = address, reason = %ended, "the manager refuses this node; its containers go on running");
        } else if !self.away.swap(true, Relaxed) {
            tracing::warn!(manager = address, reason = %ended, "cannot reach the manager; containers go on running");
        } else {
            tracing::debug!(manager = address, reason = %ended, "no session");
        }
    }
}

impl Ended {
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

/// Between half and the whole.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests;
