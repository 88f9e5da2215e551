//! The nodes' network: a bridge on the host, and per node a namespace with a cable to it.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{folder::Cluster, process::run};

/// How long another `up` may take to choose its network.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Held while a network is chosen and its bridge is made, so that two clusters do not choose the same one. It is an
/// abstract socket: the kernel knows it on the whole machine, and forgets it when its holder dies.
pub fn exclusive() -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name("barge-dev-network")?;
    let begin = Instant::now();
    loop {
        match UnixListener::bind_addr(&name) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error.into()),
            Err(_) if begin.elapsed() > PATIENCE => {
                bail!("another `barge dev up` has been choosing its network for too long")
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// The first three bytes of the network to use: as asked, or the first that no address of this machine is in.
pub fn choose(subnet: Option<&str>) -> Result<String> {
    let addresses = run("ip", &["-o", "-4", "address"])?;
    let taken = |network: &str| addresses.contains(&format!(" {network}."));
    if let Some(subnet) = subnet {
        let network = subnet.strip_suffix(".0/24").filter(|bytes| {
            bytes.split('.').count() == 3 && bytes.split('.').all(|byte| byte.parse::<u8>().is_ok())
        });
        let Some(network) = network else {
            bail!("--subnet {subnet}: a network like 10.213.0.0/24 is expected")
        };
        if taken(network) {
            bail!(
                "--subnet {subnet}: an address of this machine is in it; choose another, or leave the flag out"
            );
        }
        return Ok(network.to_owned());
    }
    let free = (0..=255)
        .map(|third| format!("10.213.{third}"))
        .find(|network| !taken(network));
    free.context("every network of 10.213.0.0/16 is in use: name another with --subnet")
}

/// Makes the bridge, and gives the host an address on it.
pub fn ensure_bridge(cluster: &Cluster) -> Result<()> {
    let bridge = cluster.bridge();
    if !exists(&bridge) {
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
    }
    run(
        "ip",
        &[
            "address",
            "replace",
            &format!("{}/24", cluster.gateway()),
            "dev",
            &bridge,
        ],
    )?;
    run("ip", &["link", "set", &bridge, "up"])?;
    Ok(())
}

/// Makes a node's namespace, pinned to a file, and its cable.
pub fn ensure_node(cluster: &Cluster, number: u8, netns: &Path) -> Result<()> {
    let (link, bridge) = (cluster.link(number), cluster.bridge());
    let file = netns
        .to_str()
        .context("the cluster's folder has a plain name")?;
    if !is_pinned(netns)? {
        fs::File::create(netns).with_context(|| format!("make {file}"))?;
        run("unshare", &[&format!("--net={file}"), "true"])?;
    }
    if !exists(&link) {
        run(
            "ip",
            &[
                "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", file,
            ],
        )?;
    }
    run("ip", &["link", "set", &link, "master", &bridge, "up"])?;
    let address = format!("{}/24", cluster.node(number));
    let gateway = cluster.gateway();
    for words in [
        &["link", "set", "lo", "up"][..],
        &["address", "replace", &address, "dev", "eth0"],
        &["link", "set", "eth0", "up"],
        &["route", "replace", "default", "via", &gateway],
    ] {
        run(
            "nsenter",
            &[&[&format!("--net={file}"), "ip"][..], words].concat(),
        )?;
    }
    Ok(())
}

/// Whether a namespace is mounted there.
fn is_pinned(netns: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("list mounts")?;
    let path = netns.to_string_lossy();
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path.as_ref())))
}

/// Removes a link; the other end of a cable goes with it.
pub fn remove_link(name: &str) -> Result<()> {
    if !exists(name) {
        return Ok(());
    }
    match run("ip", &["link", "delete", name]) {
        // It went with its namespace, which the kernel removes in its own time.
        Err(_) if !exists(name) => Ok(()),
        deleted => deleted.map(drop),
    }
}

fn exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

/// A command that runs on a node's network. `nsenter` becomes the program, so the process id is the program's; unlike
/// `ip netns exec` it leaves /sys alone, which runc needs.
pub fn inside(netns: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", netns.display()))
        .arg("--")
        .arg(program);
    command
}
