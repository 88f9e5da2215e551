//! `replicas-60`: a Deployment of 60 on one node, beside 60 bare starts with the same CNI plugin.

use std::time::Instant;

use super::{
    bare::Bare,
    container_start::{chain_id, deployment},
    report::{Row, milliseconds},
};
use crate::{Cluster, eventually};

const REPLICAS: usize = 60;
const RUNS: usize = 3;
/// As many at a time as give the bare start its best rate on small machines.
const AT_A_TIME: usize = 8;

/// Measures both in turn on one machine.
///
/// # Errors
/// When containerd refuses a bare container.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("replicas-60", 3, 1);
    let agent = cluster.layout().agents.remove(0);
    let runtime = tokio::runtime::Runtime::new()?;
    // Once, so that the image is there for both.
    cluster.apply(&deployment("warm", 1));
    cluster.barge(&["delete", "deployment", "warm"]);
    let bare = runtime.block_on(Bare::new(&agent, &chain_id()?))?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let (all, _) = runtime.block_on(bare.start(REPLICAS, AT_A_TIME))?;
        theirs.push(all / 1000.0);
        runtime.block_on(bare.remove(REPLICAS))?;

        let name = format!("replicas-{run}");
        let start = Instant::now();
        cluster.apply(&deployment(&name, REPLICAS));
        ours.push(milliseconds(start.elapsed()) / 1000.0);
        cluster.ready_pods(&format!("app={name}"), REPLICAS);
        cluster.barge(&["delete", "deployment", &name]);
        eventually("all containers are gone", || {
            let left = cluster.container_pids(&agent).len();
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} left"))
            }
        });
    }
    Ok(vec![
        Row::least("replicas-60", "s", &ours).beside("bare containerd and CNI", &theirs),
    ])
}
