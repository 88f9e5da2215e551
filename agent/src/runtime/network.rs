//! The node's network: how pods are wired, and the ranges that their addresses are from.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkMessage},
};
use serde::{Deserialize, Serialize};

use super::{
    Options, RuntimeError,
    cni::{CniError, NetworkConfig, load},
    error::reason,
};
use crate::files;

pub mod addresses;
pub mod links;
pub mod older;

/// Bytes that VXLAN puts before a packet, over IPv4.
pub const VXLAN_OVERHEAD: u32 = 50;
/// The largest packet of most links, when the node's is not known.
const USUAL_MTU: u32 = 1500;
/// Below this IPv6 does not work, and something is wrong.
pub const LEAST_MTU: u32 = 1280;

/// How new pods are wired.
#[derive(Debug, Clone)]
pub enum PodNetwork {
    /// By the agent: see [`links`].
    Routed(Routed),
    /// By plugins, as the user's own configuration says.
    Own(NetworkConfig),
}

/// What routed pods of this node get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// Where their addresses are from, of both families. Those of IPv6 are not given out yet.
    pub ranges: Vec<IpNet>,
    /// The largest packet that they send, in bytes.
    pub mtu: u32,
}

/// [`Routed`] on disk, so that a start needs no manager.
#[derive(Serialize, Deserialize)]
struct Noted {
    ranges: Vec<String>,
    mtu: u32,
}

/// Notes the ranges of pod addresses ("10.244.1.0/24", several are separated by commas), and cares for pods that older agents wired. The node's
/// `address` says which link leads to the other nodes. Safe to repeat.
///
/// # Errors
/// A range that is none, or a disk that does not take the note.
pub async fn ensure(
    options: &Options,
    pod_cidrs: &str,
    address: IpAddr,
) -> Result<(), RuntimeError> {
    let ranges: Vec<String> = pod_cidrs
        .split(',')
        .map(|it| it.trim().to_owned())
        .collect();
    parse(&ranges)?;
    let mtu = match link_mtu(address).await {
        Ok(mtu) => mtu.unwrap_or(USUAL_MTU),
        Err(error) => {
            tracing::warn!(%error, "cannot find out the largest packet of the node's link");
            USUAL_MTU
        }
    };
    // Room for VXLAN at all times: another node may need it tomorrow.
    let mtu = mtu.saturating_sub(VXLAN_OVERHEAD).max(LEAST_MTU);
    let routed = Noted { ranges, mtu };
    let settings = options.clone();
    let written = files::blocking(move || {
        let (folder, reserve) = (settings.paths.cni(), settings.paths.reserve());
        reserve.with(|| std::fs::create_dir_all(&folder))?;
        let (file, bytes) = (noted(&settings), serde_json::to_vec_pretty(&routed)?);
        if files::read_if_there(&file).ok().flatten().as_deref() != Some(&bytes) {
            reserve.write_atomic(&file, &bytes)?;
        }
        // What goes wrong here keeps no pod from starting.
        if let Err(error) = older::care(Path::new("/proc/sys")) {
            tracing::warn!(%error, "pods that an older agent wired with a bridge may not reach new pods of this node");
        }
        Ok(())
    });
    written.await.map_err(|error| {
        let file = noted(options);
        not_ready(format!("cannot write {}: {error}", file.display()))
    })
}

/// How new pods are wired.
pub async fn current(options: &Options) -> Result<PodNetwork, RuntimeError> {
    let options = options.clone();
    let read = files::reading(move || Ok(read(&options))).await;
    read.map_err(|error| not_ready(error.to_string()))?
}

/// The same. Blocks.
pub fn read(options: &Options) -> Result<PodNetwork, RuntimeError> {
    if let Some(own) = own(options) {
        let (_, config) = own.map_err(|error| not_ready(error.to_string()))?;
        return Ok(PodNetwork::Own(config));
    }
    let file = noted(options);
    let bytes = files::read_if_there(&file).map_err(|error| not_ready(error.to_string()))?;
    let bytes =
        bytes.ok_or_else(|| not_ready("the node has no range of pod addresses yet".to_owned()))?;
    let noted: Result<Noted, _> = serde_json::from_slice(&bytes);
    let noted = noted.map_err(|error| not_ready(format!("{}: {error}", file.display())))?;
    Ok(PodNetwork::Routed(Routed {
        ranges: parse(&noted.ranges)?,
        mtu: noted.mtu,
    }))
}

fn parse(ranges: &[String]) -> Result<Vec<IpNet>, RuntimeError> {
    let parse = |range: &String| {
        let parsed = range.parse();
        parsed.map_err(|_| not_ready(format!("the node's pod range \"{range}\" is not one")))
    };
    ranges.iter().map(parse).collect()
}

fn noted(options: &Options) -> PathBuf {
    options.paths.cni().join("routed.json")
}

/// The file of the user's own configuration in this folder, or why it cannot be used; `None` when they have none. Blocks.
pub fn own_network(folder: &Path) -> Option<Result<PathBuf, String>> {
    let found = own_in(folder)?;
    Some(
        found
            .map(|(file, _)| file)
            .map_err(|error| error.to_string()),
    )
}

/// The user's own configuration and its file; `None` when they have none. Blocks.
pub fn own(options: &Options) -> Option<Result<(PathBuf, NetworkConfig), CniError>> {
    own_in(options.cni_conf_dir.as_ref()?)
}

fn own_in(folder: &Path) -> Option<Result<(PathBuf, NetworkConfig), CniError>> {
    match load(folder) {
        Err(CniError::NoConfiguration(_)) => None,
        Err(CniError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        loaded => Some(loaded),
    }
}

/// The largest packet of the link with this address; `None` when there is no such link.
async fn link_mtu(address: IpAddr) -> Result<Option<u32>, rtnetlink::Error> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let looked = async {
        let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
        let local = AddressAttribute::Local(address);
        let Some(found) = addresses.iter().find(|it| it.attributes.contains(&local)) else {
            return Ok(None);
        };
        let mut links = handle
            .link()
            .get()
            .match_index(found.header.index)
            .execute();
        Ok(links.try_next().await?.and_then(|link| mtu_of(&link)))
    };
    let looked = looked.await;
    connection.abort();
    looked
}

/// The largest packet of an interface.
pub fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
}

fn not_ready(message: String) -> RuntimeError {
    RuntimeError::passing(reason::NETWORK_NOT_READY, message)
}
