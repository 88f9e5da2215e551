//! What stands between agents and the leader stops, hangs, dies or is full: no container notices.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use barge_tests::{
    Cluster, Disk, Witness,
    cluster::{Agent, is_ready, kill, name},
    eventually,
    faults::{Frozen, Stopped, Unread},
    said,
    writer::Writer,
};
use serde_json::Value;

#[path = "life/cuts.rs"]
mod cuts;

/// Several times as long as the leader waits for a silent node.
const LONG: Duration = Duration::from_secs(15);
/// So long that every session and connection has ended.
const LONGER: Duration = Duration::from_secs(20);
const STEADY: &str = "app=steady";
/// Clients that read nothing.
const READERS: usize = 64;
/// Managers' data, and the first agent's, that lie on disks of their own.
const DISKS: [&str; 4] = ["managers/1", "managers/2", "managers/3", "agents/1/data"];

type Scenario = (&'static str, fn(&Cluster));

/// One cluster for all of them: each begins when what the one before did is over.
#[test]
fn no_container_notices_what_happens_between_agents_and_managers() {
    let cluster = Cluster::prepare("life");
    let mut disks = Vec::new();
    for (number, folder) in DISKS.iter().enumerate() {
        // More than a manager of a dev cluster wants to have free.
        let mut disk = Disk::new(&cluster.dir().join(format!("{number}.img")), "1G");
        disk.mount(&cluster.dir().join(folder));
        disks.push(disk);
    }
    cluster.form(3, 2, &[]);
    cluster.apply(&deployment("steady", 4, SERVE));
    cluster.ready_pods(STEADY, 4);
    // The first ones take longer than a leader in a new process waits for agents to find one.
    let scenarios: &[Scenario] = &[
        ("a manager with agents is killed", a_manager_is_killed),
        ("an agent stands still for a moment", an_agent_stands_still),
        ("disks hang", disks_hang),
        ("nobody reads 64 log streams", nobody_reads_logs),
        (
            "a follower with agents stands still",
            a_follower_stands_still,
        ),
        ("all managers stand still", all_managers_stand_still),
        ("the leader stands still", the_leader_stands_still),
        (
            "agents are cut off from managers",
            cuts::agents_are_cut_off_from_managers,
        ),
        (
            "a manager is cut off from the others",
            cuts::a_manager_is_cut_off_from_the_others,
        ),
        ("a relay loses packets", cuts::a_relay_loses_packets),
        ("an agent does not read", cuts::an_agent_does_not_read),
        ("an agent's disk is full", cuts::an_agents_disk_is_full),
        ("all managers lose power", cuts::all_managers_lose_power),
        ("all agents stand still", all_agents_stand_still),
        ("a lost machine is back in time", a_lost_machine_is_back),
        ("a lost machine is back too late", a_lost_machine_is_late),
    ];
    let failed = scenarios.iter().filter(|(name, scenario)| {
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| {
            // One that failed may have left a process dead.
            cluster.restart();
            cluster.wait_until_well();
            scenario(&cluster);
        }));
        let outcome = if passed.is_ok() { "passed" } else { "FAILED" };
        println!(
            "[life] {name}: {outcome}, {:.1} s",
            begun.elapsed().as_secs_f32()
        );
        passed.is_err()
    });
    let failed: Vec<_> = failed.map(|(name, _)| name).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

fn a_follower_stands_still(cluster: &Cluster) {
    let follower = cluster.follower_with_agents();
    cluster.wait_until_well();
    let witness = Witness::of(cluster, STEADY);
    stand_still(&[follower.pid], LONG);
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
}

fn the_leader_stands_still(cluster: &Cluster) {
    let witness = Witness::of(cluster, STEADY);
    stand_still(&[cluster.leader_and_followers().0.pid], LONG);
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
}

fn all_managers_stand_still(cluster: &Cluster) {
    let witness = Witness::of(cluster, STEADY);
    let managers = cluster.layout().managers;
    let pids: Vec<_> = managers.iter().map(|manager| manager.pid).collect();
    stand_still(&pids, LONGER);
    cluster.wait_until_well();
    witness.assert_containers(cluster);
}

fn a_manager_is_killed(cluster: &Cluster) {
    let follower = cluster.follower_with_agents();
    cluster.wait_until_well();
    let witness = Witness::of(cluster, STEADY);
    kill(follower.pid);
    cluster.restart();
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
}

fn an_agent_stands_still(cluster: &Cluster) {
    let witness = Witness::of(cluster, STEADY);
    // Half of what the leader has patience for.
    stand_still(&[cluster.layout().agents[0].pid], Duration::from_secs(2));
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
}

/// Stops processes for a time, which is the point.
fn stand_still(pids: &[u32], time: Duration) {
    let stopped = Stopped::new(pids.iter().copied());
    thread::sleep(time);
    drop(stopped);
}

fn nobody_reads_logs(cluster: &Cluster) {
    // Much more than all buffers on the way hold.
    let print = "busybox yes 0123456789012345678901234567890123456789 | busybox head -c 20000000; echo; echo the end";
    cluster.apply(&deployment("big", 1, &format!("{print}; {SERVE}")));
    let pod = cluster.ready_pods("app=big", 1).remove(0);
    eventually("all of it is in the log", || {
        let last = said(&cluster.try_barge(&["logs", "--tail", "1", name(&pod)]));
        match last.contains("the end") {
            true => Ok(()),
            false => Err(last),
        }
    });
    let witness = Witness::of(cluster, STEADY);
    let writer = Writer::start(cluster.config());
    writer.wait_for(10);
    let mut unread = Unread::new(cluster, name(&pod), READERS);
    // Longer than the leader waits for a silent node, after the buffers are full.
    thread::sleep(Duration::from_secs(10));
    assert_eq!(
        unread.waiting(),
        READERS,
        "every client waits for its reader"
    );
    writer.wait_for(10);
    drop(unread);
    let _ = writer.stop();
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
    cluster.barge(&["delete", "deployment", "big"]);
}

fn disks_hang(cluster: &Cluster) {
    let (_, followers) = cluster.leader_and_followers();
    let folder = cluster
        .dir()
        .join(followers[0].name.replace("manager-", "managers/"));
    let witness = Witness::of(cluster, STEADY);
    let frozen = [folder, cluster.dir().join(DISKS[3])].map(|at| Frozen::new(&at));
    // Both have something to write: a log, and what is assigned.
    let file = cluster.write("nudge.yaml", &deployment("nudge", 2, SERVE));
    let file = file.to_str().expect("a plain path");
    cluster.barge(&["apply", "-f", file]);
    // As long as a disk that is about to fail may take for one sync.
    thread::sleep(LONG);
    drop(frozen);
    cluster.ready_pods("app=nudge", 2);
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
    cluster.barge(&["delete", "deployment", "nudge"]);
}

/// As many are silent as there are: more likely the network's fault than theirs, so none is given up before a person says so.
fn all_agents_stand_still(cluster: &Cluster) {
    let witness = Witness::of(cluster, STEADY);
    let agents = cluster.layout().agents;
    let refused = cluster.try_barge(&["node", "lost", &agents[0].node(), "--confirm"]);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "it is heard: {}",
        said(&refused)
    );

    let stopped = Stopped::new(agents.iter().map(|agent| agent.pid));
    eventually("nothing is tainted, and the status says so", || {
        let status = cluster.barge(&["cluster", "status"]);
        let events = cluster.barge(&["events"]);
        match status.contains("warning") && events.contains("TaintingPaused") {
            true => Ok(()),
            false => Err(format!("{status}{events}")),
        }
    });
    let asked = cluster.try_barge(&["node", "lost", &agents[0].node()]);
    assert_eq!(asked.status.code(), Some(2), "{}", said(&asked));
    assert!(said(&asked).contains("--confirm"), "{}", said(&asked));
    // Several times the pause between two nodes that are given up: nothing happens in it.
    thread::sleep(Duration::from_secs(3));
    let nodes = cluster.barge(&["get", "nodes"]);
    assert_eq!(nodes.matches("NotReady").count(), 2, "{nodes}");
    assert!(!nodes.contains("Lost"), "{nodes}");
    drop(stopped);
    cluster.wait_until_well();
    witness.assert_containers(cluster);
}

/// No other machine may run its pods: they are lost until it is back, and then they are what they were.
fn a_lost_machine_is_back(cluster: &Cluster) {
    let agent = cluster.layout().agents.remove(1);
    let label = format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {}, labels: {{only: here}}}}}}",
        agent.node()
    );
    cluster.apply(&label);
    let pinned = deployment("pinned", 2, SERVE).replace(
        "      containers:",
        "      nodeSelector: {only: here}\n      containers:",
    );
    cluster.apply(&pinned);
    cluster.ready_pods("app=pinned", 2);
    let witness = Witness::of(cluster, "app=pinned");
    kill(agent.pid);
    eventually("its pods are lost, and new ones have no place", || {
        let pods = cluster.list("pods", "app=pinned");
        let lost = pods.iter().filter(|pod| is_lost(pod)).count();
        match (pods.len(), lost) {
            (4, 2) => Ok(()),
            _ => Err(cluster.barge(&["get", "pods"])),
        }
    });
    let nodes = cluster.barge(&["get", "nodes"]);
    assert!(nodes.contains("NotReady,Lost"), "{nodes}");
    cluster.restart();
    cluster.wait_until_well();
    cluster.ready_pods("app=pinned", 2);
    witness.assert_containers(cluster);
    cluster.barge(&["delete", "deployment", "pinned"]);
    cluster.ready_pods(STEADY, 4);
}

/// Its pods run elsewhere before it is back; their containers, which ran all the time, end because it is recorded that the pods were deleted.
fn a_lost_machine_is_late(cluster: &Cluster) {
    let layout = cluster.layout();
    // The pods may all be on one machine, after one was lost before.
    let lives_on = |agent: &Agent| {
        let pods = cluster.list("pods", STEADY);
        pods.iter()
            .any(|pod| pod["spec"]["nodeName"] == agent.node().as_str())
    };
    let lost = layout.agents.iter().find(|agent| lives_on(agent));
    let lost = lost.expect("pods run somewhere");
    let kept = layout.agents.iter().find(|agent| agent.name != lost.name);
    let kept = kept.expect("two machines");
    let left = cluster.container_pids(lost);
    lost.cut();
    kill(lost.pid);
    eventually("all its pods run elsewhere", || {
        let pods = cluster.list("pods", STEADY);
        let there = |pod: &&Value| is_ready(pod) && pod["spec"]["nodeName"] == kept.node().as_str();
        match (pods.len(), pods.iter().filter(there).count()) {
            (4, 4) => Ok(()),
            _ => Err(cluster.barge(&["get", "pods", "-o", "wide"])),
        }
    });
    let witness = Witness::of(cluster, STEADY);
    assert_eq!(cluster.container_pids(lost), left, "nobody could end them");
    lost.heal();
    cluster.restart();
    eventually("what was replaced ends", || {
        match cluster.container_pids(lost) {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{some:?}")),
        }
    });
    cluster.wait_until_well();
    witness.assert_containers(cluster);
}

fn is_lost(pod: &Value) -> bool {
    pod["status"]["reason"] == "NodeLost" && !is_ready(pod)
}

const SERVE: &str = "exec busybox httpd -f -p 8080 -h /www";

fn deployment(name: &str, replicas: usize, command: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:1.0
        command: [sh, -c, {command:?}]
"
    )
}
