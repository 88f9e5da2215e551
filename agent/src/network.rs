//! What else on this machine decides whether pods reach anybody: firewalls, and a network configuration of the user's own. Told as conditions of the
//! node and as events.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use barge_proto::v1::Condition;
use ipnet::Ipv4Net;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    desired::Desired,
    events::{Recorder, Severity, node_reference},
    files,
    runtime::own_network,
    services::nft::Nft,
};

pub mod firewalls;

use firewalls::Needs;

/// Between two looks. Others change their rules all the time, and a look at large ones takes a while.
const PERIOD: Duration = Duration::from_secs(30);
/// The condition that a firewall drops what pods send or are sent.
const FIREWALLED: &str = "PodNetworkFirewalled";
/// The condition that the agent wires new pods, and not plugins of the user's own.
const MANAGED: &str = "PodNetworkManaged";

/// What to look at.
pub struct Options {
    /// The assignment.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// The folder that may have a network configuration of the user's own.
    pub cni_conf_dir: Option<PathBuf>,
    /// The UDP port at which the node takes packets of VXLAN, if it does.
    pub vxlan_port: Option<u16>,
    /// Lists rules.
    pub nft: Nft,
    /// Where events go.
    pub recorder: Recorder,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Whether new pods are wired by plugins of the user's own, when their folder was read last; `None` until it was read once.
    pub plugins: Option<bool>,
    /// Conditions of the node, without times.
    pub conditions: Vec<Condition>,
}

/// Looks until `stop` is cancelled.
pub async fn run(options: Options, found: watch::Sender<Found>, stop: CancellationToken) {
    stop.run_until_cancelled(keep(options, found)).await;
}

async fn keep(options: Options, found: watch::Sender<Found>) {
    let mut desired = options.desired.clone();
    let mut told = String::new();
    loop {
        let (plugins, managed) = own(options.cni_conf_dir.clone()).await;
        found.send_if_modified(|found| {
            let before = found.clone();
            // A folder that cannot be read, or a file in it, changes nothing.
            found.plugins = plugins.or(found.plugins);
            put(found, managed);
            before != *found
        });
        let now = desired.borrow_and_update().clone();
        let range = now.pod_cidr().parse::<Ipv4Net>().ok();
        // With plugins it is for these to come to terms with a firewall.
        let yields = found.borrow().plugins == Some(true);
        if let Some(range) = range.filter(|_| !yields) {
            let needs = Needs {
                range,
                vxlan: options.vxlan_port.filter(|_| has_others(&now)),
            };
            match firewalls::look(&options.nft, needs).await {
                Ok(message) => {
                    if !message.is_empty() && message != told {
                        tracing::warn!(message, "a firewall drops packets of pods");
                        if let Some(node) = now.node() {
                            let (node, message) = (node_reference(node), message.clone());
                            let recorder = &options.recorder;
                            recorder.record(node, Severity::Warning, FIREWALLED, message);
                        }
                    }
                    let is_so = !message.is_empty();
                    let reason = match is_so {
                        true => "FirewallDropsPods",
                        false => "NoFirewallDropsPods",
                    };
                    told.clone_from(&message);
                    let firewalled = condition(FIREWALLED, is_so, reason, message);
                    found.send_if_modified(|found| {
                        let before = found.clone();
                        put(found, firewalled);
                        before != *found
                    });
                }
                Err(error) => tracing::debug!(%error, "cannot read the machine's rules"),
            }
        }
        // The first look that counts is as soon as the range is known.
        let is_known = range.is_some();
        tokio::select! {
            () = sleep(PERIOD) => {}
            changed = desired.changed(), if !is_known => if changed.is_err() {
                std::future::pending::<()>().await;
            },
        }
    }
}

fn has_others(desired: &Desired) -> bool {
    let mut peers = desired.peers.values();
    peers.any(|peer| peer.address.parse::<Ipv4Addr>().is_ok())
}

/// Whether plugins wire new pods, when that can be read, and the condition that says so.
async fn own(folder: Option<PathBuf>) -> (Option<bool>, Condition) {
    let Some(folder) = folder else {
        let condition = condition(MANAGED, true, "AgentWiresPods", String::new());
        return (Some(false), condition);
    };
    let looked = folder.clone();
    let looked = files::reading(move || Ok(own_network(&looked))).await;
    let folder = folder.display();
    let (plugins, reason, message) = match looked {
        Ok(None) => {
            let message = format!("there is no network configuration in {folder}");
            (Some(false), "AgentWiresPods", message)
        }
        Ok(Some(Ok(file))) => {
            let file = file.display();
            let message = format!(
                "the plugins of {file} wire new pods. So it is for them to check that pods speak with their own addresses only, to make again what others remove, to lead to \
                 pods of other nodes, and to enforce NetworkPolicies. Rules of Services hold, for pods with addresses of the node's range"
            );
            (Some(true), "OwnConfiguration", message)
        }
        Ok(Some(Err(error))) => {
            let message = format!("no new pod is wired: {error}");
            (None, "OwnConfigurationUnusable", message)
        }
        // What cannot be looked at may be there.
        Err(error) => {
            let message = format!("{folder} cannot be read: {error}");
            (None, "OwnConfigurationUnreadable", message)
        }
    };
    // The agent wires no pod either while there may be a configuration.
    let is_managed = plugins == Some(false);
    (plugins, condition(MANAGED, is_managed, reason, message))
}

fn condition(kind: &str, holds: bool, reason: &str, message: String) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        ..Default::default()
    }
}

fn put(found: &mut Found, condition: Condition) {
    let mut there = found.conditions.iter_mut();
    match there.find(|it| it.r#type == condition.r#type) {
        Some(there) => *there = condition,
        None => found.conditions.push(condition),
    }
}

#[cfg(test)]
mod tests;
