//! `manager-freeze`: how long the leader hears nothing of a living node, whatever stands still or is full between them.

use std::{process::Command, thread, time::Duration};

use anyhow::Context;

use super::{container_start::deployment, report::Row};
use crate::{
    Cluster,
    cluster::name,
    eventually,
    faults::{Stopped, Unread},
    said,
};

/// The leader's, in seconds, since it leads.
const LONGEST: &str = "barge_life_sign_gap_longest_seconds";
const FREEZE: Duration = Duration::from_secs(15);
const LONG_FREEZE: Duration = Duration::from_secs(60);
const READERS: usize = 64;
const REPLICAS: usize = 4;

/// Stops a follower with agents, lets 64 log streams be unread, and stops all managers for a minute.
///
/// # Errors
/// When the leader does not say what it heard.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up_with("manager-freeze", 3, 2, &["--metrics"]);
    cluster.apply(&deployment("steady", REPLICAS));
    let follower = longest_gap(&cluster, || {
        let follower = cluster.follower_with_agents();
        stand_still(&[follower.pid], FREEZE);
    })?;
    let unread = longest_gap(&cluster, || {
        let pod = talkative(&cluster);
        let unread = Unread::new(&cluster, &pod, READERS);
        thread::sleep(FREEZE);
        drop(unread);
        cluster.barge(&["delete", "deployment", "talkative"]);
    })?;
    let replaced = replaced_while_all_stand_still(&cluster);
    Ok(vec![
        Row::least("manager-freeze, a follower", "s", &[follower]),
        Row::least("manager-freeze, 64 unread logs", "s", &[unread]),
        Row::least("manager-freeze, all for a minute", "replaced", &[replaced]),
    ])
}

/// The longest time between two life signs of a node that a new leader sees while `fault` happens.
fn longest_gap(cluster: &Cluster, fault: impl FnOnce()) -> anyhow::Result<f64> {
    // It counts anew.
    cluster.change_leader();
    cluster.wait_until_well();
    fault();
    cluster.wait_until_well();
    let (leader, _) = cluster.leader_and_followers();
    // A manager's metrics are 100 ports above its address.
    let (host, port) = leader.address.rsplit_once(':').context("host:port")?;
    let url = format!("http://{host}:{}/metrics", port.parse::<u16>()? + 100);
    let output = Command::new("curl").args(["-sSf", &url]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = text.lines().find_map(|line| line.strip_prefix(LONGEST));
    let value = value.with_context(|| format!("no {LONGEST} at {url}"))?;
    Ok(value.trim().parse()?)
}

fn replaced_while_all_stand_still(cluster: &Cluster) -> f64 {
    let uids = || {
        let pods = cluster.list("pods", "app=steady");
        let uids = pods.iter().map(|pod| pod["metadata"]["uid"].to_string());
        uids.collect::<Vec<_>>()
    };
    cluster.wait_until_well();
    let before = uids();
    let managers = cluster.layout().managers;
    let pids: Vec<_> = managers.iter().map(|manager| manager.pid).collect();
    stand_still(&pids, LONG_FREEZE);
    cluster.wait_until_well();
    let after = uids();
    before.iter().filter(|uid| !after.contains(uid)).count() as f64
}

/// Stops processes for a time, which is the point.
fn stand_still(pids: &[u32], time: Duration) {
    let stopped = Stopped::new(pids.iter().copied());
    thread::sleep(time);
    drop(stopped);
}

/// The name of a pod whose log is much larger than all buffers on the way.
fn talkative(cluster: &Cluster) -> String {
    let print = "busybox yes 0123456789012345678901234567890123456789 | busybox head -c 20000000; echo; echo the end";
    let manifest = deployment("talkative", 1).replace(
        "        image:",
        &format!(
            "        command: [sh, -c, \"{print}; exec busybox sleep 1000000\"]\n        image:"
        ),
    );
    cluster.apply(&manifest);
    let pod = cluster.ready_pods("app=talkative", 1).remove(0);
    eventually("all of it is in the log", || {
        let last = said(&cluster.try_barge(&["logs", "--tail", "1", name(&pod)]));
        match last.contains("the end") {
            true => Ok(()),
            false => Err(last),
        }
    });
    name(&pod).to_owned()
}
