//! `watch-fanout`: what idle watchers cost, and how many changes a second reach watchers that each look at another namespace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use barge_client::v1::{Kind, Object, ObjectMeta, Service, ServicePort, ServiceSpec, object};
use futures::{StreamExt, TryStreamExt, stream};
use tonic::{Streaming, transport::Channel};

use super::report::Row;
use crate::{
    Cluster,
    raw::{self, pss, watch},
};

const IDLE: usize = 10_000;
const NAMESPACES: usize = 1_000;
/// Objects that one request changes, each in another namespace.
const BATCH: usize = 100;
const WRITERS: usize = 8;
const CONNECTIONS: usize = 8;
const OPENING: usize = 64;
const MEASURED: Duration = Duration::from_secs(5);

/// Measures one manager, which holds all watchers.
///
/// # Errors
/// When a watch ends or a write fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cluster = Cluster::up("watch-fanout", 1, 0);
    let manager = cluster.layout().managers.remove(0);
    let before = pss(manager.pid)?;
    runtime.block_on(async {
        let channels = raw::channels(cluster.config(), &manager.address, CONNECTIONS)?;
        let idle = open(&channels, IDLE, |_| "nobody-writes-here".to_owned()).await?;
        let with_idle = pss(manager.pid)?;
        let each = (with_idle - before) * 1_000_000.0 / IDLE as f64;
        drop(idle);

        for first in (0..NAMESPACES).step_by(BATCH) {
            let batch = (first..first + BATCH).map(|n| raw::namespace(&name(n), ""));
            raw::apply(channels[0].clone(), batch.collect()).await?;
        }
        let rate = fan_out(&channels).await?;
        Ok(vec![
            Row::least("watch-fanout idle", "B/watch", &[each]),
            Row::least("watch-fanout memory", "MB", &[with_idle]),
            Row::most("watch-fanout events", "events/s", &[rate]),
        ])
    })
}

/// Opens so many watches of Services, each of the namespace that its number stands for.
async fn open(
    channels: &[Channel],
    count: usize,
    namespace: impl Fn(usize) -> String,
) -> anyhow::Result<Vec<Streaming<barge_client::v1::WatchResponse>>> {
    let opened = stream::iter(0..count).map(|number| {
        let (channel, namespace) = (channels[number % channels.len()].clone(), namespace(number));
        async move { watch(channel, Kind::Service, &namespace).await }
    });
    Ok(opened.buffer_unordered(OPENING).try_collect().await?)
}

/// Changes a second that reach a watcher each, while writers change an object of every namespace over and over.
async fn fan_out(channels: &[Channel]) -> anyhow::Result<f64> {
    let seen = Arc::new(AtomicU64::new(0));
    let mut watching = tokio::task::JoinSet::new();
    for mut stream in open(channels, NAMESPACES, name).await? {
        let seen = seen.clone();
        watching.spawn(async move {
            loop {
                match stream.message().await {
                    Ok(Some(message)) if message.object.is_some() => {
                        seen.fetch_add(1, Relaxed);
                    }
                    Ok(Some(_)) => {}
                    ended => anyhow::bail!("a watch ended: {ended:?}"),
                }
            }
        });
    }
    let end = Instant::now() + MEASURED;
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let channel = channels[writer % channels.len()].clone();
        writing.spawn(async move {
            for round in 0_usize.. {
                if Instant::now() >= end {
                    break;
                }
                let first = (writer + round * WRITERS) * BATCH % NAMESPACES;
                let batch = (first..first + BATCH).map(|n| service(&name(n), writer, round));
                raw::apply(channel.clone(), batch.collect()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(written) = writing.join_next().await {
        written??;
    }
    let seen = seen.load(Relaxed);
    anyhow::ensure!(seen > 0, "no change reached a watcher");
    if let Some(ended) = watching.try_join_next() {
        ended??;
    }
    Ok(seen as f64 / MEASURED.as_secs_f64())
}

fn name(number: usize) -> String {
    format!("fan-{number}")
}

/// A headless Service of a writer's own, which takes no address and has nothing behind it.
fn service(namespace: &str, writer: usize, round: usize) -> Object {
    let service = Service {
        metadata: Some(ObjectMeta {
            name: format!("s-{writer}"),
            namespace: namespace.to_owned(),
            annotations: [("round".to_owned(), round.to_string())].into(),
            ..ObjectMeta::default()
        }),
        spec: Some(ServiceSpec {
            cluster_ip: "None".to_owned(),
            ports: vec![ServicePort {
                port: 80,
                ..ServicePort::default()
            }],
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Object {
        kind: Some(object::Kind::Service(service)),
    }
}
