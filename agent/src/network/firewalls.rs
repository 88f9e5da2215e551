//! Firewalls that drop what pods send or are sent, by what their rules say: a chain for forwarded or incoming packets that drops what none of its rules
//! takes, and no rule of its table that names pods.
//!
//! Rules of iptables' older kind (`iptables-legacy`) are in no list of the kernel and are not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    process::Stdio,
    time::Duration,
};

use ipnet::Ipv4Net;
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};
use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator},
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};
use tokio::{io::AsyncReadExt, process::Command, task::spawn_blocking, time::timeout};

use crate::{
    runtime::POD_LINKS,
    services::{nft::Nft, script},
};

/// For the kernel to list chains, in seconds.
const PATIENCE: TimeVal = TimeVal::new(10, 0);
/// For `nft` to list a table.
const LIMIT: Duration = Duration::from_secs(10);
/// Of a table, in bytes; a larger one is read so far.
const LARGEST: u64 = 4 << 20;
/// Of `linux/netfilter/nf_tables.h` and `linux/netlink.h`.
const NFTABLES: u16 = 10;
const NEW_CHAIN: u16 = (NFTABLES << 8) | 3;
const GET_CHAIN: u16 = (NFTABLES << 8) | 4;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const DROP: u32 = 0;

/// Where packets meet a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// What is for the machine itself.
    Input,
    /// What the machine forwards.
    Forward,
}

/// A table: its family as `nft` names it, and its name.
type Table = (&'static str, String);

/// A chain that may drop packets of pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suspect {
    table: Table,
    chain: String,
    hook: Hook,
    by: Maker,
}

/// Whose rules they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Maker {
    Docker,
    Ufw,
    Firewalld,
    Unknown,
}

/// What has to pass.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The node's pods.
    pub range: Ipv4Net,
    /// Packets of VXLAN to this UDP port.
    pub vxlan: Option<u16>,
}

/// What firewalls drop, and the way out; empty when there is nothing to tell.
///
/// # Errors
/// What the kernel or `nft` says.
pub async fn look(nft: &Nft, needs: Needs) -> io::Result<String> {
    let found = spawn_blocking(suspects).await.map_err(io::Error::other)??;
    let tables: BTreeSet<_> = found.iter().map(|it| it.table.clone()).collect();
    let mut texts = BTreeMap::new();
    for (family, name) in tables {
        let text = list(nft, family, &name).await?;
        texts.insert((family, name), text);
    }
    let said = found.iter().filter_map(|suspect| {
        let text = texts.get(&suspect.table)?;
        judge(suspect, text, needs)
    });
    Ok(said.collect::<Vec<_>>().join(". "))
}

/// What a suspect drops, when its table's `text` does not let it pass.
fn judge(suspect: &Suspect, text: &str, needs: Needs) -> Option<String> {
    let names_pods = names_pods(text, needs.range);
    let (family, table) = &suspect.table;
    let chain = format!("{family} {table} {}", suspect.chain);
    let what = match suspect.by {
        Maker::Docker => format!("Docker's rules (the chain {chain}) drop"),
        Maker::Ufw => format!("ufw (the chain {chain}) drops"),
        Maker::Firewalld => format!("firewalld (the chain {chain}) rejects"),
        Maker::Unknown => format!("the nftables chain {chain} drops"),
    };
    match suspect.hook {
        Hook::Forward if names_pods => None,
        Hook::Forward => {
            let way_out = match suspect.by {
                Maker::Docker => format!(
                    "iptables -I DOCKER-USER -i {POD_LINKS}+ -j ACCEPT; iptables -I DOCKER-USER -o {POD_LINKS}+ -j ACCEPT"
                ),
                Maker::Ufw => {
                    "ufw route allow from POD_CIDR; ufw route allow to POD_CIDR (the cluster's --pod-cidr)".to_owned()
                }
                Maker::Firewalld => {
                    "firewall-cmd --permanent --zone=trusted --add-source=POD_CIDR (the cluster's --pod-cidr); firewall-cmd --reload".to_owned()
                }
                Maker::Unknown => format!(
                    "nft insert rule {chain} iifname '\"{POD_LINKS}*\"' accept; nft insert rule {chain} oifname '\"{POD_LINKS}*\"' accept"
                ),
            };
            Some(format!(
                "{what} packets that the machine forwards, so pods reach nobody beyond it. Let them pass, at each boot: {way_out}"
            ))
        }
        Hook::Input => {
            let vxlan = needs.vxlan.filter(|port| !text.contains(&port.to_string()));
            let mut ways_out = Vec::new();
            if !names_pods {
                ways_out.push(match suspect.by {
                    Maker::Ufw => "ufw allow from POD_CIDR to any port 53 (the cluster's --pod-cidr)".to_owned(),
                    Maker::Firewalld => {
                        "firewall-cmd --permanent --zone=trusted --add-source=POD_CIDR (the cluster's --pod-cidr)".to_owned()
                    }
                    Maker::Docker | Maker::Unknown => format!(
                        "nft insert rule {chain} iifname '\"{POD_LINKS}*\"' meta l4proto '{{ tcp, udp }}' th dport 53 accept"
                    ),
                });
            }
            if let Some(port) = vxlan {
                ways_out.push(match suspect.by {
                    Maker::Ufw => format!("ufw allow {port}/udp"),
                    Maker::Firewalld => format!("firewall-cmd --permanent --add-port={port}/udp"),
                    Maker::Docker | Maker::Unknown => {
                        format!("nft insert rule {chain} udp dport {port} accept")
                    }
                });
            }
            let dropped = match (names_pods, vxlan) {
                (true, None) => return None,
                (false, None) => "what pods ask the node for names (port 53)".to_owned(),
                (true, Some(port)) => {
                    format!("what nodes that share no link with this one send (UDP port {port})")
                }
                (false, Some(port)) => format!(
                    "what pods ask the node for names (port 53), and what nodes that share no link with this one send (UDP port {port})"
                ),
            };
            let reload = match suspect.by {
                Maker::Firewalld => "; firewall-cmd --reload",
                _ => "",
            };
            let ways_out = ways_out.join("; ");
            Some(format!(
                "{what} {dropped}. Let it pass, at each boot: {ways_out}{reload}"
            ))
        }
    }
}

/// Whether some rule is about pods: by their interfaces, or by a range of addresses with the node's.
fn names_pods(text: &str, range: Ipv4Net) -> bool {
    let is_range = |word: &str| {
        let found = word.parse::<Ipv4Net>();
        found.is_ok_and(|it| it.prefix_len() > 0 && it.contains(&range))
    };
    let mut words = text.split(|it: char| it.is_whitespace() || it == ',');
    text.contains(&format!("\"{POD_LINKS}")) || words.any(is_range)
}

async fn list(nft: &Nft, family: &str, table: &str) -> io::Result<String> {
    let mut child = Command::new(nft.program())
        .args(["-n", "-t", "list", "table", family, table])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.stdout.take();
    let read = async {
        let mut text = Vec::new();
        if let Some(out) = out {
            out.take(LARGEST).read_to_end(&mut text).await?;
        }
        // It writes no more, or more than is read.
        let _ = child.start_kill();
        child.wait().await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    timeout(LIMIT, read)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// Asks the kernel for the chains of others. Blocks.
fn suspects() -> io::Result<Vec<Suspect>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
    // A header, and `struct nfgenmsg` for all families.
    let mut question = [0; 20];
    let mut message = NetlinkBuffer::new(&mut question[..]);
    message.set_length(20);
    message.set_message_type(GET_CHAIN);
    message.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    socket.send(&question, 0)?;
    let (mut all, mut is_done) = (Chains::default(), false);
    while !is_done {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match message.message_type() {
                NEW_CHAIN => all.take(message.payload()),
                ERROR => return Err(io::Error::other("the kernel does not list chains")),
                DONE => is_done = true,
                _ => {}
            }
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    Ok(all.suspects())
}

#[derive(Default)]
struct Chains {
    base: Vec<Suspect>,
    docker: BTreeSet<Table>,
    ufw: BTreeSet<Table>,
}

impl Chains {
    fn take(&mut self, payload: &[u8]) {
        let Some((header, attributes)) = payload.split_at_checked(4) else {
            return;
        };
        let family = match header[0] {
            1 => "inet",
            2 => "ip",
            _ => return,
        };
        let (mut table, mut chain, mut hook, mut policy) =
            (String::new(), String::new(), None, None);
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.trim_end_matches('\0').to_owned()
        };
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            match attribute.kind() {
                CHAIN_TABLE => table = text(attribute.value()),
                CHAIN_NAME => chain = text(attribute.value()),
                CHAIN_POLICY => policy = number(attribute.value()),
                CHAIN_HOOK => {
                    let mut parts = NlasIterator::new(attribute.value()).map_while(Result::ok);
                    let found = parts.find(|it| it.kind() == HOOK_NUMBER);
                    hook = found.and_then(|it| number(it.value()));
                }
                _ => {}
            }
        }
        let is_ours = script::TABLE.split_once(' ') == Some((family, table.as_str()));
        if is_ours {
            return;
        }
        let table = (family, table);
        if chain == "DOCKER-USER" {
            self.docker.insert(table);
            return;
        }
        if chain.starts_with("ufw-") {
            self.ufw.insert(table);
            return;
        }
        let hook = match hook {
            Some(1) => Hook::Input,
            Some(2) => Hook::Forward,
            _ => return,
        };
        // Its chains end with a rule that rejects all.
        let is_firewalld = table.1 == "firewalld" && chain.starts_with("filter_");
        if policy == Some(DROP) || is_firewalld {
            self.base.push(Suspect {
                table,
                chain,
                hook,
                by: Maker::Unknown,
            });
        }
    }

    fn suspects(self) -> Vec<Suspect> {
        let Self { base, docker, ufw } = self;
        let named = base.into_iter().map(|suspect| {
            let by = match suspect.hook {
                _ if suspect.table.1 == "firewalld" => Maker::Firewalld,
                Hook::Forward if docker.contains(&suspect.table) => Maker::Docker,
                _ if ufw.contains(&suspect.table) => Maker::Ufw,
                _ => Maker::Unknown,
            };
            Suspect { by, ..suspect }
        });
        named.collect()
    }
}
