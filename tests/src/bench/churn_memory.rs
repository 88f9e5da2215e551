//! `churn-memory`: what managers hold after many objects have come and gone.

use std::{env, thread, time::Duration};

use anyhow::Context;

use super::report::Row;
use crate::{Cluster, eventually, raw::pss};

/// Unless `$BARGE_BENCH_ROUNDS` says otherwise. One takes about three seconds.
const ROUNDS: u64 = 1_000;
/// Seconds in which nothing happens afterwards, unless `$BARGE_BENCH_QUIET` says otherwise.
const QUIET: u64 = 600;
const APPS: [&str; 3] = ["one", "two", "three"];

/// Applies three small Deployments, rolls them, scales them and deletes them, with real pods on one machine, again and again; then
/// nothing happens for ten minutes.
///
/// # Errors
/// When a manager is gone.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let (rounds, quiet) = (
        number("BARGE_BENCH_ROUNDS", ROUNDS)?,
        number("BARGE_BENCH_QUIET", QUIET)?,
    );
    let cluster = Cluster::up("churn-memory", 3, 1);
    round(&cluster);
    let before = memory(&cluster)?;
    for done in 0..rounds {
        if done % 100 == 0 {
            eprintln!("churn-memory: {done} rounds, {:.1?} MB", memory(&cluster)?);
        }
        round(&cluster);
    }
    let after = memory(&cluster)?;
    // Time is the point: what is kept for a while goes.
    thread::sleep(Duration::from_secs(quiet));
    Ok(vec![
        Row::least("churn-memory, after one round", "MB", &before),
        Row::least(format!("churn-memory, after {rounds}"), "MB", &after),
        Row::least("churn-memory", "MB", &memory(&cluster)?),
    ])
}

fn number(name: &str, usual: u64) -> anyhow::Result<u64> {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("read ${name}, which is {text:?}")),
        Err(_) => Ok(usual),
    }
}

/// Of each manager.
fn memory(cluster: &Cluster) -> anyhow::Result<Vec<f64>> {
    let managers = cluster.layout().managers;
    managers.iter().map(|manager| pss(manager.pid)).collect()
}

fn round(cluster: &Cluster) {
    cluster.apply(&deployments("1.0"));
    cluster.apply(&deployments("2.0"));
    for app in APPS {
        cluster.barge(&["scale", &format!("deployment/{app}"), "--replicas", "2"]);
    }
    cluster.ready_pods("round=yes", 2 * APPS.len());
    cluster.barge(&[&["delete", "deployment"], &APPS[..]].concat());
    eventually("all pods are gone", || {
        match cluster.list("pods", "round=yes").len() {
            0 => Ok(()),
            left => Err(format!("{left} pods")),
        }
    });
}

fn deployments(version: &str) -> String {
    let one = |app: &&str| {
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {app}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {app}}}}}
  template:
    metadata: {{labels: {{app: {app}, round: 'yes'}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:{version}
        command: [sh, -c, 'trap \"exit 0\" TERM; busybox sleep 1000000 & wait']
"
        )
    };
    APPS.iter().map(one).collect::<Vec<_>>().join("---\n")
}
