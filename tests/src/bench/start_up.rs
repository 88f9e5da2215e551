//! `start-up`: from the start of a manager's process to the first write that it acknowledges.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::runtime::Runtime;

use super::{
    etcd::{self, Etcd},
    load::VALUE,
    report::{Row, milliseconds},
};
use crate::{Managers, raw};

const RUNS: usize = 5;
/// What there is to load at a restart, of 1 KiB each.
const OBJECTS: usize = 10_000;
/// Objects in one request.
const BATCH: usize = 100;
const PEER: &str = "etcd 3.4, one member";
const POLL: Duration = Duration::from_millis(2);
const ATTEMPT: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(60);
static NAMES: AtomicU64 = AtomicU64::new(0);

/// Makes a new cluster of one manager each time, and starts the last one again and again.
///
/// # Errors
/// When one does not come up within a minute.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let (new, again) = managers(&runtime)?;
    let (their_new, their_again) = peers(&runtime)?;
    Ok(vec![
        Row::least("start-up, new cluster", "ms", &new).beside(PEER, &their_new),
        Row::least(format!("start-up, {OBJECTS} objects"), "ms", &again).beside(PEER, &their_again),
    ])
}

fn managers(runtime: &Runtime) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut new, mut again) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..RUNS {
        drop(last.take());
        let mut managers = Managers::prepare(1);
        new.push(timed(|| {
            managers.start(0, &["--bootstrap"]);
            first_write(runtime, &managers)
        })?);
        last = Some(managers);
    }
    let mut managers = last.context("there was a run")?;
    let channel =
        runtime.block_on(async { raw::channels(&managers.config(), &managers.address(0), 1) })?;
    for batch in 0..OBJECTS / BATCH {
        let names = (0..BATCH).map(|number| format!("n-{batch}-{number}"));
        let objects = names
            .map(|name| raw::namespace(&name, raw::random(VALUE)))
            .collect();
        runtime.block_on(raw::apply(channel[0].clone(), objects))?;
    }
    for _ in 0..RUNS {
        managers.stop(0);
        again.push(timed(|| {
            managers.start(0, &[]);
            first_write(runtime, &managers)
        })?);
    }
    Ok((new, again))
}

fn peers(runtime: &Runtime) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut new, mut again) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..RUNS {
        drop(last.take());
        let mut etcd = Etcd::prepare()?;
        new.push(timed(|| {
            etcd.spawn(0, 1)?;
            first_put(runtime, &etcd)
        })?);
        last = Some(etcd);
    }
    let mut etcd = last.context("there was a run")?;
    runtime.block_on(async {
        let channel = etcd.connect(0).await?;
        for number in 0..OBJECTS {
            let key = format!("n-{number}").into_bytes();
            etcd::put(&channel, key, raw::random(VALUE).into_bytes()).await?;
        }
        anyhow::Ok(())
    })?;
    for _ in 0..RUNS {
        etcd.stop();
        again.push(timed(|| {
            etcd.spawn(0, 1)?;
            first_put(runtime, &etcd)
        })?);
    }
    Ok((new, again))
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(milliseconds(start.elapsed()))
}

/// Writes to the only manager until it acknowledges one. A new connection each time: one that was refused waits before it
/// tries again.
///
/// # Errors
/// When there is none within a minute.
pub fn first_write(runtime: &Runtime, managers: &Managers) -> anyhow::Result<()> {
    poll(|| {
        if !managers.config().exists() {
            bail!("there is no credential yet");
        }
        runtime.block_on(async {
            let channels = raw::channels(&managers.config(), &managers.address(0), 1)?;
            // What is there already is not written again.
            let name = format!("first-{}", NAMES.fetch_add(1, Ordering::Relaxed));
            let write = raw::apply(channels[0].clone(), vec![raw::namespace(&name, "")]);
            tokio::time::timeout(ATTEMPT, write).await??;
            Ok(())
        })
    })
}

fn first_put(runtime: &Runtime, etcd: &Etcd) -> anyhow::Result<()> {
    poll(|| {
        runtime.block_on(async {
            let channel = etcd.connect(0).await?;
            let put = etcd::put(&channel, b"first".to_vec(), Vec::new());
            tokio::time::timeout(ATTEMPT, put).await??;
            Ok(())
        })
    })
}

fn poll(mut attempt: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if start.elapsed() > DEADLINE => return Err(error.context("no write")),
            Err(_) => thread::sleep(POLL),
            Ok(()) => return Ok(()),
        }
    }
}
