//! `idle-memory`: what managers and agents hold when nothing happens.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::Context;

use super::{container_start::deployment, report::Row};
use crate::{Cluster, raw::pss};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
/// Time is the point: caches fill and allocators settle.
const SETTLED: Duration = Duration::from_secs(60);
/// Pods on the node, from none to as many as fit beside those that go.
const PODS: [usize; 3] = [0, 10, 100];

/// Runs the examples for a minute, then reads the proportional set sizes; then the agent's with 0, 10 and 100 pods.
///
/// # Errors
/// When a process is gone.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let mut rows = with_examples()?;
    rows.extend(by_pods()?);
    Ok(rows)
}

fn with_examples() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("idle-memory", 3, 1);
    cluster.barge(&["apply", "--wait", "-f", EXAMPLES]);
    thread::sleep(SETTLED);
    let layout = cluster.layout();
    let managers = layout
        .managers
        .iter()
        .map(|manager| pss(manager.pid))
        .collect::<Result<Vec<_>, _>>()?;
    let agent = Agent::look(&cluster)?;
    Ok(vec![
        Row::least("idle-memory manager", "MB", &managers),
        Row::least("idle-memory agent", "MB", &[agent.control + agent.carrier]),
        Row::least("idle-memory control", "MB", &[agent.control]),
        Row::least("idle-memory carrier", "MB", &[agent.carrier]),
    ])
}

/// A cluster of its own: memory that many pods took does not all go back when they are gone.
fn by_pods() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("idle-memory-pods", 1, 1);
    let mut rows = Vec::new();
    let mut empty = None;
    for pods in PODS {
        if pods > 0 {
            cluster.apply(&deployment("idle", pods));
            cluster.ready_pods("app=idle", pods);
        }
        thread::sleep(SETTLED);
        let agent = Agent::look(&cluster)?;
        let both = agent.control + agent.carrier;
        let name = format!("idle-memory agent, {pods} pods");
        rows.push(Row::least(name.clone(), "MB", &[both]));
        rows.push(Row::least(
            format!("{name}, resident"),
            "MB",
            &[agent.resident],
        ));
        let empty = *empty.get_or_insert(both);
        if pods > 0 {
            let each = (both - empty) * 1000.0 / pods as f64;
            rows.push(Row::least(format!("{name}, each pod"), "kB", &[each]));
        }
    }
    Ok(rows)
}

/// What the processes of an agent hold, in megabytes.
struct Agent {
    control: f64,
    carrier: f64,
    /// Both, with the pages that they share with others counted in full.
    resident: f64,
}

impl Agent {
    /// The only agent of a cluster.
    fn look(cluster: &Cluster) -> anyhow::Result<Self> {
        let control = cluster.layout().agents[0].pid;
        let carriers = carriers(cluster.dir().to_str().context("a plain path")?)?;
        let all = carriers.iter().chain([&control]);
        Ok(Self {
            control: pss(control)?,
            carrier: carriers
                .iter()
                .map(|pid| pss(*pid))
                .sum::<Result<f64, _>>()?,
            resident: all.map(|pid| resident(*pid)).sum::<Result<f64, _>>()?,
        })
    }
}

/// The resident set size of a process in megabytes.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.context("a process's resident set size")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}

/// The carriers of a cluster in this folder.
pub(super) fn carriers(dir: &str) -> anyhow::Result<Vec<u32>> {
    let output = Command::new("pgrep")
        .args(["-f", &format!("barge-agent carrier .*{dir}")])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect())
}
