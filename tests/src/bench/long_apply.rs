//! `long-apply`: a namespace with 100,000 pods is deleted while others write: how long a write waits at most, and whether the leader
//! stays.
//!
//! The pods come out of a backup, bound to machines that are not there (see `snapshot`). So deleting the namespace marks each of them,
//! and they wait for their nodes. Then the machines are deleted, as many at a time as a program sends: each takes its pods along,
//! and the namespace goes with the last.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use barge_client::v1::{DeleteRequest, Kind, api_client::ApiClient};
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::transport::Channel;

use super::{
    report::{Row, milliseconds},
    snapshot::{self, FLAGS, large, waits::Waits},
    start_up::first_write,
};
use crate::{Managers, eventually_within, managers::said, raw};

const PODS: usize = 100_000;
const DEPLOYMENTS: usize = 10;
const NAMESPACE: &str = "load";
const MANAGERS: usize = 3;
/// Nodes that are being deleted at the same time.
const AT_A_TIME: usize = 16;
const DEADLINE: Duration = Duration::from_secs(300);

/// Deletes a namespace with that many pods from three managers.
///
/// # Errors
/// When a step fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let pods = match env::var("BARGE_BENCH_PODS") {
        Ok(number) => number.parse().context("BARGE_BENCH_PODS")?,
        Err(_) => PODS,
    };
    let runtime = Runtime::new()?;
    let mut managers = Managers::prepare(MANAGERS);
    let (small, large) = (managers.dir().join("small"), managers.dir().join("large"));
    snapshot::template(&mut managers, &runtime, &small, DEPLOYMENTS, NAMESPACE)?;
    let key = managers.dir().join("sealing.key");
    fs::copy(managers.data_dir(0).join("sealing.key"), &key)?;
    managers.stop(0);
    fs::remove_dir_all(managers.data_dir(0))?;
    large::write(&small, &large, pods)?;
    snapshot::restore(&managers, &large, &key)?;
    managers.start(0, FLAGS);
    first_write(&runtime, &managers)?;
    for index in 1..MANAGERS {
        let flags = managers.join_flags(index);
        let flags = flags.iter().map(String::as_str);
        let flags: Vec<_> = flags.chain(FLAGS.iter().copied()).collect();
        managers.start(index, &flags);
    }
    managers.wait_for_voters(MANAGERS);

    let term = term(&managers)?;
    let leader = managers.address(managers.leader());
    let writer = Waits::start(&runtime, &managers.config(), &leader)?;
    let begin = Instant::now();
    let channels = runtime.block_on(async { raw::channels(&managers.config(), &leader, 1) })?;
    runtime.block_on(delete(channels[0].clone(), Kind::Namespace, NAMESPACE))?;
    // A Deployment goes when each of its pods is marked.
    let none = |kind: &str| {
        let found = managers.try_barge(&["get", kind, "-n", NAMESPACE, "-o", "name"]);
        match found.status.success() && found.stdout.is_empty() {
            true => Ok(()),
            false => Err(said(&found)),
        }
    };
    eventually_within(DEADLINE, "no Deployments", || none("deployments"));
    let marked = begin.elapsed();
    runtime.block_on(delete_nodes(&managers, &channels[0]))?;
    eventually_within(DEADLINE, "no namespace", || {
        let found = managers.try_barge(&["get", "namespaces", "-o", "name"]);
        let names = String::from_utf8_lossy(&found.stdout).into_owned();
        let is_there = names
            .lines()
            .any(|name| name == format!("namespace/{NAMESPACE}"));
        match found.status.success() && !is_there {
            true => Ok(()),
            false => Err(said(&found)),
        }
    });
    let gone = begin.elapsed();
    let waits = writer.stop(&runtime)?;
    let elections = self::term(&managers)? - term;
    let until = |end: Instant| {
        let before = waits.iter().filter(move |wait| wait.begin < end);
        before.map(|wait| milliseconds(wait.end - wait.begin))
    };
    let all: Vec<_> = until(Instant::now()).collect();
    let longest = all.iter().copied().fold(0.0, f64::max);
    let marking = until(begin + marked).fold(0.0, f64::max);
    Ok(vec![
        Row::least("long-apply, longest wait", "ms", &[longest]),
        Row::least("long-apply, longest wait while marking", "ms", &[marking]),
        Row::least("long-apply, wait", "ms", &all),
        Row::least("long-apply, elections", "", &[elections as f64]),
        Row::least("long-apply, all marked", "s", &[marked.as_secs_f64()]),
        Row::least("long-apply, all gone", "s", &[gone.as_secs_f64()]),
    ])
}

/// The term that `barge cluster status` tells.
fn term(managers: &Managers) -> anyhow::Result<u64> {
    let text = managers.barge(&["cluster", "status"]);
    let (_, rest) = text.split_once("term ").context("no term")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

async fn delete(channel: Channel, kind: Kind, name: &str) -> Result<(), tonic::Status> {
    let request = DeleteRequest {
        kind: kind.into(),
        name: name.to_owned(),
        ..DeleteRequest::default()
    };
    ApiClient::new(channel).delete(request).await.map(drop)
}

async fn delete_nodes(managers: &Managers, channel: &Channel) -> anyhow::Result<()> {
    let names = managers.barge(&["get", "nodes", "-o", "name"]);
    let names = names.lines().filter_map(|line| line.strip_prefix("node/"));
    let mut names = names.map(str::to_owned).collect::<Vec<_>>().into_iter();
    ensure!(names.len() > 0, "no nodes");
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_A_TIME
            && let Some(name) = names.next()
        {
            let channel = channel.clone();
            running.spawn(async move { delete(channel, Kind::Node, &name).await });
        }
        match running.join_next().await {
            Some(done) => done??,
            None => return Ok(()),
        }
    }
}
