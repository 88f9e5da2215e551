//! The name server of this node: a process of its own, apart from control and carrier.
//!
//! It answers for the cluster's domain from a file that control writes ([`names`]), and asks the node's own name servers for the rest ([`forward`]). It keeps what it read
//! last, so it answers while control and the managers are away.
//!
//! Control keeps the process running and the addresses on the loopback interface ([`keeper`]), writes the file ([`publish`]), and says whether new
//! pods can be sent here ([`Resolver`]).

use std::{net::Ipv4Addr, path::PathBuf};

pub(crate) mod addresses;
mod answer;
mod forward;
pub mod keeper;
mod names;
pub mod publish;
mod server;
mod watches;
mod zone;

pub use forward::upstreams::RESOLVED;
pub use server::run;

/// The domain of all names of the cluster.
pub const DOMAIN: &str = "cluster.local";
/// Where each node answers, whatever Services there are. On no link: only this machine has it.
pub const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
/// Namespace and name of the Service at whose address nodes answer.
const SERVICE: (&str, &str) = ("kube-system", "kube-dns");
/// Bytes of a datagram that no link has to divide.
const LARGEST_DATAGRAM: u16 = 1232;

/// What the process is started with.
#[derive(Debug, Clone)]
pub struct Args {
    /// The agent's data folder.
    pub data_dir: PathBuf,
    /// While another one runs for this folder: wait, and take over when it ends. Otherwise this one ends at once.
    pub standby: bool,
}

/// Where new pods are sent for names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resolver {
    /// This agent has no name server: pods are sent where the node asks.
    #[default]
    Absent,
    /// It has one, which does not answer.
    Silent,
    /// It answers here.
    At(Ipv4Addr),
}
