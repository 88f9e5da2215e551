//! A node: starting its containerd and its agent, and removing both without a trace.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};

use super::{
    folder::{Cluster, NodePaths},
    process::{self, run},
};

/// containerd for one node: everything below the node's folder, and without the plugins that Barge does not use.
pub fn containerd_config(paths: &NodePaths) -> String {
    let dir = paths.dir.display();
    format!(
        "version = 2
root = \"{dir}/containerd/root\"
state = \"{dir}/containerd/state\"
disabled_plugins = [
  \"io.containerd.grpc.v1.cri\",
  \"io.containerd.snapshotter.v1.aufs\",
  \"io.containerd.snapshotter.v1.btrfs\",
  \"io.containerd.snapshotter.v1.devmapper\",
  \"io.containerd.snapshotter.v1.zfs\",
  \"io.containerd.tracing.processor.v1.otlp\",
  \"io.containerd.internal.v1.tracing\",
]

[grpc]
address = \"{}\"

[plugins.\"io.containerd.internal.v1.opt\"]
path = \"{dir}/containerd/opt\"
",
        paths.socket().display()
    )
}

/// The agent's own configuration: the registry that stands in for docker.io.
pub fn agent_config(cluster: &Cluster) -> String {
    match &cluster.mirror {
        Some(mirror) => format!("[[registry]]\nhost = \"docker.io\"\nmirrors = [\"{mirror}\"]\n"),
        None => String::new(),
    }
}

/// Whether containerd listens.
pub fn answers(paths: &NodePaths) -> bool {
    UnixStream::connect(paths.socket()).is_ok()
}

/// Ends a node's carrier and containers. Its agent has ended before.
pub fn end_containers(cluster: &Cluster, paths: &NodePaths, number: u8) -> Result<()> {
    let data = paths.data().display().to_string();
    let (socket, namespace) = (
        paths.socket().display().to_string(),
        cluster.namespace(number),
    );
    if answers(paths) {
        let ctr = |words: &[&str]| {
            run(
                "ctr",
                &[
                    &["--address", &socket, "--namespace", &namespace][..],
                    words,
                ]
                .concat(),
            )
        };
        for id in ctr(&["tasks", "list", "-q"])?.split_whitespace() {
            // One that has just ended is as good.
            let _ = ctr(&["tasks", "delete", "--force", id]);
        }
        for id in ctr(&["containers", "list", "-q"])?.split_whitespace() {
            ctr(&["containers", "delete", id])?;
        }
    }
    for carrier in process::of_program("barge-agent", &data)? {
        carrier.end()?;
    }
    Ok(())
}

/// Ends what containerd left: shims, and containers that it could not be asked to end.
pub fn end_leftovers(cluster: &Cluster, paths: &NodePaths, number: u8) -> Result<()> {
    let socket = paths.socket().display().to_string();
    for shim in process::of_program("containerd-shim", &socket)? {
        shim.end()?;
    }
    for folder in cgroups(&cluster.cgroup(number))? {
        remove_cgroup(&folder)?;
    }
    match fs::remove_dir_all(Path::new("/run/containerd/runc").join(cluster.namespace(number))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context("remove runc's state")
        }
        _ => Ok(()),
    }
}

/// Unmounts everything below a folder, the last mount first.
pub fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("list mounts")?;
    let points = mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from);
    for point in points.filter(|point| point.starts_with(dir)) {
        umount2(&point, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// The folders of a cgroup: one, or with version 1 one per controller.
fn cgroups(name: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    let mut found = vec![root.join(name)];
    for entry in fs::read_dir(root).context("list cgroups")? {
        found.push(entry.context("list cgroups")?.path().join(name));
    }
    found.retain(|path| path.is_dir());
    Ok(found)
}

/// Kills what is in a cgroup and removes it with all below it.
fn remove_cgroup(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).context("list a cgroup")? {
        let path = entry.context("list a cgroup")?.path();
        if path.is_dir() {
            remove_cgroup(&path)?;
        }
    }
    process::end_all(&folder.join("cgroup.procs"))?;
    fs::remove_dir(folder).with_context(|| format!("remove {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_containerd_keeps_to_its_folder() {
        let config: toml::Table = toml::from_str(&containerd_config(&NodePaths::new(
            Path::new("/tmp/dev"),
            2,
        )))
        .unwrap();
        for key in ["root", "state"] {
            assert!(
                config[key]
                    .as_str()
                    .unwrap()
                    .starts_with("/tmp/dev/agents/2/")
            );
        }
        assert_eq!(
            config["grpc"]["address"].as_str(),
            Some("/tmp/dev/agents/2/containerd.sock")
        );
    }
}
