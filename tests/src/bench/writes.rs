//! `writes`: durable writes a second, the same load for Barge and for etcd, both three members with TLS on this machine.

use anyhow::Context;

use super::{
    etcd::{self, Etcd},
    load::{self, CLIENTS, CONNECTIONS, VALUE},
    report::Row,
};
use crate::{Cluster, raw};

/// Measures both, one after the other, for each number of clients.
///
/// # Errors
/// When a write fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    // On this machine's own addresses, as etcd is.
    let cluster = Cluster::up("writes", 3, 0);
    let leader = leader(&cluster)?;
    let barge =
        runtime.block_on(async { raw::channels(cluster.config(), &leader, CONNECTIONS) })?;
    let etcd = Etcd::start()?;
    etcd.wait(&runtime);
    let peers = runtime.block_on(async {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(etcd.connect(0).await?);
        }
        anyhow::Ok(channels)
    })?;

    let mut rows = Vec::new();
    for &clients in CLIENTS {
        let ours = runtime.block_on(load::run(&barge, clients, |channel, key| async move {
            raw::apply(channel, vec![raw::namespace(&key, VALUE)]).await
        }))?;
        let theirs = runtime.block_on(load::run(&peers, clients, |channel, key| async move {
            etcd::put(&channel, key.into_bytes(), "v".repeat(VALUE).into_bytes()).await
        }))?;
        rows.extend(load::rows("writes", "writes/s", clients, &ours, &theirs));
    }
    Ok(rows)
}

/// The leader's address.
fn leader(cluster: &Cluster) -> anyhow::Result<String> {
    let members = cluster.barge(&["cluster", "members"]);
    let managers = cluster.layout().managers;
    let line = members.lines().find(|line| line.contains("leader"));
    managers
        .into_iter()
        .map(|manager| manager.address)
        .find(|address| line.is_some_and(|line| line.contains(address.as_str())))
        .with_context(|| format!("find the leader among\n{members}"))
}
