//! `writes`: durable writes a second, the same load for Barge and for etcd, both three members with TLS on this machine.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use barge_client::{
    channel::{ChannelOptions, channel},
    config::Config,
    tls,
    v1::{ApplyRequest, Namespace, Object, ObjectMeta, api_client::ApiClient, object},
};
use tonic::transport::Channel;

use super::{
    etcd::{self, Etcd},
    report::{Row, median, milliseconds},
};
use crate::Cluster;

const CLIENTS: &[usize] = &[1, 16, 256, 1_000];
const VALUE: usize = 1024;
/// Clients share connections, as a program's threads do.
const CONNECTIONS: usize = 8;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

/// Writes a second, and the latency of each in milliseconds.
struct Load {
    rate: f64,
    latencies: Vec<f64>,
}

/// Measures both, one after the other, for each number of clients.
///
/// # Errors
/// When a write fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    // On this machine's own addresses, as etcd is.
    let cluster = Cluster::up("writes", 3, 0);
    let leader = leader(&cluster)?;
    let barge = runtime.block_on(async { barge_channels(cluster.config(), &leader) })?;
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
        let ours = runtime.block_on(load(&barge, clients, apply))?;
        let theirs = runtime.block_on(load(&peers, clients, |channel, key| async move {
            etcd::put(&channel, key.into_bytes(), value().into_bytes()).await
        }))?;
        let peer = "etcd 3.4, three members";
        rows.push(
            Row::most(
                format!("writes {clients} clients"),
                "writes/s",
                &[ours.rate],
            )
            .beside(peer, &[theirs.rate]),
        );
        rows.push(
            Row::least(
                format!("writes {clients} p50"),
                "ms",
                &[median(&ours.latencies)],
            )
            .beside(peer, &[median(&theirs.latencies)]),
        );
        rows.push(
            Row::least(
                format!("writes {clients} p99"),
                "ms",
                &[p99(&ours.latencies)],
            )
            .beside(peer, &[p99(&theirs.latencies)]),
        );
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

fn barge_channels(config: &Path, address: &str) -> anyhow::Result<Vec<Channel>> {
    let config = Config::load(config)?;
    let identity = config.context(None)?.identity()?;
    let tls = tls::client_config(&identity)?;
    (0..CONNECTIONS)
        .map(|_| channel(address, tls.clone(), &ChannelOptions::default()).context("connect"))
        .collect()
}

async fn apply(channel: Channel, key: String) -> Result<(), tonic::Status> {
    let namespace = Namespace {
        metadata: Some(ObjectMeta {
            name: key,
            annotations: [("value".to_owned(), value())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let object = Object {
        kind: Some(object::Kind::Namespace(namespace)),
    };
    ApiClient::new(channel)
        .apply(ApplyRequest {
            objects: vec![object],
            ..Default::default()
        })
        .await?;
    Ok(())
}

fn value() -> String {
    "v".repeat(VALUE)
}

/// So many clients, each with one write after the other, every write of a key of its own.
async fn load<F, W>(channels: &[Channel], clients: usize, write: F) -> anyhow::Result<Load>
where
    F: Fn(Channel, String) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), tonic::Status>> + Send,
{
    static RUN: AtomicU64 = AtomicU64::new(0);
    let (write, run) = (Arc::new(write), RUN.fetch_add(1, Ordering::Relaxed));
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (channel, write) = (channels[client % channels.len()].clone(), write.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for number in 0_u64.. {
                    let start = Instant::now();
                    if start >= end {
                        break;
                    }
                    write(channel.clone(), format!("w-{run}-{client}-{number}")).await?;
                    if start >= begin {
                        latencies.push(milliseconds(start.elapsed()));
                    }
                }
                Ok::<_, tonic::Status>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Load {
        rate: latencies.len() as f64 / MEASURED.as_secs_f64(),
        latencies,
    })
}

fn p99(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len() * 99 / 100)
        .copied()
        .unwrap_or(f64::NAN)
}
