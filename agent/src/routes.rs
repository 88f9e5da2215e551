//! Routes to the other nodes' pods, where nodes share a link, and to the Service range.
//!
//! Ours carry a protocol number of their own, so that stale ones are found again and nothing else is touched.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    desired::Desired,
    events::{Recorder, Severity, node_reference},
};

/// The number of our routes ("proto 98" in `ip route`), unused by known programs.
pub const PROTOCOL: u8 = 98;
/// Between tries after a failure, and to notice routes that somebody removed.
const PERIOD: Duration = Duration::from_secs(15);

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
        Via::Loopback => String::new(),
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
    peers.chain(services).collect()
}

/// Keeps the routes until `stop` is cancelled; they stay.
pub async fn run(
    mut desired: watch::Receiver<Arc<Desired>>,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let mut told = String::new();
    loop {
        let now = desired.borrow_and_update().clone();
        // Before a manager or the disk said anything, what is there is better than nothing.
        if now.welcome.is_some() {
            let failure = sync(&wanted(&now)).await.err();
            let message = failure.map(|error| error.to_string()).unwrap_or_default();
            if !message.is_empty() && message != told {
                tracing::error!(message, "routes are not as they should be");
                if let Some(node) = now.node() {
                    let node = node_reference(node);
                    recorder.record(node, Severity::Warning, "FailedRoute", message.clone());
                }
            }
            told = message;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
            changed = desired.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Sets what is missing and removes what is ours and not wanted, in the network namespace of the calling thread. One
/// that fails does not keep the others.
///
/// # Errors
/// The first failure.
pub async fn sync(wanted: &BTreeSet<Route>) -> Result<(), RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Socket)?;
    let connection = tokio::spawn(connection);
    let result = sync_with(&handle, wanted).await;
    drop(handle);
    connection.abort();
    result
}

async fn sync_with(handle: &Handle, wanted: &BTreeSet<Route>) -> Result<(), RouteError> {
    let ours = list(handle).await?;
    let present: BTreeSet<Route> = ours.iter().filter_map(read).collect();
    let mut first = Ok(());
    for message in ours {
        let stale = read(&message).is_none_or(|route| !wanted.contains(&route));
        if stale && let Err(error) = handle.route().del(message).execute().await {
            tracing::warn!(%error, "cannot remove a stale route");
        }
    }
    for route in wanted.difference(&present) {
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
    first
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
    let mut via = Via::Loopback;
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
    }
}

#[cfg(test)]
mod tests;
