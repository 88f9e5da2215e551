//! Power, cables and disks: what takes some away takes no container with it.

use std::{path::Path, process::Command};

use barge_tests::{
    links::{Parted, Unreachable},
    managers::run,
    writer::{client, read_counter},
};

use super::*;

/// How long the leader of a dev cluster waits for a silent node.
const GRACE: Duration = Duration::from_secs(4);
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata:
  name: served
spec:
  selector: {app: APP}
  ports:
  - port: 8080
";

/// All managers at once, and what their disks had not got is gone.
pub fn all_managers_lose_power(cluster: &Cluster) {
    // The counter of an earlier writer.
    let _ = cluster.try_barge(&["delete", "deployment", "counter"]);
    let writer = Writer::start(cluster.config());
    let witness = Witness::of(cluster, STEADY);
    writer.wait_for(10);
    let acknowledged = writer.stop();
    let managers = cluster.layout().managers;
    let dark = Instant::now();
    let stopped = Stopped::new(managers.iter().map(|manager| manager.pid));
    // In one moment, which lasts as long as nobody writes.
    let disks: Vec<_> = (0..managers.len())
        .map(|number| {
            let image = cluster.dir().join(format!("{number}.img"));
            let kept = image.with_extension("kept");
            run(&["cp", "--sparse=always", path(&image), path(&kept)]);
            (image, kept, cluster.dir().join(DISKS[number]))
        })
        .collect();
    managers.iter().for_each(|manager| kill(manager.pid));
    drop(stopped);
    for (image, kept, at) in &disks {
        run(&["umount", path(at)]);
        run(&["mv", path(kept), path(image)]);
        run(&["mount", "-o", "loop", path(image), path(at)]);
    }
    thread::sleep(LONGER.saturating_sub(dark.elapsed()));
    cluster.restart();
    cluster.wait_until_well();
    let kept = read_counter(&client(cluster.config(), LONGER));
    assert_eq!(kept, Ok((acknowledged, acknowledged)));
    witness.assert_containers(cluster);
}

/// Each machine is cut off from the leader; then all of them from all managers, which see each other all the time.
pub fn agents_are_cut_off_from_managers(cluster: &Cluster) {
    let witness = Witness::of(cluster, STEADY);
    let layout = cluster.layout();
    let (leader, _) = cluster.leader_and_followers();
    let cut = Unreachable::new(layout.agents.clone(), [&leader]);
    thread::sleep(LONG / 2);
    witness.assert_nothing(cluster);
    drop(cut);
    let cut = Unreachable::new(layout.agents, &layout.managers);
    eventually("nothing is tainted, and the status says so", || {
        let status = cluster.barge(&["cluster", "status"]);
        match status.contains("warning") {
            true => Ok(()),
            false => Err(status),
        }
    });
    // Several times the pause between two nodes that are given up.
    thread::sleep(Duration::from_secs(3));
    let nodes = cluster.barge(&["get", "nodes"]);
    assert!(!nodes.contains("Lost"), "{nodes}");
    drop(cut);
    cluster.wait_until_well();
    witness.assert_containers(cluster);
}

/// Its agents reach it, and it reaches nobody: they move.
pub fn a_manager_is_cut_off_from_the_others(cluster: &Cluster) {
    let follower = cluster.follower_with_agents();
    cluster.wait_until_well();
    let witness = Witness::of(cluster, STEADY);
    let parted = Parted::new(cluster, &follower, 100);
    thread::sleep(LONG / 2);
    drop(parted);
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
    let (leader, _) = cluster.leader_and_followers();
    let parted = Parted::new(cluster, &leader, 100);
    thread::sleep(LONG / 2);
    drop(parted);
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
}

/// Nine of ten packets between a follower and the leader get lost. Its agents are heard, and what they report arrives.
pub fn a_relay_loses_packets(cluster: &Cluster) {
    let follower = cluster.follower_with_agents();
    cluster.wait_until_well();
    let witness = Witness::of(cluster, STEADY);
    let parted = Parted::new(cluster, &follower, 90);
    cluster.apply(&deployment("late", 4, SERVE));
    cluster.ready_pods("app=late", 4);
    thread::sleep(LONG / 3);
    drop(parted);
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
    cluster.barge(&["delete", "deployment", "late"]);
}

/// One agent reads nothing of what it is sent while endpoints change and change; the other one is told at once.
pub fn an_agent_does_not_read(cluster: &Cluster) {
    let select = |app: &str| {
        let service = cluster.write("service.yaml", &SERVICE.replace("APP", app));
        cluster.barge(&["apply", "-f", path(&service)]);
    };
    select("none");
    let service = cluster.get("service", "served");
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    let url = format!("http://{address}:8080/");
    let agents = cluster.layout().agents;
    let witness = Witness::of(cluster, STEADY);
    let begun = Instant::now();
    let stopped = Stopped::new([agents[0].pid]);
    while begun.elapsed() < Duration::from_secs(1) {
        select("steady");
        select("none");
    }
    select("steady");
    eventually("the other machine knows the endpoints", || {
        cluster.fetch_on(&agents[1], &url)
    });
    let told = begun.elapsed();
    drop(stopped);
    eventually("so does this one", || cluster.fetch_on(&agents[0], &url));
    cluster.wait_until_well();
    witness.assert_containers(cluster);
    assert!(told < GRACE * 2, "told after {told:?}");
    // A test machine that is slow itself has stopped the agent for longer than the leader waits.
    if told < GRACE / 2 {
        witness.assert_nothing(cluster);
    }
    cluster.barge(&["delete", "service", "served"]);
}

/// A machine's disk is full: what runs there runs on, and what is new there waits. Its agent can start.
pub fn an_agents_disk_is_full(cluster: &Cluster) {
    let witness = Witness::of(cluster, STEADY);
    let ballast = cluster.dir().join(DISKS[3]).join("ballast");
    // It stops where there is no space left. The last blocks are free again when the file system has written the others.
    for block in ["bs=1M", "bs=4K"] {
        let _ = Command::new("dd")
            .args(["if=/dev/zero", block, "status=none", "conv=notrunc,fsync"])
            .arg("oflag=append")
            .arg(format!("of={}", ballast.display()))
            .status();
    }
    let file = cluster.write("nudge.yaml", &deployment("nudge", 2, SERVE));
    cluster.barge(&["apply", "-f", path(&file)]);
    thread::sleep(LONG / 4);
    kill(cluster.layout().agents[0].pid);
    cluster.restart();
    thread::sleep(LONG / 2);
    std::fs::remove_file(&ballast).expect("it is there");
    cluster.ready_pods("app=nudge", 2);
    cluster.wait_until_well();
    witness.assert_nothing(cluster);
    cluster.barge(&["delete", "deployment", "nudge"]);
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
