//! `snapshot`: a state with a million pods: what a pod takes, and how long restore, restart, snapshot and join are.
//!
//! The pods come out of a backup that is made for it, so that there are as many as wanted without as many containers.

pub(super) mod large;
pub(super) mod waits;

use std::{
    env, fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use barge_client::{backup, v1::record};
use barge_proto::manifest;
use tokio::runtime::Runtime;

use super::{
    report::{Row, milliseconds},
    start_up::first_write,
};
use crate::{
    Managers, cluster::program, eventually_within, managers::said, raw, raw::pss, wait::eventually,
};
use waits::Waits;

const PODS: usize = 1_000_000;
const DEPLOYMENTS: usize = 1_000;
/// Nobody is there to send the heartbeats of 5,000 nodes.
pub(super) const FLAGS: &[&str] = &["--node-grace", "1h"];
/// Caches fill and allocators settle.
const SETTLE: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_secs(5);
const RESTARTS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(300);

/// Restores a cluster with that many pods, and joins a second manager to it.
///
/// # Errors
/// When a step fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let pods = match env::var("BARGE_BENCH_PODS") {
        Ok(number) => number.parse().context("BARGE_BENCH_PODS")?,
        Err(_) => PODS,
    };
    let runtime = Runtime::new()?;
    let mut managers = Managers::prepare(2);
    let (small, large) = (managers.dir().join("small"), managers.dir().join("large"));
    let before = template(&mut managers, &runtime, &small, DEPLOYMENTS, "default")?;
    let key = managers.dir().join("sealing.key");
    fs::copy(managers.data_dir(0).join("sealing.key"), &key)?;
    managers.stop(0);
    fs::remove_dir_all(managers.data_dir(0))?;
    large::write(&small, &large, pods)?;

    let mut rows = Vec::new();
    let begin = Instant::now();
    restore(&managers, &large, &key)?;
    rows.push(seconds("restore of a backup", begin.elapsed()));
    let mut starts = Vec::new();
    for _ in 0..RESTARTS {
        managers.stop(0);
        let begin = Instant::now();
        managers.start(0, FLAGS);
        first_write(&runtime, &managers)?;
        starts.push(begin.elapsed().as_secs_f64());
    }
    rows.push(Row::least("snapshot, restart to a write", "s", &starts));
    thread::sleep(SETTLE);
    let memory = pss(managers.pid(0))?;
    let disk = size(&managers.data_dir(0).join("store/state"))?;
    let a_pod = |megabytes: f64| megabytes * 1e6 / pods as f64;
    rows.push(Row::least("snapshot, leader's memory", "MB", &[memory]));
    rows.push(Row::least(
        "snapshot, memory a pod",
        "bytes",
        &[a_pod(memory - before)],
    ));
    rows.push(Row::least(
        "snapshot, disk a pod",
        "bytes",
        &[disk as f64 / pods as f64],
    ));
    rows.extend(join(&mut managers, &runtime)?);
    rows.push(Row::least(
        "snapshot, follower's memory",
        "MB",
        &[pss(managers.pid(1))?],
    ));
    Ok(rows)
}

/// A cluster with so many Deployments and their templates in a namespace, but without pods, as a backup; answers the manager's
/// memory.
pub(super) fn template(
    managers: &mut Managers,
    runtime: &Runtime,
    to: &Path,
    deployments: usize,
    namespace: &str,
) -> anyhow::Result<f64> {
    managers.start(0, &["--bootstrap"]);
    first_write(runtime, managers)?;
    let channels =
        runtime.block_on(async { raw::channels(&managers.config(), &managers.address(0), 1) })?;
    runtime.block_on(raw::apply(
        channels[0].clone(),
        vec![raw::namespace(namespace, "")],
    ))?;
    let numbers: Vec<_> = (0..deployments).collect();
    for batch in numbers.chunks(100) {
        let batch = batch.iter();
        let yaml: String = batch.map(|number| deployment(*number, namespace)).collect();
        let source = manifest::Source::new("deployments.yaml", yaml);
        let parsed = manifest::parse([source]).map_err(|error| anyhow::anyhow!("{error}"))?;
        let objects = parsed.into_iter().map(|parsed| parsed.object).collect();
        runtime.block_on(raw::apply(channels[0].clone(), objects))?;
    }
    eventually("every Deployment has its template", || {
        let _ = fs::remove_file(to);
        let output = managers.try_barge(&["cluster", "backup", &to.display().to_string()]);
        let mut templates = 0;
        let count = |found| templates += usize::from(matches!(found, record::Record::Revision(_)));
        fs::File::open(to)
            .map_err(|_| said(&output))
            .and_then(|file| backup::read(file, count, drop).map_err(|error| error.to_string()))?;
        match templates == deployments {
            true => Ok(()),
            false => Err(format!("{templates} of them")),
        }
    });
    pss(managers.pid(0))
}

fn deployment(number: usize, namespace: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: service-{number:04}, namespace: {namespace}}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: service-{number:04}}}}}
  template:
    metadata: {{labels: {{app: service-{number:04}}}}}
    spec:
      containers:
      - name: main
        image: 'registry.example.com/team/service-{number:04}:1.0'
        resources: {{requests: {{cpu: 10m, memory: 16Mi}}}}
"
    )
}

/// Makes the first manager one that begins with a backup.
pub(super) fn restore(managers: &Managers, from: &Path, key: &Path) -> anyhow::Result<()> {
    let output = Command::new(program("barge-server"))
        .arg("restore")
        .arg(from)
        .arg("--data-dir")
        .arg(managers.data_dir(0))
        .args(["--advertise", &managers.address(0), "--sealing-key-file"])
        .arg(key)
        .output()?;
    ensure!(output.status.success(), "restore: {}", said(&output));
    Ok(())
}

/// A manager joins, for which the leader takes a snapshot, sends it, and the other installs it; meanwhile somebody writes.
fn join(managers: &mut Managers, runtime: &Runtime) -> anyhow::Result<Vec<Row>> {
    let flags = managers.join_flags(1);
    let flags: Vec<_> = flags
        .iter()
        .map(String::as_str)
        .chain(FLAGS.iter().copied())
        .collect();
    let writer = Waits::start(runtime, &managers.config(), &managers.address(0))?;
    thread::sleep(QUIET);
    let begin = Instant::now();
    managers.start(1, &flags);
    // It votes when it has everything; by itself it would wait for a third manager then.
    eventually_within(DEADLINE, "two voters", || {
        let output = managers.try_barge(&["cluster", "promote", &managers.address(1)]);
        match output.status.success() {
            true => Ok(()),
            false => Err(said(&output)),
        }
    });
    let joined = begin.elapsed();
    let waits = writer.stop(runtime)?;
    let longest = |from: Instant, to: Instant| {
        let between = waits
            .iter()
            .filter(|wait| wait.end >= from && wait.begin < to);
        milliseconds(
            between
                .map(|wait| wait.end - wait.begin)
                .max()
                .unwrap_or_default(),
        )
    };
    let build = said_to_have_taken(&managers.log(0), "took a snapshot")?;
    let install = said_to_have_taken(&managers.log(1), "installed a snapshot")?;
    Ok(vec![
        Row::least("snapshot, build", "ms", &[build]),
        Row::least(
            "snapshot, longest wait",
            "ms",
            &[longest(begin, begin + joined)],
        ),
        Row::least(
            "snapshot, wait before it",
            "ms",
            &[longest(begin - QUIET, begin)],
        ),
        Row::least("snapshot, install", "ms", &[install]),
        seconds("join", joined),
    ])
}

/// What the last line with these words says in `took_ms=…`.
fn said_to_have_taken(log: &str, words: &str) -> anyhow::Result<f64> {
    let line = log.lines().rev().find(|line| line.contains(words));
    let line = line.with_context(|| format!("nobody {words}"))?;
    let (_, number) = line.split_once("took_ms=").context("how long it took")?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

fn seconds(what: &str, duration: Duration) -> Row {
    Row::least(format!("snapshot, {what}"), "s", &[duration.as_secs_f64()])
}

/// The bytes of all files in a folder, those that have several names once.
fn size(folder: &Path) -> anyhow::Result<u64> {
    let output = Command::new("du").arg("-sB1").arg(folder).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bytes = text.split_whitespace().next().context("what du says")?;
    Ok(bytes.parse()?)
}
