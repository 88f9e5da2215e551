//! The node's address: the one at which other machines reach this one. Peers route pods' traffic to it, and LoadBalancer Services answer there.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use futures::TryStreamExt;
use rtnetlink::packet_route::{AddressFamily, address::AddressAttribute};
use tokio::{
    net::{ToSocketAddrs, UdpSocket},
    time::timeout,
};

use crate::routes::DEVICE;

/// For the name of a manager to be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Reserved for documentation (RFC 5737, TEST-NET-3), so it is reached by the default route. Nothing is sent there.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 1), 9);

/// Why this machine has no address that could be the node's.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The one that was given cannot be it.
    #[error(
        "--node-ip {given} (node_ip in the configuration file) {why}; {}",
        choice(machine)
    )]
    Given {
        /// As it was given.
        given: IpAddr,
        /// What is wrong with it.
        why: &'static str,
        /// The machine's addresses.
        machine: BTreeSet<Ipv4Addr>,
    },
    /// None was given, and none can be found out.
    #[error(
        "cannot find out at which address other machines reach this one: no manager is reached from an address other than a loopback one, and there is no default route; {}",
        choice(.0)
    )]
    Unclear(BTreeSet<Ipv4Addr>),
    /// The kernel does not say.
    #[error("cannot list this machine's addresses: {0}")]
    List(String),
    /// A socket cannot be used.
    #[error("cannot find out this machine's address: {0}")]
    Socket(#[from] io::Error),
}

fn choice(machine: &BTreeSet<Ipv4Addr>) -> String {
    match machine.is_empty() {
        true => "this machine has none but loopback addresses: connect it to a network".to_owned(),
        false => {
            let all: Vec<_> = machine.iter().map(ToString::to_string).collect();
            format!("give --node-ip one of {}", all.join(", "))
        }
    }
}

/// What is known of the address on a machine that is a node already.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// The one that the node had last, if that is still known.
    pub last: Option<Ipv4Addr>,
}

/// The address of this node: the one given; otherwise the one that it had `before`, while the machine still has it; otherwise the one from which this
/// machine reaches the first manager that is not on a loopback address; otherwise the one from which it reaches everything else, by its default
/// route. `managers` are `host:port`.
///
/// On a machine that is a node already no address is an error as long as there is another way: its containers need an agent, and its link may come
/// up later. The address that the node had last stands in, without one the address that is given, without either the one that is found out.
///
/// # Errors
/// See [`AddressError`].
pub async fn own_address(
    given: Option<IpAddr>,
    before: Option<Before>,
    managers: &[String],
) -> Result<Ipv4Addr, AddressError> {
    let last = before.and_then(|before| before.last);
    let error = match choose(given, last, managers).await {
        Ok(address) => return Ok(address),
        Err(error) if before.is_none() => return Err(error),
        Err(error) => error,
    };
    let later = match given {
        Some(IpAddr::V4(address)) if !address.is_loopback() => Some(address),
        _ => None,
    };
    let address = match (last.or(later), &error) {
        (Some(address), _) => address,
        (None, AddressError::Given { .. }) => choose(None, None, managers).await?,
        (None, _) => return Err(error),
    };
    tracing::warn!(%error, %address, "the node starts with another address");
    Ok(address)
}

async fn choose(
    given: Option<IpAddr>,
    last: Option<Ipv4Addr>,
    managers: &[String],
) -> Result<Ipv4Addr, AddressError> {
    let machine = of_machine().await?;
    if let Some(given) = given {
        return match check(given, &machine) {
            Ok(address) => Ok(address),
            Err(why) => Err(AddressError::Given {
                given,
                why,
                machine,
            }),
        };
    }
    if let Some(last) = last.filter(|last| machine.contains(last)) {
        return Ok(last);
    }
    for manager in managers {
        let found = timeout(LOOK_UP, source(manager.as_str())).await;
        match found {
            Ok(Ok(Some(address))) => return Ok(address),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => tracing::warn!(manager, "its name cannot be looked up in time"),
        }
    }
    match source(ELSEWHERE).await? {
        Some(address) => Ok(address),
        None => Err(AddressError::Unclear(machine)),
    }
}

fn check(given: IpAddr, machine: &BTreeSet<Ipv4Addr>) -> Result<Ipv4Addr, &'static str> {
    match given {
        IpAddr::V6(_) => Err("is of IPv6, which nodes do not use"),
        IpAddr::V4(address) if address.is_loopback() => {
            Err("is a loopback address, at which each machine reaches itself")
        }
        IpAddr::V4(address) if !machine.contains(&address) => Err("is no address of this machine"),
        IpAddr::V4(address) => Ok(address),
    }
}

/// The address from which this machine reaches another one; `None` when there is no route, or only one to itself. Nothing is sent: a datagram socket
/// that is connected has its local address from the routes.
async fn source(to: impl ToSocketAddrs) -> io::Result<Option<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    if socket.connect(to).await.is_err() {
        return Ok(None);
    }
    Ok(match socket.local_addr()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    })
}

/// The machine's own addresses of IPv4, but those of loopback and the one that it has for pods of other nodes.
async fn of_machine() -> Result<BTreeSet<Ipv4Addr>, AddressError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let all: Result<Vec<_>, _> = handle.address().get().execute().try_collect().await;
    connection.abort();
    let all = all.map_err(|error| AddressError::List(error.to_string()))?;
    let of_pods = AddressAttribute::Label(DEVICE.to_owned());
    let ipv4 = all
        .iter()
        .filter(|it| it.header.family == AddressFamily::Inet && !it.attributes.contains(&of_pods));
    let addresses = ipv4.flat_map(|it| &it.attributes);
    let local = addresses.filter_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    });
    Ok(local.filter(|address| !address.is_loopback()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::netns::Space;

    const LOOPBACK: &str = "127.0.0.1:7100";

    /// On two networks, the second of which leads to everything else.
    fn machine() -> Space {
        let space = Space::new();
        space.bridge("first", "192.0.2.1/24");
        space.bridge("second", "198.51.100.1/24");
        space.ip("route add default via 198.51.100.254");
        space
    }

    fn find(space: &Space, given: Option<&str>, managers: &[&str]) -> Result<Ipv4Addr, String> {
        find_again(space, given, None, managers)
    }

    /// On a machine that is a node and had this address.
    fn find_again(
        space: &Space,
        given: Option<&str>,
        before: Option<&str>,
        managers: &[&str],
    ) -> Result<Ipv4Addr, String> {
        let given = given.map(|address| address.parse().unwrap());
        let before = before.map(|address| Before {
            last: address.parse().ok(),
        });
        let managers: Vec<_> = managers.iter().map(|it| (*it).to_owned()).collect();
        let found = space.block_on(async move { own_address(given, before, &managers).await });
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn a_manager_on_a_loopback_address_does_not_make_it_the_node_s() {
        let space = machine();
        let default = "198.51.100.1".parse();
        assert_eq!(find(&space, None, &[LOOPBACK]).ok(), default.clone().ok());
        assert_eq!(find(&space, None, &["localhost:7100"]).ok(), default.ok());
        let other: Ipv4Addr = "192.0.2.1".parse().unwrap();
        assert_eq!(find(&space, None, &[LOOPBACK, "192.0.2.7:7100"]), Ok(other));
        // A manager beside the agent, at an address that others reach, too.
        assert_eq!(find(&space, None, &["192.0.2.1:7100"]), Ok(other));
        space.ip("route delete default");
        let refused = find(&space, None, &[LOOPBACK]).unwrap_err();
        assert!(
            refused.contains("--node-ip one of 192.0.2.1, 198.51.100.1"),
            "{refused}"
        );
    }

    #[test]
    fn what_is_given_is_an_address_of_this_machine() {
        let space = machine();
        let given = find(&space, Some("192.0.2.1"), &[LOOPBACK]);
        assert_eq!(given, Ok("192.0.2.1".parse().unwrap()));
        for (wrong, why) in [
            ("192.0.2.2", "no address of this machine"),
            ("192.0.2.255", "no address of this machine"),
            ("0.0.0.0", "no address of this machine"),
            ("127.0.0.1", "loopback"),
            ("2001:db8::1", "IPv6"),
        ] {
            let refused = find(&space, Some(wrong), &[]).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(refused.contains("one of 192.0.2.1"), "{refused}");
        }
        let alone = find(&Space::new(), None, &[LOOPBACK]).unwrap_err();
        assert!(alone.contains("connect it to a network"), "{alone}");
    }

    #[test]
    fn a_node_starts_without_the_address_that_is_given() {
        let space = machine();
        let first: Ipv4Addr = "192.0.2.1".parse().unwrap();
        for wrong in ["192.0.2.2", "127.0.0.1", "2001:db8::1"] {
            let found = find_again(&space, Some(wrong), Some("192.0.2.1"), &[]);
            assert_eq!(found, Ok(first), "{wrong}");
        }
        // Its link is down.
        let down = "192.0.2.9".parse().unwrap();
        let found = find_again(&space, Some("192.0.2.9"), Some("192.0.2.9"), &[LOOPBACK]);
        assert_eq!(found, Ok(down));
        // The node lost its last assignment.
        let found = find_again(&space, Some("192.0.2.9"), Some("none"), &[LOOPBACK]);
        assert_eq!(found, Ok(down));
        let found = find_again(&space, Some("127.0.0.1"), Some("none"), &[LOOPBACK]);
        assert_eq!(found, Ok("198.51.100.1".parse().unwrap()));
    }

    #[test]
    fn a_node_keeps_the_address_that_it_had() {
        let space = machine();
        let first: Ipv4Addr = "192.0.2.1".parse().unwrap();
        // The default route leads elsewhere.
        let kept = find_again(&space, None, Some("192.0.2.1"), &[LOOPBACK]);
        assert_eq!(kept, Ok(first));
        let moved = find_again(&space, None, Some("192.0.2.9"), &[LOOPBACK]);
        assert_eq!(moved, Ok("198.51.100.1".parse().unwrap()));
        let given = find_again(&space, Some("198.51.100.1"), Some("192.0.2.1"), &[LOOPBACK]);
        assert_eq!(given, Ok("198.51.100.1".parse().unwrap()));
        space.ip("route delete default");
        let none = find_again(&space, None, Some("192.0.2.9"), &[LOOPBACK]);
        assert_eq!(none, Ok("192.0.2.9".parse().unwrap()));
    }
}
