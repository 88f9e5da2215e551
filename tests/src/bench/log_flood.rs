//! `log-flood`: a container that writes as fast as its output is taken.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{idle_memory::carriers, report::Row};
use crate::{Cluster, eventually, raw::pss};

const ROUNDS: usize = 3;
/// What each round writes, in MiB.
const MEBIBYTES: u64 = 1024;
/// Of the clock that /proc counts processor time with (`getconf CLK_TCK`), on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A pod that writes lines of 64 bytes and ends.
fn flood(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, \"busybox yes 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde | busybox head -c {MEBIBYTES}m\"]
"
    )
}

/// Lets a container write, and takes the time until it has ended, the carrier's processor time and its memory while it writes.
///
/// # Errors
/// When the carrier is gone, or the container fails.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("log-flood", 1, 1);
    let (mut rates, mut shares, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let carrier = carriers(cluster.dir().to_str().context("a plain path")?)?;
        let [carrier] = carrier[..] else {
            anyhow::bail!("one carrier was expected: {carrier:?}");
        };
        let name = format!("flood-{round}");
        let (begun, before) = (Instant::now(), processor_seconds(carrier)?);
        cluster.apply(&flood(&name));
        let mut most = 0.0_f64;
        let phase = eventually("the container has written everything", || {
            most = most.max(pss(carrier).map_err(|error| error.to_string())?);
            let pod = cluster.get("pod", &name);
            match pod["status"]["phase"].as_str() {
                Some(phase @ ("Succeeded" | "Failed")) => Ok(phase.to_owned()),
                phase => Err(format!("{phase:?}")),
            }
        });
        ensure!(phase == "Succeeded", "the container failed");
        let took = begun.elapsed().as_secs_f64();
        rates.push(MEBIBYTES as f64 / took);
        shares.push((processor_seconds(carrier)? - before) / took * 100.0);
        memory.push(most);
        cluster.barge(&["delete", "pod", &name]);
        // A disk that still writes what was logged would slow the next round.
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(vec![
        Row::most("log-flood", "MiB/s", &rates),
        Row::least("log-flood carrier", "% of a core", &shares),
        Row::least("log-flood carrier, at most", "MB", &memory),
    ])
}

/// What a process has used of processors, in seconds.
fn processor_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, words) = stat.rsplit_once(") ").context("a process's state")?;
    // proc(5): utime and stime are the 14th and 15th word, of which two precede.
    let ticks = words.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS)
}
