//! Ports on which this machine itself is reached: no Service takes them from it.
//!
//! The rules of Services translate a packet before any process of the machine sees it. A Service on the port of the
//! machine's SSH server, or of a manager beside the agent, would cut that off. Managers refuse such Services where
//! they know of the port; this is what the machine knows.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use ipnet::Ipv4Net;

use super::ports::{HostPorts, Protocol};
use crate::{desired::Desired, dns::LINK_LOCAL};

/// The sockets of the calling thread's network namespace.
const SOCKETS: &str = "/proc/thread-self/net";
/// From here on the kernel chooses the ports of clients by default: who has such a UDP port need not be a server.
const CHOSEN_BY_KERNEL: u16 = 32_768;
/// SSH, whether its server runs right now or not.
const SSH: u16 = 22;

/// What uses a port that nothing is known about but that somebody listens there now.
pub const LISTENS: &str = "a process listens there";

/// The ports that the machine keeps, and those on which something listens for its own processes only.
pub async fn of_machine(
    desired: &Desired,
    vxlan: Option<u16>,
) -> (HostPorts, BTreeSet<(Protocol, u16)>) {
    let mut ports = known(desired);
    ports.extend(vxlan.map(|port| ((Protocol::Udp, port), "VXLAN")));
    let mut loopback = BTreeSet::new();
    let range: Option<Ipv4Net> = desired.service_cidr().parse().ok();
    let of_names = move |address: IpAddr| match address {
        IpAddr::V4(address) => {
            address == LINK_LOCAL || range.is_some_and(|range| range.contains(&address))
        }
        IpAddr::V6(_) => false,
    };
    let look = move || listening(Path::new(SOCKETS), of_names);
    let looked = tokio::task::spawn_blocking(look).await;
    match looked.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(found) => {
            for port in found.outside {
                ports.entry(port).or_insert(LISTENS);
            }
            loopback = found.loopback;
        }
        Err(error) => tracing::warn!(%error, "cannot read who listens on this machine"),
    }
    (ports, loopback)
}

fn known(desired: &Desired) -> HostPorts {
    let managers = desired.welcome.iter().flat_map(|w| &w.manager_addresses);
    let managers = managers
        .filter_map(|address| address.rsplit_once(':')?.1.parse().ok())
        .map(|port: u16| (port, "managers"));
    managers
        .chain([(SSH, "SSH")])
        .flat_map(|(port, holder)| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| ((protocol, port), holder))
        })
        .collect()
}

/// Ports of sockets.
#[derive(Debug, Default)]
struct Listening {
    /// Of those that take what comes for this machine's IPv4 addresses.
    outside: BTreeSet<(Protocol, u16)>,
    /// Of those on loopback, which Services do not touch.
    loopback: BTreeSet<(Protocol, u16)>,
}

/// Without what listens at the addresses of the node's name server, which no Service and no pod takes.
fn listening(folder: &Path, of_names: impl Fn(IpAddr) -> bool) -> io::Result<Listening> {
    let mut ports = Listening::default();
    for (name, protocol) in [
        ("tcp", Protocol::Tcp),
        ("tcp6", Protocol::Tcp),
        ("udp", Protocol::Udp),
        ("udp6", Protocol::Udp),
    ] {
        let file = match File::open(folder.join(name)) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => BufReader::new(file?),
        };
        for line in file.lines().skip(1) {
            let line = line?;
            let Some(socket) = Socket::parse(&line) else {
                continue;
            };
            match protocol {
                // Those that listen come first: what follows are connections, and there may be a million.
                Protocol::Tcp if socket.state != LISTEN => break,
                Protocol::Udp if socket.state != UNCONNECTED => continue,
                Protocol::Udp if socket.port >= CHOSEN_BY_KERNEL => continue,
                _ if of_names(socket.address) => continue,
                _ if socket.takes_outside_ipv4() => ports.outside.insert((protocol, socket.port)),
                _ if socket.address.is_loopback() => ports.loopback.insert((protocol, socket.port)),
                _ => continue,
            };
        }
    }
    Ok(ports)
}

const LISTEN: u8 = 0x0a;
const UNCONNECTED: u8 = 0x07;

/// A line of `/proc/net/tcp` and the like.
struct Socket {
    address: IpAddr,
    port: u16,
    state: u8,
}

impl Socket {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        Some(Self {
            address: parse_address(address)?,
            port: u16::from_str_radix(port, 16).ok()?,
            state: u8::from_str_radix(state, 16).ok()?,
        })
    }

    fn takes_outside_ipv4(&self) -> bool {
        let address = self.address;
        !address.is_loopback() && (address.is_ipv4() || address.is_unspecified())
    }
}

/// Words of 32 bits in hexadecimal, each as it lies in memory.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_listens_for_others_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let write = |name: &str, lines: &[&str]| {
            let lines: Vec<_> = lines
                .iter()
                .map(|line| format!("   0: {line} 00000000:00000000 00:00000000\n"))
                .collect();
            std::fs::write(folder.path().join(name), head.to_owned() + &lines.concat()).unwrap();
        };
        write(
            "tcp",
            &[
                "0100007F:1538 00000000:0000 0A", // 127.0.0.1:5432
                "00000000:0016 00000000:0000 0A", // 0.0.0.0:22
                "010200C0:1BBC 00000000:0000 0A", // 192.0.2.1:7100
                "0A14FEA9:0035 00000000:0000 0A", // 169.254.20.10:53
                "010200C0:0016 020200C0:9C40 01", // a connection
                "00000000:0050 00000000:0000 0A", // not looked at
            ],
        );
        write(
            "tcp6",
            &[
                "00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A",
                "00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A",
                "0000000000000000FFFF00000100007F:0278 00000000000000000000000000000000:0000 0A",
                "B80D0120000000000000000001000000:0279 00000000000000000000000000000000:0000 0A",
            ],
        );
        write(
            "udp",
            &[
                "010200C0:9C40 020200C0:0035 01",
                "00000000:0044 00000000:0000 07",
                "00000000:9C41 00000000:0000 07",
            ],
        );
        let found =
            listening(folder.path(), |address| address == IpAddr::from(LINK_LOCAL)).unwrap();
        let tcp = [22, 443, 7100].map(|port| (Protocol::Tcp, port));
        let all: BTreeSet<_> = tcp.into_iter().chain([(Protocol::Udp, 68)]).collect();
        assert_eq!(found.outside, all);
        let loopback = [5432, 631, 632].map(|port| (Protocol::Tcp, port));
        assert_eq!(found.loopback, loopback.into());
    }
}
