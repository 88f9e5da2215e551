//! The cables of routed pods: a pair of interfaces, one in the pod and one in the machine, and a route for the pod's address alone.
//!
//! ```text
//!   pod                                         machine
//!   eth0  10.244.1.5/32 ─────────────────────── bp-0af40105   10.244.1.5/32 → bp-0af40105
//!   default → 169.254.1.1 (ee:ee:ee:ee:ee:ee)   ee:ee:ee:ee:ee:ee
//! ```
//!
//! The pod sends everything to the machine, whose end has the same hardware address for all pods. So nobody has to answer for 169.254.1.1.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::Path,
    thread,
    time::Duration,
};

use futures::TryStreamExt;
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};
use rtnetlink::{
    Error, Handle, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
    },
};
use sha2::{Digest, Sha256};

/// What the names of the machine's ends begin with. Rules go by it.
pub const PREFIX: &str = "bp-";
/// The number of the routes to this machine's pods ("proto 97" in `ip route`), unused by known programs.
pub const PROTOCOL: u8 = 97;
/// The name of the interface in the pod.
const INSIDE: &str = "eth0";
/// Where pods send everything: an address of no machine.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of all ends in the machine.
const MACHINE_END: [u8; 6] = [0xee; 6];
/// The kernel answers at once, unless its lock for networks is held for long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the machine's end for the pod with this address.
pub fn name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{PREFIX}{:08x}", u32::from(address)),
        IpAddr::V6(address) => {
            let digest = Sha256::digest(address.octets());
            let hex: String = digest[..6]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{PREFIX}{hex}")
        }
    }
}

/// What the pod's interface has as its hardware address.
fn pod_end(address: Ipv4Addr) -> Vec<u8> {
    // Locally administered, not multicast.
    [&[0x02, 0xba][..], &address.octets()].concat()
}

/// Makes the cable of a pod whose network namespace is pinned at `netns`, and its route. What is left of one for the same address goes. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn attach(netns: &Path, address: IpAddr, mtu: u32) -> io::Result<()> {
    let IpAddr::V4(address) = address else {
        return Err(io::Error::other("pods have no addresses of IPv6 yet"));
    };
    let inside = File::open(netns)?;
    apart(async move {
        let (machine, _machine) = open()?;
        let name = name(address.into());
        let cable = || {
            let pod = LinkUnspec::new_with_name(INSIDE)
                .address(pod_end(address))
                .mtu(mtu)
                .setns_by_fd(inside.as_raw_fd())
                .build();
            LinkVeth::new(&name, INSIDE)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(pod)))
                .address(MACHINE_END.to_vec())
                .mtu(mtu)
                .up()
                .build()
        };
        match machine.link().add(cable()).execute().await {
            Err(error) if is(&error, Errno::EEXIST) => {
                remove(&machine, &name).await?;
                machine.link().add(cable()).execute().await
            }
            added => added,
        }
        .map_err(|error| failed(&format!("make the interface {name}"), &error))?;
        // What was opened before stays in the machine's namespace.
        setns(&inside, CloneFlags::CLONE_NEWNET)?;
        let (pod, _pod) = open()?;
        furnish(&pod, address)
            .await
            .map_err(|error| failed("set up the pod's interface", &error))?;
        // The route last: from here on the pod is reached.
        let index = index(&machine, &name).await?;
        lead(&machine, address, index).await
    })
}

/// Address, gateway and routes in the pod.
async fn furnish(pod: &Handle, address: Ipv4Addr) -> Result<(), Error> {
    let index = find(pod, INSIDE)
        .await?
        .ok_or(Error::RequestFailed)?
        .header
        .index;
    let up = LinkUnspec::new_with_index(index).up().build();
    pod.link().set(up).execute().await?;
    pod.address()
        .add(index, address.into(), 32)
        .execute()
        .await?;
    pod.neighbours()
        .add(index, GATEWAY.into())
        .link_layer_address(&MACHINE_END)
        .execute()
        .await?;
    let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(GATEWAY, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    pod.route().add(gateway).execute().await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
        .gateway(GATEWAY)
        .build();
    pod.route().add(default).execute().await
}

/// The route to a pod.
async fn lead(machine: &Handle, address: Ipv4Addr, index: u32) -> io::Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .protocol(RouteProtocol::Other(PROTOCOL))
        .destination_prefix(address, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let added = machine.route().add(route).replace().execute().await;
    added.map_err(|error| failed(&format!("set the route to {address}"), &error))
}

/// Removes the cables of these addresses, and their routes with them. That there are none is success. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn detach(addresses: Vec<IpAddr>) -> io::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    apart(async move {
        let (machine, _machine) = open()?;
        for address in addresses {
            remove(&machine, &name(address)).await?;
        }
        Ok(())
    })
}

/// What is missing of the cables and routes to pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Addresses without a cable.
    pub cables: BTreeSet<IpAddr>,
    /// Addresses that had a cable and no route, or whose cable was down. They are reached again.
    pub mended: BTreeSet<IpAddr>,
}

/// Finds out which of these addresses have no cable, and mends what can be mended in the machine alone: the end is up, and the route leads to
/// it. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn mend(addresses: BTreeSet<IpAddr>) -> io::Result<Missing> {
    apart(async move {
        let (machine, _machine) = open()?;
        let ends = ends(&machine).await?;
        let routes = routes(&machine).await?;
        let mut missing = Missing::default();
        for address in addresses {
            let IpAddr::V4(v4) = address else { continue };
            let Some((index, is_up)) = ends.get(&name(address)).copied() else {
                missing.cables.insert(address);
                continue;
            };
            if !is_up {
                let up = LinkUnspec::new_with_index(index).up().build();
                let set = machine.link().set(up).execute().await;
                set.map_err(|error| failed("set the interface of a pod up", &error))?;
            }
            if !is_up || routes.get(&v4) != Some(&index) {
                lead(&machine, v4, index).await?;
                missing.mended.insert(address);
            }
        }
        Ok(missing)
    })
}

/// The machine's ends: index, and whether they are up.
async fn ends(machine: &Handle) -> io::Result<BTreeMap<String, (u32, bool)>> {
    let links = machine.link().get().execute();
    let links: Vec<LinkMessage> = links
        .try_collect()
        .await
        .map_err(|error| failed("list interfaces", &error))?;
    let ends = links.into_iter().filter_map(|link| {
        let name = link_name(&link).filter(|name| name.starts_with(PREFIX))?;
        let is_up = link.header.flags.contains(LinkFlags::Up);
        Some((name.to_owned(), (link.header.index, is_up)))
    });
    Ok(ends.collect())
}

/// Our routes to pods, and the interface each leads to.
async fn routes(machine: &Handle) -> io::Result<BTreeMap<Ipv4Addr, u32>> {
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = machine
        .route()
        .get(all)
        .execute()
        .try_collect()
        .await
        .map_err(|error| failed("list routes", &error))?;
    let ours = routes.into_iter().filter(|route| {
        route.header.protocol == RouteProtocol::Other(PROTOCOL)
            && route.header.address_family == AddressFamily::Inet
    });
    Ok(ours
        .filter_map(|route| {
            let mut to = None;
            let mut index = None;
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
                    RouteAttribute::Oif(oif) => index = Some(*oif),
                    _ => {}
                }
            }
            Some((to?, index?))
        })
        .collect())
}

/// The name of an interface.
pub fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, Error> {
    let mut found = handle.link().get().match_name(name.to_owned()).execute();
    match found.try_next().await {
        Err(error) if is(&error, Errno::ENODEV) => Ok(None),
        found => found,
    }
}

async fn index(handle: &Handle, name: &str) -> io::Result<u32> {
    let found = find(handle, name).await;
    let found = found.map_err(|error| failed(&format!("find the interface {name}"), &error))?;
    let found = found.ok_or_else(|| io::Error::other(format!("the interface {name} is gone")))?;
    Ok(found.header.index)
}

async fn remove(machine: &Handle, name: &str) -> io::Result<()> {
    let failed = |error| failed(&format!("remove the interface {name}"), &error);
    let Some(link) = find(machine, name).await.map_err(failed)? else {
        return Ok(());
    };
    match machine.link().del(link.header.index).execute().await {
        Err(error) if is(&error, Errno::ENODEV) => Ok(()),
        deleted => deleted.map_err(failed),
    }
}

/// Removes a bridge that has no ports. That there is none is success. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn remove_empty_bridge(name: &str) -> io::Result<()> {
    apart(async move {
        let (machine, _machine) = open()?;
        let failed = |error| failed(&format!("look at the bridge {name}"), &error);
        let Some(bridge) = find(&machine, name).await.map_err(failed)? else {
            return Ok(());
        };
        let links = machine.link().get().execute();
        let links: Vec<LinkMessage> = links.try_collect().await.map_err(failed)?;
        let is_port = |link: &LinkMessage| {
            let master = LinkAttribute::Controller(bridge.header.index);
            link.attributes.contains(&master)
        };
        match links.iter().any(is_port) {
            true => Ok(()),
            false => remove(&machine, name).await,
        }
    })
}

/// A connection to the kernel for the namespace that the thread is in, until the guard is dropped.
fn open() -> io::Result<(Handle, Connection)> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    Ok((handle, Connection(tokio::spawn(connection))))
}

struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs something on a thread of its own, which may change its namespace and is good for nothing else afterwards. Blocks.
fn apart<T: Send>(work: impl Future<Output = io::Result<T>> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("pod link".into());
        let done = thread.spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let done = tokio::time::timeout(PATIENCE, work).await;
                done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            })
        })?;
        done.join().unwrap_or_else(|_| {
            Err(io::Error::other(
                "the thread that makes a pod's interface panicked",
            ))
        })
    })
}

fn is(error: &Error, errno: Errno) -> bool {
    matches!(error, Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}

fn failed(what: &str, error: &Error) -> io::Error {
    io::Error::other(format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests;
