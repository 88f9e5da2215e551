//! `writes`: durable writes a second, the same load for Barge and for etcd, both three members with TLS on this machine. Each client
//! waits for the answer to a write before it makes the next. Barge's clients share streams, as the client library offers to programs that
//! write a lot; beside that, each write as a call of its own. What is written is text as manifests have it; beside that, text of which no
//! compression makes much.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::Context;
use barge_client::{
    channel::{ApiChannel, Bearer},
    pipeline::Pipeline,
};
use tokio::runtime::Runtime;

use super::{
    etcd::{self, Etcd},
    load::{self, CONNECTIONS, Load, VALUE},
    report::Row,
};
use crate::{Cluster, raw};

/// So often everything is measured.
const ROUNDS: usize = 3;

/// Measures both for each number of clients.
///
/// # Errors
/// When a write fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let mut rows = Vec::new();
    for clients in load::clients()? {
        let mut all = Measured::default();
        for _ in 0..ROUNDS {
            all.measure(&runtime, clients)?;
        }
        for (name, ours, theirs) in [
            ("writes", &all.streamed, &all.put),
            ("writes by calls", &all.called, &all.put),
            ("writes of random text", &all.random, &all.put_random),
        ] {
            rows.extend(load::rows(name, "writes/s", clients, ours, theirs));
        }
    }
    Ok(rows)
}

/// The loads of all rounds.
#[derive(Default)]
struct Measured {
    streamed: Vec<Load>,
    called: Vec<Load>,
    put: Vec<Load>,
    random: Vec<Load>,
    put_random: Vec<Load>,
}

impl Measured {
    /// A round. Both begin empty, so that it makes no difference what was measured with fewer clients.
    fn measure(&mut self, runtime: &Runtime, clients: usize) -> anyhow::Result<()> {
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
        etcd.wait(runtime);
        let peers = runtime.block_on(async {
            let mut channels = Vec::new();
            for _ in 0..CONNECTIONS {
                channels.push(etcd.connect(0).await?);
            }
            anyhow::Ok(channels)
        })?;

        let streamed = |values: &Values| {
            let values = values.clone();
            runtime.block_on(load::run(&streams, clients, move |stream, key| {
                raw::apply_pipelined(stream, vec![raw::namespace(&key, values.next())])
            }))
        };
        let called = |values: &Values| {
            let values = values.clone();
            runtime.block_on(load::run(&barge, clients, move |channel, key| {
                raw::apply(channel, vec![raw::namespace(&key, values.next())])
            }))
        };
        let put = |values: &Values| {
            let values = values.clone();
            runtime.block_on(load::run(&peers, clients, move |channel, key| {
                let value = values.next().into_bytes();
                async move { etcd::put(&channel, key.into_bytes(), value).await }
            }))
        };

        let manifests = Values::new(|| raw::manifest(VALUE));
        let random = Values::new(|| raw::random(VALUE));
        self.streamed.push(streamed(&manifests)?);
        self.called.push(called(&manifests)?);
        self.put.push(put(&manifests)?);
        self.random.push(streamed(&random)?);
        self.put_random.push(put(&random)?);
        Ok(())
    }
}

/// Values that were made before: making them meanwhile would take processor time from both.
#[derive(Clone)]
struct Values(Arc<(Vec<String>, AtomicUsize)>);

impl Values {
    /// More than fit into an entry of the log or a block of the state.
    const COUNT: usize = 4096;

    fn new(make: impl FnMut() -> String) -> Self {
        let values = std::iter::repeat_with(make).take(Self::COUNT);
        Self(Arc::new((values.collect(), AtomicUsize::new(0))))
    }

    fn next(&self) -> String {
        let (values, next) = &*self.0;
        values[next.fetch_add(1, Ordering::Relaxed) % values.len()].clone()
    }
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
