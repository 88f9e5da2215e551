//! Agents that die, machines that are lost.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    process::{Command, Stdio},
};

use barge_tests::{
    Cluster,
    cluster::{Agent, is_ready, kill, name},
    eventually,
};
use serde_json::Value;

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

const SERVE: &str = "exec busybox httpd -f -p 8080 -h /www";

fn status_of(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// Ends control at once and starts it again, as its supervisor would.
fn restart_control(cluster: &Cluster) {
    kill(cluster.layout().agents[0].pid);
    cluster.dev_up(1, 1);
}

#[test]
fn an_agent_killed_and_restarted_adopts_what_runs() {
    let cluster = Cluster::up("adoption", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    cluster.apply(&deployment("steady", 3, SERVE));
    // Ends when its file goes, with a code of its own.
    let flag = "touch /on; while [ -e /on ]; do busybox usleep 50000; done; exit 7";
    cluster.apply(&deployment("ending", 1, flag));
    let steady = cluster.ready_pods("app=steady", 3);
    let ending = cluster.ready_pods("app=ending", 1).remove(0);
    let before = cluster.container_pids(&agent);
    assert_eq!(before.len(), 4, "{before:?}");

    restart_control(&cluster);
    wait_until_ready(&cluster);
    assert_eq!(
        cluster.container_pids(&agent),
        before,
        "no container's process has changed"
    );

    // While control is away one container ends by itself.
    let id = status_of(&ending)["containerID"]
        .as_str()
        .expect("an id")
        .trim_start_matches("containerd://")
        .to_owned();
    let (_, pid) = before
        .iter()
        .find(|(task, _)| *task == id)
        .expect("it runs")
        .clone();
    kill(cluster.layout().agents[0].pid);
    fs::remove_file(format!("/proc/{pid}/root/on")).expect("remove the flag in the container");
    eventually("the container ended", || {
        match fs::metadata(format!("/proc/{pid}/root")) {
            Ok(_) => Err(format!("process {pid} lives")),
            Err(_) => Ok(()),
        }
    });
    cluster.dev_up(1, 1);
    eventually("its exit code", || {
        let pod = cluster.get("pod", name(&ending));
        let status = status_of(&pod);
        match status["lastState"]["terminated"]["exitCode"].as_i64() {
            Some(7) => Ok(()),
            _ => Err(status.to_string()),
        }
    });
    cluster.ready_pods("app=ending", 1);

    // What was adopted can be read, stopped and deleted.
    let logs = cluster.try_barge(&["logs", name(&steady[0])]);
    assert!(
        logs.status.success(),
        "{}",
        String::from_utf8_lossy(&logs.stderr)
    );
    cluster.barge(&["delete", "deployment", "steady", "ending"]);
    eventually("nothing is left", || {
        let left = cluster.container_pids(&agent);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

fn wait_until_ready(cluster: &Cluster) {
    eventually("the node is ready", || {
        let nodes = cluster.barge(&["get", "nodes"]);
        if nodes.contains(" Ready") {
            Ok(())
        } else {
            Err(nodes)
        }
    });
}

#[test]
fn a_killed_carrier_costs_no_line_and_no_container() {
    let cluster = Cluster::up("carrier", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    let write = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; busybox usleep 10000; done; exec busybox sleep 1000";
    cluster.apply(&deployment("writer", 1, write));
    let pod = cluster.ready_pods("app=writer", 1).remove(0);
    let before = cluster.container_pids(&agent);
    let killed = carrier_of(&cluster).expect("a carrier runs");
    kill(killed);
    eventually("another carrier runs", || match carrier_of(&cluster) {
        Some(pid) if pid != killed => Ok(()),
        found => Err(format!("{found:?}")),
    });
    let log = eventually("everything is logged", || {
        let log = cluster.barge(&["logs", name(&pod)]);
        match log.contains("line 300\n") {
            true => Ok(log),
            false => Err(log),
        }
    });
    // A batch may come twice, none may be missing.
    for number in 1..=300 {
        let line = format!("line {number}");
        assert!(log.lines().any(|found| found == line), "{line} is missing");
    }
    assert_eq!(cluster.container_pids(&agent), before);
    eventually("the node has an event", || {
        let events = cluster.barge(&["get", "events", "-A"]);
        match events.contains("CarrierGone") {
            true => Ok(()),
            false => Err(events),
        }
    });
}

fn carrier_of(cluster: &Cluster) -> Option<u32> {
    let output = Command::new("pgrep")
        .arg("-f")
        .arg(format!("barge-agent carrier .*{}", cluster.dir().display()))
        .output()
        .expect("start pgrep");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.parse().ok())
}

/// SIGKILL in the middle of creations, again and again: afterwards each pod has exactly one container.
#[test]
fn an_agent_killed_while_it_creates_leaves_one_container_or_none() {
    let cluster = Cluster::up("creation", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    for round in 0..4_usize {
        let app = format!("burst-{round}");
        let file = cluster.write("burst.yaml", &deployment(&app, 4, SERVE));
        cluster.barge(&["apply", "-f", file.to_str().expect("a plain path")]);
        // Each round at another point: when so many of the containers are there.
        eventually("creation is under way", || {
            let there = containers(&agent).len();
            if there >= round {
                Ok(())
            } else {
                Err(format!("{there} containers"))
            }
        });
        restart_control(&cluster);
        cluster.ready_pods(&format!("app={app}"), 4);
        assert_eq!(containers(&agent).len(), 4);
        assert_eq!(cluster.container_pids(&agent).len(), 4);
        cluster.barge(&["delete", "deployment", &app]);
        eventually("nothing is left", || {
            let left = containers(&agent);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
    }
}

fn containers(agent: &Agent) -> Vec<String> {
    let output = Command::new("ctr")
        .arg("--address")
        .arg(&agent.containerd_socket)
        .args([
            "--namespace",
            &agent.containerd_namespace,
            "containers",
            "list",
            "-q",
        ])
        .stderr(Stdio::inherit())
        .output()
        .expect("start ctr");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_lost_machine_s_pods_run_on_another() {
    let cluster = Cluster::up("node_loss", 3, 2);
    cluster.apply(&deployment("spread", 4, SERVE));
    let pods = cluster.ready_pods("app=spread", 4);
    let layout = cluster.layout();
    let on = |pods: &[Value], agent: &Agent| {
        pods.iter()
            .filter(|pod| pod["status"]["hostIP"] == *agent.address)
            .count()
    };
    let (lost, kept) = (&layout.agents[0], &layout.agents[1]);
    assert_eq!(
        (on(&pods, lost), on(&pods, kept)),
        (2, 2),
        "spread over both machines"
    );

    // Its cable is pulled: containers there run on, nobody can reach them.
    let link = Command::new("nsenter")
        .arg(format!("--net={}", lost.netns.display()))
        .args(["ip", "link", "set", "eth0", "down"])
        .status();
    assert!(link.expect("start nsenter").success());
    eventually("all pods run on the other machine", || {
        let pods = cluster.list("pods", "app=spread");
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        match (pods.len(), ready, on(&pods, kept)) {
            (4, 4, 4) => Ok(()),
            counts => Err(format!("(pods, ready, there) are {counts:?}")),
        }
    });
    let nodes = cluster.barge(&["get", "nodes"]);
    assert!(nodes.contains("NotReady"), "{nodes}");

    // It returns: what was replaced ends there, what runs elsewhere stays.
    let ids: Vec<_> = cluster.container_pids(kept);
    for words in [
        &["ip", "link", "set", "eth0", "up"][..],
        &["ip", "route", "replace", "default", "via", &gateway(lost)],
    ] {
        let status = Command::new("nsenter")
            .arg(format!("--net={}", lost.netns.display()))
            .args(words)
            .status();
        assert!(status.expect("start nsenter").success());
    }
    eventually("both machines are ready and the old pods are gone", || {
        let nodes = cluster.barge(&["get", "nodes"]);
        let left = cluster.container_pids(lost);
        if !nodes.contains("NotReady") && left.is_empty() {
            Ok(())
        } else {
            Err(format!("{nodes}{left:?}"))
        }
    });
    assert_eq!(cluster.container_pids(kept), ids);
    cluster.ready_pods("app=spread", 4);
}

/// The dev cluster's gateway is the first address of its network.
fn gateway(agent: &Agent) -> String {
    let (network, _) = agent.address.rsplit_once('.').expect("an IPv4 address");
    format!("{network}.1")
}
