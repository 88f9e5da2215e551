//! A load of many clients, each with one request after the other, and what it measured.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;

use super::report::{Row, median, milliseconds};

/// The numbers of clients that are measured, unless `$BARGE_BENCH_CLIENTS` names others ("256" or "1,64").
const CLIENTS: &[usize] = &[1, 16, 256, 1_000];
/// Clients share connections, as a program's threads do.
pub const CONNECTIONS: usize = 8;
/// The size of what is written and read.
pub const VALUE: usize = 1024;
/// Who is measured beside Barge.
pub const PEER: &str = "etcd 3.4, three members";

/// The numbers of clients to measure.
///
/// # Errors
/// When the environment names something else than numbers.
pub fn clients() -> anyhow::Result<Vec<usize>> {
    match std::env::var("BARGE_BENCH_CLIENTS") {
        Ok(named) => named
            .split(',')
            .map(|number| number.trim().parse())
            .collect::<Result<_, _>>()
            .with_context(|| format!("read $BARGE_BENCH_CLIENTS, which is {named:?}")),
        Err(_) => Ok(CLIENTS.to_vec()),
    }
}

const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

/// Requests a second, and the latency of each in milliseconds.
pub struct Load {
    pub rate: f64,
    pub latencies: Vec<f64>,
}

/// So many clients; every request has a key of its own.
///
/// # Errors
/// When a request fails.
pub async fn run<C, F, W>(channels: &[C], clients: usize, request: F) -> anyhow::Result<Load>
where
    C: Clone + Send + 'static,
    F: Fn(C, String) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), tonic::Status>> + Send,
{
    static RUN: AtomicU64 = AtomicU64::new(0);
    let (request, run) = (Arc::new(request), RUN.fetch_add(1, Ordering::Relaxed));
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (channel, request) = (channels[client % channels.len()].clone(), request.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for number in 0_u64.. {
                    let start = Instant::now();
                    if start >= end {
                        break;
                    }
                    request(channel.clone(), format!("w-{run}-{client}-{number}")).await?;
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

/// Rate, median and 99th percentile, ours beside the peer's, of one or more runs.
#[must_use]
pub fn rows(
    name: &str,
    unit: &'static str,
    clients: usize,
    ours: &[Load],
    theirs: &[Load],
) -> [Row; 3] {
    let all = |loads: &[Load], of: fn(&Load) -> f64| loads.iter().map(of).collect::<Vec<_>>();
    let least = |what: &str, of: fn(&Load) -> f64| {
        Row::least(format!("{name} {clients} {what}"), "ms", &all(ours, of))
            .beside(PEER, &all(theirs, of))
    };
    let rate = |load: &Load| load.rate;
    [
        Row::most(format!("{name} {clients} clients"), unit, &all(ours, rate))
            .beside(PEER, &all(theirs, rate)),
        least("p50", |load| median(&load.latencies)),
        least("p99", |load| p99(&load.latencies)),
    ]
}

fn p99(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len() * 99 / 100)
        .copied()
        .unwrap_or(f64::NAN)
}
