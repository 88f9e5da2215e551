//! Services on this node: what the rules should be is a pure function of the assignment ([`model`]); from what they
//! are to what they should be is one script, applied in one transaction ([`script`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    desired::Desired,
    events::{Recorder, Severity, service_reference},
};

pub mod host_ports;
pub mod model;
pub mod nft;
pub mod ports;
pub mod script;
pub mod sysctl;

use model::{Conflict, Holder, Rules};
use nft::{Nft, NftError};

/// Wait after a failure, doubled by each further one.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Between two looks who listens on this machine, while nothing else changes.
const LOOK: Duration = Duration::from_secs(30);

/// Keeps the rules of this node's network namespace.
pub struct ServiceRules {
    nft: Nft,
    recorder: Recorder,
    /// Whether bridged traffic passes the rules too; see [`model::Inputs`].
    bridge_netfilter: bool,
    /// What the kernel has; `None` until the whole table was written once.
    applied: Option<Rules>,
    /// Conflicts that were told.
    told: BTreeSet<Conflict>,
}

impl ServiceRules {
    /// Nothing happens until `run`.
    pub fn new(nft: Nft, recorder: Recorder, bridge_netfilter: bool) -> Self {
        Self {
            nft,
            recorder,
            bridge_netfilter,
            applied: None,
            told: BTreeSet::new(),
        }
    }

    /// Keeps the rules as the assignment wants them, until `stop` is cancelled. They stay when this ends, and are
    /// replaced in one transaction when it begins again: traffic never finds a gap.
    pub async fn run(
        mut self,
        mut desired: watch::Receiver<Arc<Desired>>,
        stop: CancellationToken,
    ) {
        let mut retry = RETRY;
        loop {
            let now = desired.borrow_and_update().clone();
            let failed = match self.sync(&now).await {
                Ok(()) => {
                    retry = RETRY;
                    None
                }
                Err(error) => {
                    tracing::error!(%error, "cannot write the rules of Services");
                    self.tell_failure(&now, &error);
                    let wait = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    Some(wait)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(failed.unwrap_or(LOOK)) => {}
                changed = desired.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Brings the rules in line with an assignment.
    ///
    /// # Errors
    /// What `nft` says; the next call writes the whole table.
    pub async fn sync(&mut self, desired: &Desired) -> Result<(), NftError> {
        if desired.welcome.is_none() {
            // Nothing is known yet; what an earlier run left in the kernel is better than nothing.
            return Ok(());
        }
        let mut host_ports = host_ports::of_machine(desired).await;
        if let Some(applied) = &self.applied {
            // Whoever begins to listen on a port that a Service has does not take it away.
            host_ports.retain(|port, what| {
                *what != host_ports::LISTENS || !applied.node.contains_key(port)
            });
        }
        let (rules, conflicts) = model::rules(&model::Inputs {
            services: desired.services.values().map(AsRef::as_ref).collect(),
            endpoints: desired.endpoints.values().map(AsRef::as_ref).collect(),
            own_range: desired.pod_cidr().parse().ok(),
            peer_ranges: desired
                .peers
                .values()
                .filter_map(|peer| peer.pod_cidr.parse().ok())
                .collect(),
            service_range: desired.service_cidr().parse().ok(),
            bridge_netfilter: self.bridge_netfilter,
            host_ports,
        });
        self.tell_conflicts(desired, conflicts);
        let script = match &self.applied {
            Some(applied) if *applied == rules => return Ok(()),
            Some(applied) => script::change(applied, &rules),
            None => script::replace(&rules),
        };
        // Should it fail, nobody knows what the kernel has.
        self.applied = None;
        self.nft.apply(&script).await?;
        self.applied = Some(rules);
        Ok(())
    }

    fn tell_conflicts(&mut self, desired: &Desired, conflicts: BTreeSet<Conflict>) {
        for conflict in conflicts.difference(&self.told) {
            if let Some(service) = desired.services.get(&conflict.service_uid) {
                let port = format!("{}/{}", conflict.port, conflict.protocol);
                let (reason, message) = match &conflict.holder {
                    Holder::Service(name) => (
                        "PortConflict",
                        format!("port {port} of the node belongs to the older Service {name}"),
                    ),
                    Holder::Node(what) => (
                        "PortReserved",
                        format!(
                            "port {port} is the node's own ({what}): the Service is not reached there; choose another port"
                        ),
                    ),
                };
                let object = service_reference(service);
                self.recorder
                    .record(object, Severity::Warning, reason, message);
            }
        }
        self.told = conflicts;
    }

    fn tell_failure(&self, desired: &Desired, error: &NftError) {
        if let Some(node) = desired.node() {
            let object = crate::events::node_reference(node);
            self.recorder.record(
                object,
                Severity::Warning,
                "FailedServiceRules",
                error.to_string(),
            );
        }
    }
}

#[cfg(test)]
mod tests;
