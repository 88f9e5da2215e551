//! Routes to the other nodes' pods, where nodes share a link, and to the Service range; and the care for what wires this node's own pods.
//!
//! Ours carry a protocol number of their own, so that stale ones are found again and nothing else is touched.

use std::{collections::BTreeSet, io, net::Ipv4Addr, sync::Arc, time::Duration};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    desired::Desired,
    events::{Recorder, Severity, node_reference},
    runtime::{POD_LINKS, POD_ROUTES, Runtime, RuntimeError},
    services::pace::Pace,
};

mod notices;

use notices::Notices;

/// The number of our routes ("proto 98" in `ip route`), unused by known programs.
pub const PROTOCOL: u8 = 98;
/// Between tries after a failure, and to notice what went without a notice of the kernel, as with an interface that went down.
const PERIOD: Duration = Duration::from_secs(15);
/// From the first notice that something went until it is made again.
const GATHER: Duration = Duration::from_millis(200);
/// So many of the things that were made again are named in an event.
const TOLD: usize = 5;

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Whereto.
    pub to: Ipv4Net,
    /// Through whom.
    pub via: Via,
}

/// The next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// A node on the same link.
    Gateway(Ipv4Addr),
    /// The loopback link: only so that there is a route at all before the destination is translated.
    Loopback,
    /// Nobody: who asks is told that the host is unreachable. More exact routes, and those of a bridge, come before it.
    Nobody,
}

/// Why routes could not be set.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(std::io::Error),
    /// The kernel refused to list them.
    #[error("cannot list routes: {0}")]
    List(rtnetlink::Error),
    /// The kernel refused one.
    #[error("cannot set the route to {to}{}: {source}", through(via))]
    Set {
        /// Whereto.
        to: Ipv4Net,
        /// Through whom.
        via: Via,
        /// What it said.
        source: rtnetlink::Error,
    },
}

fn through(via: &Via) -> String {
    match via {
        Via::Gateway(address) => {
            format!(" through {address} (is that node on the same link as this one?)")
        }
        Via::Loopback | Via::Nobody => String::new(),
    }
}

/// The routes that an assignment wants.
pub fn wanted(desired: &Desired) -> BTreeSet<Route> {
    let peers = desired.peers.values().filter_map(|peer| {
        Some(Route {
            to: peer.pod_cidr.parse::<Ipv4Net>().ok()?.trunc(),
            via: Via::Gateway(peer.address.parse().ok()?),
        })
    });
    let services = desired.service_cidr().parse::<Ipv4Net>().ok();
    let services = services.map(|range| Route {
        to: range.trunc(),
        via: Via::Loopback,
    });
    // What is for an address that no pod has would leave the machine.
    let own = desired.pod_cidr().parse::<Ipv4Net>().ok();
    let own = own.map(|range| Route {
        to: range.trunc(),
        via: Via::Nobody,
    });
    peers.chain(services).chain(own).collect()
}

/// Keeps the routes, and what wires this node's pods, until `stop` is cancelled; they stay.
pub async fn run(
    desired: watch::Receiver<Arc<Desired>>,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let keeper = Keeper {
        runtime,
        recorder,
        set: BTreeSet::new(),
        told: String::new(),
        told_of_pods: String::new(),
        pace: Pace::default(),
    };
    stop.run_until_cancelled(keeper.keep(desired)).await;
}

struct Keeper {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    /// Routes that were there when this looked last.
    set: BTreeSet<Route>,
    /// The failure that was told last; empty when all went well since.
    told: String,
    /// The same of this node's pods.
    told_of_pods: String,
    /// Of making again what others remove.
    pace: Pace,
}

impl Keeper {
    async fn keep(mut self, mut desired: watch::Receiver<Arc<Desired>>) {
        let mut notices = None;
        let mut looks_at_pods = true;
        let mut look_at = Instant::now() + PERIOD;
        // What a disk that hangs holds up is this task, and no route to another node.
        let mut mending: Option<JoinHandle<Result<Vec<String>, RuntimeError>>> = None;
        loop {
            if notices.is_none() {
                // Without notices it is looked every so often.
                let opened = Notices::open();
                notices = opened
                    .inspect_err(|error| tracing::warn!(%error, "the kernel does not tell who removes routes"))
                    .ok();
            }
            let now = desired.borrow_and_update().clone();
            // Before a manager or the disk said anything, what is there is better than nothing.
            if now.welcome.is_some() {
                let (failure, restored) = self.sync(&now).await;
                self.tell(&now, &failure, &restored);
                if looks_at_pods && mending.is_none() {
                    let runtime = self.runtime.clone();
                    mending = Some(tokio::spawn(async move { runtime.mend_network().await }));
                }
            }
            looks_at_pods = tokio::select! {
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + PERIOD;
                    true
                }
                changed = desired.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                mended = ended(&mut mending) => {
                    mending = None;
                    self.tell_mended(&now, mended);
                    false
                }
                removed = removed(&mut notices) => {
                    if removed.is_err() {
                        notices = None;
                    }
                    // What goes together is made again together, and not again and again at once when somebody goes on removing it.
                    sleep(GATHER.max(self.pace.wait(Instant::now()))).await;
                    true
                }
            };
        }
    }

    /// Answers what failed, and which routes were there before and had to be set again.
    async fn sync(&mut self, now: &Desired) -> (String, Vec<String>) {
        let wanted = wanted(now);
        match sync(&wanted).await {
            Ok(missing) => {
                let restored = missing.intersection(&self.set);
                let restored = restored.map(|route| format!("the route to {}", route.to));
                let restored = restored.collect();
                self.set = wanted;
                (String::new(), restored)
            }
            Err(error) => {
                self.set.clear();
                (error.to_string(), Vec::new())
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

    fn tell(&mut self, now: &Desired, failure: &str, restored: &[String]) {
        if !failure.is_empty() && failure != self.told {
            tracing::error!(message = failure, "routes are not as they should be");
            self.event(now, "FailedRoute", failure.to_owned());
        }
        self.told = failure.to_owned();
        self.tell_restored(now, restored);
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
            "something on this machine removed what connects pods, and the agent made it again: {}{more}. Have other programs leave \
             interfaces that begin with {POD_LINKS} and routes with proto {PROTOCOL} and {POD_ROUTES} alone",
            first.join(", ")
        );
        tracing::warn!(message, "the pod network was changed by others");
        self.event(now, "PodNetworkRestored", message);
    }
}

/// What a task answers; never without one.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Returns when something may have gone; never without notices.
async fn removed(notices: &mut Option<Notices>) -> io::Result<()> {
    match notices {
        Some(notices) => notices.removed().await,
        None => std::future::pending().await,
    }
}

/// Sets what is missing and removes what is ours and not wanted, in the network namespace of the calling thread. One
/// that fails does not keep the others. Answers those that were missing.
///
/// # Errors
/// The first failure.
pub async fn sync(wanted: &BTreeSet<Route>) -> Result<BTreeSet<Route>, RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
    let connection = tokio::spawn(connection);
    let result = sync_with(&handle, wanted).await;
    drop(handle);
    connection.abort();
    result
}

async fn sync_with(
    handle: &Handle,
    wanted: &BTreeSet<Route>,
) -> Result<BTreeSet<Route>, RouteError> {
    let ours = list(handle).await?;
    let present: BTreeSet<Route> = ours.iter().filter_map(read).collect();
    let mut first = Ok(());
    for message in ours {
        let stale = read(&message).is_none_or(|route| !wanted.contains(&route));
        if stale && let Err(error) = handle.route().del(message).execute().await {
            tracing::warn!(%error, "cannot remove a stale route");
        }
    }
    let missing: BTreeSet<Route> = wanted.difference(&present).cloned().collect();
    for route in &missing {
        let added = handle.route().add(message(route)).execute().await;
        if let Err(source) = added
            && first.is_ok()
        {
            first = Err(RouteError::Set {
                to: route.to,
                via: route.via,
                source,
            });
        }
    }
    first.map(|()| missing)
}

async fn list(handle: &Handle) -> Result<Vec<RouteMessage>, RouteError> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes = handle.route().get(all).execute();
    routes
        .try_filter(|route| {
            let ours = route.header.protocol == RouteProtocol::Other(PROTOCOL)
                && route.header.address_family == AddressFamily::Inet;
            std::future::ready(ours)
        })
        .try_collect()
        .await
        .map_err(RouteError::List)
}

fn read(message: &RouteMessage) -> Option<Route> {
    let mut to = None;
    let mut via = match message.header.kind {
        RouteType::Unreachable => Via::Nobody,
        _ => Via::Loopback,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                to = Ipv4Net::new(*address, message.header.destination_prefix_length).ok();
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Via::Gateway(*address),
            _ => {}
        }
    }
    Some(Route { to: to?, via })
}

/// The loopback link has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// Of routes to nobody: all others are preferred.
const LAST: u32 = u32::MAX;

fn message(route: &Route) -> RouteMessage {
    let builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .protocol(RouteProtocol::Other(PROTOCOL))
        .destination_prefix(route.to.network(), route.to.prefix_len());
    match route.via {
        Via::Gateway(address) => builder.gateway(address).build(),
        Via::Loopback => builder
            .output_interface(LOOPBACK)
            .scope(RouteScope::Link)
            .build(),
        Via::Nobody => builder.kind(RouteType::Unreachable).priority(LAST).build(),
    }
}

#[cfg(test)]
mod tests;
