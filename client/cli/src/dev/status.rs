//! `barge dev status`.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    Output,
    folder::{Cluster, Folder, NodePaths},
};

/// Prints the processes of the cluster in a folder.
pub fn run(dir: &Path, output: Output) -> Result<()> {
    let cluster = Folder::load(dir)?.with_context(|| {
        format!("there is no cluster in {}: start one with `barge dev up`, or name its folder with --dir", dir.display())
    })?;
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => serde_json::to_writer_pretty(&mut out, &document(&cluster, dir))?,
        Output::Registry => {
            let mirror = cluster
                .mirror
                .as_deref()
                .context("the cluster was started without a registry")?;
            let address = mirror
                .split_once("://")
                .map_or(mirror, |(_, address)| address);
            write!(out, "{address}")?;
        }
        Output::Table => {
            write!(out, "{:<16} {:>8} {:<8} ADDRESS", "NAME", "PID", "STATE")?;
            for process in &cluster.processes {
                let state = if process.alive() { "running" } else { "ended" };
                let address = address(&cluster, &process.name);
                write!(
                    out,
                    "\n{:<16} {:>8} {state:<8} {address}",
                    process.name, process.pid
                )?;
            }
        }
    }
    writeln!(out)?;
    Ok(())
}

/// Where a process is reached, by its name.
fn address(cluster: &Cluster, name: &str) -> String {
    let number = |prefix: &str| {
        name.strip_prefix(prefix)
            .and_then(|number| number.parse::<u8>().ok())
    };
    if let Some(number) = number("manager-") {
        return cluster.manager(number);
    }
    match number("agent-") {
        Some(number) => cluster.node(number),
        None if name == "registry" => cluster.registry_address(),
        None => String::new(),
    }
}

fn document(cluster: &Cluster, dir: &Path) -> serde_json::Value {
    let pid = |name: &str| {
        cluster
            .processes
            .iter()
            .find(|process| process.name == name)
            .map(|process| process.pid)
    };
    let process =
        |name: String| json!({"pid": pid(&name), "address": address(cluster, &name), "name": name});
    let agents = (1..=cluster.agents).map(|number| {
        let paths = NodePaths::new(dir, number);
        let name = format!("agent-{number}");
        json!({
            "pid": pid(&name), "address": cluster.node(number), "name": name,
            "netns": paths.netns(),
            "containerd_pid": pid(&format!("containerd-{number}")),
            "containerd_socket": paths.socket(),
            "containerd_namespace": cluster.namespace(number),
        })
    });
    json!({
        "managers": (1..=cluster.managers).map(|number| process(format!("manager-{number}"))).collect::<Vec<_>>(),
        "agents": agents.collect::<Vec<_>>(),
        "registry": cluster.registry.then(|| process("registry".to_owned())),
    })
}
