//! What leads to the other nodes' pods and to the Service range, and the care for what wires this node's own pods.
//!
//! Nodes on a link of this one are reached by a direct route, all others by VXLAN ([`plan`]). The agent's routes carry a protocol number of their
//! own and its VXLAN interface has a name of its own, so stale ones are found again and nothing else is touched.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    desired::Desired,
    events::{Recorder, Severity, node_reference},
    network::Found,
    runtime::{POD_LINKS, POD_ROUTES, Runtime, RuntimeError},
    services::pace::Pace,
};

mod device;
mod notices;
mod plan;
mod ways;
mod wires;

use notices::{Heard, Notices, Ours};
pub use plan::{DEVICE, Mode, PORT, Setting};
pub use wires::{Outcome, Wires};

/// The number of our routes ("proto 98" in `ip route`), unused by known programs.
pub const PROTOCOL: u8 = 98;
/// Between tries after a failure, and to notice what went without a notice of the kernel.
const PERIOD: Duration = Duration::from_secs(15);
/// From the first notice that something went until it is made again: what goes together is made again together.
const GATHER: Duration = Duration::from_millis(200);
/// While others change the machine's interfaces, addresses and routes all the time, the ways to other nodes are looked at no more often than this …
const SELDOM: Duration = Duration::from_secs(1);
/// … and for no larger part of the time than one in so many.
const SHARE: u32 = 20;
/// The kernel has not answered for so long that it is told.
const HANGS: Duration = Duration::from_secs(30);
/// Nobody has said for so long whether plugins of the user's own wire pods: their folder does not answer, and routes do not wait for a disk.
const UNREAD: Duration = Duration::from_secs(5);
/// So many of the things that were made again are named in an event.
const TOLD: usize = 5;

/// Keeps what leads to other nodes, and what wires this node's pods, until `stop` is cancelled; it stays. [`DEVICE`] is opened when something
/// `guards` it.
pub async fn run(
    desired: watch::Receiver<Arc<Desired>>,
    network: watch::Receiver<Found>,
    guards: watch::Receiver<bool>,
    setting: Setting,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let keeper = Keeper {
        runtime,
        recorder,
        setting,
        told: Outcome::default(),
        told_of_pods: String::new(),
        pace: Pace::default(),
    };
    stop.run_until_cancelled(keeper.keep(desired, network, guards))
        .await;
}

/// The machine is no node any more: removes what leads to other nodes.
///
/// # Errors
/// What could not be done.
pub async fn clear() -> Result<(), String> {
    let cleared = spawn_blocking(|| {
        let setting = Setting {
            mode: Mode::Direct,
            address: None,
        };
        Wires::new(setting).bring(&Desired::default(), true)
    });
    let outcome = cleared.await.map_err(|error| error.to_string())?;
    match [outcome.failure, outcome.device_failure].concat() {
        failure if failure.is_empty() => Ok(()),
        failure => Err(failure),
    }
}

struct Keeper {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    setting: Setting,
    /// What was told last; its failures are empty when all went well since.
    told: Outcome,
    /// The same of this node's pods.
    told_of_pods: String,
    /// Of making again what others remove.
    pace: Pace,
}

/// What is under way on a thread of its own: a kernel or a disk that hangs holds up that, and nothing else.
type UnderWay<T> = Option<JoinHandle<T>>;

impl Keeper {
    async fn keep(
        mut self,
        mut desired: watch::Receiver<Arc<Desired>>,
        mut network: watch::Receiver<Found>,
        mut guards: watch::Receiver<bool>,
    ) {
        let mut notices = None;
        let mut wires = Some(Wires::new(self.setting));
        let mut bringing: UnderWay<(Wires, Outcome)> = None;
        let mut mending: UnderWay<Result<Vec<String>, RuntimeError>> = None;
        // The assignment that was acted on last.
        let mut done: Option<Arc<Desired>> = None;
        let begin = Instant::now();
        let (mut look_at, mut pods_at) = (begin, begin + PERIOD);
        let (mut begun, mut is_told) = (begin, false);
        let mut seldom = SELDOM;
        loop {
            if notices.is_none() {
                // Without notices it is looked every so often.
                let opened = Notices::open();
                notices = opened
                    .inspect_err(|error| tracing::warn!(%error, "the kernel does not tell who removes routes"))
                    .ok();
            }
            let now = desired.borrow_and_update().clone();
            // Before a manager said anything, what is there is better than nothing.
            let plugins = network.borrow_and_update().plugins;
            let is_guarded = *guards.borrow_and_update();
            let time = Instant::now();
            let is_unread = plugins.is_none() && time < begin + UNREAD;
            let is_known = now.welcome.is_some() && !is_unread;
            let is_changed = done.as_ref().is_none_or(|done| !now.has_peers_of(done));
            if is_known
                && (is_changed || time >= look_at)
                && let Some(mut idle) = wires.take()
            {
                let looks = time >= look_at;
                if looks {
                    look_at = time + PERIOD;
                }
                (begun, is_told) = (time, false);
                done = Some(now.clone());
                let wanted = now.clone();
                idle.yields(plugins.unwrap_or_default());
                idle.waits(!is_guarded);
                bringing = Some(spawn_blocking(move || {
                    let outcome = idle.bring(&wanted, looks);
                    (idle, outcome)
                }));
            }
            if is_known && time >= pods_at && mending.is_none() {
                pods_at = time + PERIOD;
                let runtime = self.runtime.clone();
                mending = Some(tokio::spawn(async move { runtime.mend_network().await }));
            }
            tokio::select! {
                () = sleep_until(look_at), if is_known && wires.is_some() => {}
                () = sleep_until(pods_at), if is_known && mending.is_none() => {}
                () = sleep_until(begin + UNREAD), if is_unread => {}
                () = sleep_until(begun + HANGS), if bringing.is_some() && !is_told => {
                    is_told = true;
                    self.tell_hangs(&now);
                }
                changed = desired.changed() => if changed.is_err() {
                    return;
                },
                Ok(()) = network.changed() => {
                    if network.borrow().plugins != plugins {
                        look_at = Instant::now();
                    }
                }
                Ok(()) = guards.changed() => look_at = Instant::now(),
                brought = ended(&mut bringing) => {
                    bringing = None;
                    seldom = SELDOM.max(begun.elapsed() * SHARE);
                    let outcome = match brought {
                        Ok((idle, outcome)) => {
                            if let Some(notices) = &mut notices {
                                notices.know(Ours { port: idle.port(), device: idle.index() });
                            }
                            wires = Some(idle);
                            outcome
                        }
                        Err(error) => {
                            wires = Some(Wires::new(self.setting));
                            Outcome { failure: error.to_string(), ..Outcome::default() }
                        }
                    };
                    self.tell(&now, outcome);
                }
                mended = ended(&mut mending) => {
                    mending = None;
                    self.tell_mended(&now, mended);
                }
                heard = heard(&mut notices) => match heard {
                    Err(_) => notices = None,
                    Ok(heard) => {
                        let time = Instant::now();
                        // Not again and again at once when somebody goes on removing it.
                        let soon = time + GATHER.max(self.pace.wait(time));
                        // With the last pod of its own the agent leaves the way to other nodes to plugins.
                        if heard.wires || (heard.pods && plugins == Some(true)) {
                            look_at = look_at.min(soon);
                        }
                        if heard.pods {
                            pods_at = pods_at.min(soon);
                        }
                        if heard.ways {
                            look_at = look_at.min((begun + seldom).max(time + GATHER));
                        }
                    }
                },
            }
        }
    }

    fn tell_mended(
        &mut self,
        now: &Desired,
        mended: Result<Result<Vec<String>, RuntimeError>, JoinError>,
    ) {
        let failure = match mended {
            Ok(Ok(pods)) => {
                let restored: Vec<_> = pods.iter().map(|pod| format!("pod {pod}")).collect();
                self.told_of_pods.clear();
                return self.tell_restored(now, &restored);
            }
            Ok(Err(error)) => error.message,
            Err(error) => error.to_string(),
        };
        if failure != self.told_of_pods {
            tracing::error!(failure, "the network of pods is not as it should be");
            self.event(now, "FailedPodNetwork", failure.clone());
            self.told_of_pods = failure;
        }
    }

    fn tell(&mut self, now: &Desired, outcome: Outcome) {
        for (reason, failure, told) in [
            ("FailedRoute", &outcome.failure, &self.told.failure),
            (
                "FailedPodNetwork",
                &outcome.device_failure,
                &self.told.device_failure,
            ),
        ] {
            if !failure.is_empty() && failure != told {
                tracing::error!(
                    message = failure,
                    "what leads to other nodes is not as it should be"
                );
                self.event(now, reason, failure.clone());
            }
        }
        self.tell_restored(now, &outcome.restored);
        self.told = outcome;
    }

    fn tell_hangs(&self, now: &Desired) {
        let seconds = HANGS.as_secs();
        let message = format!(
            "the kernel has not said for {seconds} s what leads to other nodes; what was there stays, and what has changed since is not followed"
        );
        tracing::error!(message, "netlink does not answer");
        self.event(now, "FailedRoute", message);
    }

    fn event(&self, now: &Desired, reason: &str, message: String) {
        if let Some(node) = now.node() {
            let node = node_reference(node);
            self.recorder
                .record(node, Severity::Warning, reason, message);
        }
    }

    fn tell_restored(&mut self, now: &Desired, restored: &[String]) {
        if restored.is_empty() {
            return;
        }
        self.pace.write(Instant::now());
        let first = restored.iter().take(TOLD).cloned().collect::<Vec<_>>();
        let more = restored.len().saturating_sub(TOLD);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "something on this machine removed or changed what connects pods, and the agent made it again: {}{more}. Have other programs leave {DEVICE}, \
             interfaces that begin with {POD_LINKS} and routes with proto {PROTOCOL} and {POD_ROUTES} alone",
            first.join(", ")
        );
        tracing::warn!(message, "the pod network was changed by others");
        self.event(now, "PodNetworkRestored", message);
    }
}

/// What a task answers; never without one.
async fn ended<T>(task: &mut UnderWay<T>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Returns when something has happened; never without notices.
async fn heard(notices: &mut Option<Notices>) -> io::Result<Heard> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
