//! `writes`: durable writes a second, the same load for Barge and for etcd, both three members with TLS on this machine. Each client
//! waits for the answer to a write before it makes the next. Barge's clients share streams, as the client library offers to programs that
//! write a lot; beside that, each write as a call of its own.

use anyhow::Context;
use barge_client::{
    channel::{ApiChannel, Bearer},
    pipeline::Pipeline,
};

use super::{
    etcd::{self, Etcd},
    load::{self, CONNECTIONS, VALUE},
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
    let streams: Vec<_> = {
        let _runtime = runtime.enter();
        let channels = barge.iter().cloned();
        let streams = channels.map(|channel| ApiChannel::new(channel, Bearer::default()));
        streams.map(Pipeline::new).collect()
    };
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
    for clients in load::clients()? {
        let ours = runtime.block_on(load::run(&streams, clients, |stream, key| async move {
            raw::apply_pipelined(stream, vec![raw::namespace(&key, VALUE)]).await
        }))?;
        let calls = runtime.block_on(load::run(&barge, clients, |channel, key| async move {
            raw::apply(channel, vec![raw::namespace(&key, VALUE)]).await
        }))?;
        let theirs = runtime.block_on(load::run(&peers, clients, |channel, key| async move {
            etcd::put(&channel, key.into_bytes(), "v".repeat(VALUE).into_bytes()).await
        }))?;
        rows.extend(load::rows("writes", "writes/s", clients, &ours, &theirs));
        let name = "writes by calls";
        rows.extend(load::rows(name, "writes/s", clients, &calls, &theirs));
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
