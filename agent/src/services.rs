//! Services on this node: what the rules should be is a pure function of the assignment ([`model`]); from what they
//! are to what they should be is one script, applied in one transaction ([`script`]).

use std::{collections::BTreeSet, io, ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    desired::Desired, events::Recorder, files, programmed::Programmed, routes, runtime::HostPorts,
};

mod connections;
mod generations;
pub mod host_ports;
pub mod loopback;
pub mod model;
pub mod nft;
mod notices;
pub mod pace;
pub mod ports;
pub mod script;
pub mod sysctl;
mod tell;

use connections::{Forgetter, Moved};
use generations::Found;
use model::{Conflict, Rules};
use nft::{Nft, NftError};
use notices::Notices;
use pace::Pace;

/// Settings of the kernel.
const PROC_SYS: &str = "/proc/sys";

/// Between two looks who listens on this machine and what others did to the table, while nothing else changes.
const LOOK: Duration = Duration::from_secs(30);
/// From the first notice of a change until all notices are read: those of programs that change rules all the time are read together.
const GATHER: Duration = Duration::from_millis(100);
/// A changed assignment is written this long after the whole table was written last, at the latest. Endpoints of pods that have ended do not stay
/// because others change the table, too.
const ASSIGNED: Duration = Duration::from_secs(1);
/// How often the whole table is written when the kernel does not tell of changes.
const BLIND: Duration = Duration::from_secs(60);

/// Keeps the rules of this node's network namespace.
pub struct ServiceRules {
    nft: Nft,
    setting: routes::Setting,
    programmed: Programmed,
    recorder: Recorder,
    /// Ports of the node that its pods have; `None` until that is known.
    pods: watch::Receiver<Option<Arc<HostPorts>>>,
    /// What was written last; `None` until the whole table was written once.
    written: Option<Rules>,
    /// Whether the kernel has that: no write failed since, and nobody else changed the table.
    certain: bool,
    /// Interfaces over which the kernel routes loopback addresses; `None` while that is not known.
    loopback_over: Option<BTreeSet<String>>,
    /// Who changed it, until it is as it was.
    changed_by: Option<String>,
    /// The assignment that was written last, or that `nft` refused when it was written whole.
    tried: Option<(Arc<Desired>, Option<Arc<HostPorts>>)>,
    /// Whole tables that `nft` refused since one was written.
    refusals: u32,
    /// Of writing the whole table again for the same assignment.
    pace: Pace,
    notices: Option<Notices>,
    /// Whether it was told that there are no notices.
    blind: bool,
    /// Conflicts that were told.
    told: BTreeSet<Conflict>,
    forgetter: Forgetter,
    /// Connections were compared with rules that are of this run's assignments.
    compared: bool,
    guards: watch::Sender<bool>,
}

impl ServiceRules {
    /// Nothing happens until `run`.
    pub fn new(
        network: Network,
        recorder: Recorder,
        pods: watch::Receiver<Option<Arc<HostPorts>>>,
    ) -> Self {
        Self {
            nft: network.nft,
            setting: network.setting,
            programmed: network.programmed,
            recorder,
            pods,
            written: None,
            certain: false,
            loopback_over: None,
            changed_by: None,
            tried: None,
            refusals: 0,
            pace: Pace::default(),
            notices: None,
            blind: false,
            told: BTreeSet::new(),
            forgetter: Forgetter::default(),
            compared: false,
            guards: watch::Sender::new(false),
        }
    }

    /// Whether the rules were written once since this began: what they guard may be opened.
    pub fn guards(&self) -> watch::Receiver<bool> {
        self.guards.subscribe()
    }

    /// Keeps the rules as the assignment wants them, until `stop` is cancelled, and writes them again when somebody else changed them. They stay
    /// when this ends, and are replaced in one transaction when it begins again: traffic never finds a gap.
    pub async fn run(mut self, desired: watch::Receiver<Arc<Desired>>, stop: CancellationToken) {
        let forgetting = self.forget_connections(desired.clone());
        let both = async {
            tokio::select! {
                () = self.keep(desired) => {}
                () = forgetting => {}
            }
        };
        stop.run_until_cancelled(both).await;
    }

    /// Drops connections of UDP that lead elsewhere now, beside what keeps the rules.
    fn forget_connections(
        &self,
        desired: watch::Receiver<Arc<Desired>>,
    ) -> impl Future<Output = ()> + use<> {
        let recorder = self.recorder.clone();
        self.forgetter
            .clone()
            .run(move |error| tell::connections_stay(&desired.borrow(), &recorder, error))
    }

    async fn keep(&mut self, mut desired: watch::Receiver<Arc<Desired>>) {
        let mut whole_at = Instant::now();
        loop {
            self.look(whole_at);
            let now = desired.borrow_and_update().clone();
            let pods = self.pods.borrow_and_update().clone();
            let known = now.welcome.is_some() && pods.is_some();
            let whole = known && !self.certain;
            let mut is_paced = false;
            if whole {
                let begin = Instant::now();
                let paced = begin + self.pace.wait(begin);
                let is_changed = self.is_changed(&now, &pods);
                let at = match is_changed {
                    true => paced.min(whole_at + ASSIGNED),
                    false => paced,
                };
                if at > begin {
                    let changed = async {
                        match is_changed {
                            true => std::future::pending().await,
                            false => tokio::select! {
                                changed = desired.changed() => changed,
                                () = changed(&mut self.pods) => Ok(()),
                            },
                        }
                    };
                    tokio::select! {
                        () = sleep_until(at) => {}
                        changed = changed => if changed.is_err() {
                            return;
                        }
                    }
                    continue;
                }
                whole_at = begin;
                self.tried = Some((now.clone(), pods.clone()));
                is_paced = paced <= begin;
                if is_paced {
                    self.pace.write(begin);
                }
            }
            self.programmed.begin(now.network_revision);
            match self.sync(&now).await {
                Ok(()) => {
                    self.refusals = 0;
                    if known {
                        self.programmed.wrote(now.network_revision);
                    }
                    self.tried = Some((now.clone(), pods));
                }
                Err(error) => {
                    self.look(whole_at);
                    self.tell_refused(&now, whole, &error);
                }
            }
            if known && !self.certain {
                continue;
            }
            self.tell_restored(&now, is_paced);
            if self.idle(&mut desired, whole_at).await.is_break() {
                return;
            }
        }
    }

    /// Whether the rules may have to be others than those that were tried last.
    fn is_changed(&self, now: &Desired, pods: &Option<Arc<HostPorts>>) -> bool {
        self.tried
            .as_ref()
            .is_none_or(|(tried, of_pods)| !now.has_network_of(tried) || of_pods != pods)
    }

    /// Waits until there may be something to be done. Breaks when there is nothing any more.
    async fn idle(
        &mut self,
        desired: &mut watch::Receiver<Arc<Desired>>,
        whole_at: Instant,
    ) -> ControlFlow<()> {
        let until = Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = sleep_until(until) => return ControlFlow::Continue(()),
                changed = desired.changed() => return match changed {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                },
                () = changed(&mut self.pods) => return ControlFlow::Continue(()),
                () = noticed(self.notices.as_mut()) => {}
            }
            sleep(GATHER).await;
            let was_certain = self.certain;
            self.look(whole_at);
            if was_certain && !self.certain {
                return ControlFlow::Continue(());
            }
        }
    }

    /// Finds out whether the kernel still has what was written. `whole_at`: when the whole table was written last.
    fn look(&mut self, whole_at: Instant) {
        if self.notices.is_none() {
            let opened = Notices::open();
            // Only what can be read, too, ends the blindness.
            self.notices = self.hear(opened);
            self.certain &= self.notices.is_none() && whole_at.elapsed() < BLIND;
            return;
        }
        let found = self.notices.as_mut().map_or(Ok(None), Notices::found);
        if let Some(found) = self.hear(found) {
            self.blind = false;
            self.found(found);
        }
    }

    fn found(&mut self, found: Option<Found>) {
        match found {
            None => {}
            Some(Found::Changed(by)) => {
                self.certain = false;
                self.changed_by = Some(by);
            }
            Some(Found::Unknown) => self.certain = false,
        }
    }

    /// What the notices say; `None` when they cannot be had, which is logged once.
    fn hear<T>(&mut self, said: io::Result<T>) -> Option<T> {
        match said {
            Ok(said) => Some(said),
            Err(error) => {
                if !self.blind {
                    let every = BLIND.as_secs();
                    tracing::warn!(%error, every, "the kernel does not tell who changes its rules; those of Services are written again every so many seconds");
                }
                self.blind = true;
                self.notices = None;
                None
            }
        }
    }

    /// Brings the rules in line with an assignment.
    ///
    /// # Errors
    /// What `nft` says; the next call writes the whole table.
    pub async fn sync(&mut self, desired: &Desired) -> Result<(), NftError> {
        let pods = self.pods.borrow().clone();
        let (Some(_), Some(pods)) = (&desired.welcome, pods) else {
            // Not all is known yet; what an earlier run left in the kernel is better than nothing.
            return Ok(());
        };
        let (mut host_ports, loopback) =
            host_ports::of_machine(desired, self.setting.vxlan_port()).await;
        if let Some(written) = &self.written {
            // Whoever begins to listen on a port that a Service has does not take it away.
            host_ports.retain(|port, what| {
                *what != host_ports::LISTENS || !written.node.contains_key(port)
            });
        }
        let (rules, conflicts) = model::rules(&model::Inputs {
            services: desired.services.values().map(AsRef::as_ref).collect(),
            endpoints: desired.endpoints.values().map(AsRef::as_ref).collect(),
            node: desired.name(),
            own_range: desired.pod_cidr().parse().ok(),
            peer_ranges: desired
                .peers
                .values()
                .filter_map(|peer| peer.pod_cidr.parse().ok())
                .collect(),
            peers: desired
                .peers
                .values()
                .filter_map(|peer| peer.address.parse().ok())
                .filter(|address| Some(*address) != self.setting.address)
                .collect(),
            own_address: self.setting.address,
            vxlan: self.setting.vxlan_port(),
            service_range: desired.service_cidr().parse().ok(),
            host_ports,
            loopback,
            pods: Some(&pods),
        });
        self.tell_conflicts(desired, conflicts);
        let script = match &self.written {
            Some(written) if self.certain && *written == rules => {
                if !self.compared {
                    self.compare(&rules, desired);
                }
                return Ok(());
            }
            Some(written) if self.certain => script::change(written, &rules),
            _ => script::replace(&rules),
        };
        // Should it fail, nobody knows what the kernel has.
        self.certain = false;
        let before = self.notices.as_mut().map(Notices::writing);
        let before = before.and_then(|before| self.hear(before));
        self.nft.apply(&script).await?;
        self.guards.send_replace(true);
        self.route_loopback(&rules).await;
        self.compare(&rules, desired);
        self.written = Some(rules);
        self.certain = true;
        let wrote = self.notices.as_mut().zip(before);
        if let Some(found) = wrote.map(|(notices, before)| notices.wrote(before))
            && let Some(found) = self.hear(found)
        {
            self.blind = false;
            self.found(found);
        }
        Ok(())
    }

    /// Has connections forgotten that the kernel's new rules would not make. Endpoints from the disk may be older than the rules that they were made by.
    fn compare(&mut self, rules: &Rules, desired: &Desired) {
        if desired.epoch > 0 {
            let before = self.written.as_ref().filter(|_| self.compared);
            self.forgetter.moved(Moved::between(before, rules));
            self.compared = true;
        }
    }

    /// Host ports answer on loopback addresses, too. The rules that guard these are written by now.
    async fn route_loopback(&mut self, rules: &Rules) {
        let wanted = loopback::interfaces(rules);
        let before = self.loopback_over.take();
        if wanted.is_empty() && before.as_ref().is_some_and(BTreeSet::is_empty) {
            self.loopback_over = before;
            return;
        }
        let (over, is_wanted) = (wanted.clone(), !wanted.is_empty());
        let routed =
            files::blocking(move || loopback::route(PROC_SYS.as_ref(), before.as_ref(), &over));
        match routed.await {
            Err(error) if is_wanted => {
                tracing::warn!(%error, "host ports do not answer on this machine's loopback addresses");
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel goes on routing loopback addresses to pods");
            }
            Ok(()) => self.loopback_over = Some(wanted),
        }
    }
}

/// The machine is no node any more. What guards the machine's loopback addresses goes last.
///
/// # Errors
/// What the kernel or `nft` says; then the rules stay.
pub async fn clear(nft: &Nft) -> Result<(), ClearError> {
    files::blocking(|| loopback::route(PROC_SYS.as_ref(), None, &BTreeSet::new())).await?;
    Ok(nft.apply(&script::remove()).await?)
}

/// Why the rules of Services stay.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// Loopback addresses are still routed to pods, so what guards them stays.
    #[error("the kernel goes on routing loopback addresses to pods: {0}")]
    Loopback(#[from] std::io::Error),
    /// `nft` failed.
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// How the agent may change its network namespace.
#[derive(Default)]
pub struct Network {
    /// Writes rules.
    pub nft: Nft,
    /// How other nodes are reached.
    pub setting: routes::Setting,
    /// Gets the revision that the rules have.
    pub programmed: Programmed,
    /// The folder that may have a network configuration of the user's own.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Returns when other ports belong to pods.
async fn changed(pods: &mut watch::Receiver<Option<Arc<HostPorts>>>) {
    if pods.changed().await.is_err() {
        // They never change again.
        std::future::pending().await
    }
}

/// Returns when the kernel has said something.
async fn noticed(notices: Option<&mut Notices>) {
    match notices {
        Some(notices) => notices.wait().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
