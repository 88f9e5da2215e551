//! `replicas-60` and `replicas-200`: Deployments on one node and on two, beside as many bare starts with the same CNI plugin.

use std::time::Instant;

use futures::future::try_join_all;

use super::{
    bare::Bare,
    container_start::{chain_id, deployment},
    report::{Row, milliseconds},
};
use crate::{Cluster, eventually};

const RUNS: usize = 3;
/// As many at a time, on all nodes together, as give the bare start its best rate on small machines.
const AT_A_TIME: usize = 8;

/// 60 on one node.
///
/// # Errors
/// When containerd refuses a bare container.
pub fn sixty() -> anyhow::Result<Vec<Row>> {
    measure("replicas-60", 60, 1)
}

/// 200 on two nodes, which take 110 each.
///
/// # Errors
/// When containerd refuses a bare container.
pub fn two_hundred() -> anyhow::Result<Vec<Row>> {
    measure("replicas-200", 200, 2)
}

/// Measures both in turn on one machine.
fn measure(name: &'static str, replicas: usize, agents: usize) -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up(name, 3, agents);
    let agents = cluster.layout().agents;
    let runtime = tokio::runtime::Runtime::new()?;
    // Once, so that the image is there for both.
    cluster.apply(&deployment("warm", agents.len()));
    cluster.barge(&["delete", "deployment", "warm"]);
    let chain_id = chain_id()?;
    let bare = agents.iter().map(|agent| Bare::new(agent, &chain_id));
    let bare = runtime.block_on(try_join_all(bare))?;
    let share = replicas / agents.len();

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let starts = bare
            .iter()
            .map(|bare| bare.start(share, AT_A_TIME / agents.len()));
        let starts = runtime.block_on(try_join_all(starts))?;
        let slowest = starts.iter().map(|(all, _)| *all).fold(0.0, f64::max);
        theirs.push(slowest / 1000.0);
        for bare in &bare {
            runtime.block_on(bare.remove(share))?;
        }

        let name = format!("replicas-{run}");
        let start = Instant::now();
        cluster.apply(&deployment(&name, replicas));
        ours.push(milliseconds(start.elapsed()) / 1000.0);
        cluster.ready_pods(&format!("app={name}"), replicas);
        cluster.barge(&["delete", "deployment", &name]);
        eventually("all containers are gone", || {
            let left = agents
                .iter()
                .map(|agent| cluster.container_pids(agent).len());
            match left.sum() {
                0_usize => Ok(()),
                left => Err(format!("{left} left")),
            }
        });
    }
    Ok(vec![
        Row::least(name, "s", &ours).beside("bare containerd and CNI", &theirs),
    ])
}
