//! `idle-memory`: what managers and agents hold when nothing happens.

use std::{process::Command, thread, time::Duration};

use anyhow::Context;

use super::report::Row;
use crate::{Cluster, raw::pss};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");

/// Runs the examples for a minute, then reads the proportional set sizes.
///
/// # Errors
/// When a process is gone.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("idle-memory", 3, 1);
    cluster.barge(&["apply", "--wait", "-f", EXAMPLES]);
    // Time is the point: caches fill and allocators settle.
    thread::sleep(Duration::from_secs(60));
    let layout = cluster.layout();
    let managers = layout
        .managers
        .iter()
        .map(|manager| pss(manager.pid))
        .collect::<Result<Vec<_>, _>>()?;
    let control = pss(layout.agents[0].pid)?;
    let carrier = carriers(cluster.dir().to_str().context("a plain path")?)?;
    let carrier: f64 = carrier.into_iter().map(pss).sum::<Result<f64, _>>()?;
    Ok(vec![
        Row::least("idle-memory manager", "MB", &managers),
        Row::least("idle-memory agent", "MB", &[control + carrier]),
        Row::least("idle-memory control", "MB", &[control]),
        Row::least("idle-memory carrier", "MB", &[carrier]),
    ])
}

fn carriers(dir: &str) -> anyhow::Result<Vec<u32>> {
    let output = Command::new("pgrep")
        .args(["-f", &format!("barge-agent carrier .*{dir}")])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect())
}
