//! Probes of real containers: what they change, and what a bad time of the node does not change.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use barge_tests::{
    Cluster,
    cluster::{Agent, is_ready, kill},
    eventually, eventually_within,
    faults::Stopped,
};
use serde_json::Value;

/// Ten times what a change of readiness may take.
const SOON: Duration = Duration::from_secs(20);

fn pod(name: &str, command: &str, probes: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, {command:?}]
    ports: [{{name: http, containerPort: 8080}}]
{probes}"
    )
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: http}}]
"
    )
}

fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// A path in the container's file system, from outside.
fn inside(cluster: &Cluster, agent: &Agent, pod: &str, path: &str) -> PathBuf {
    let pod = cluster.get("pod", pod);
    let id = status(&pod)["containerID"].as_str().expect("an id");
    let id = id.trim_start_matches("containerd://");
    let pids = cluster.container_pids(agent);
    let (_, pid) = pids.iter().find(|(task, _)| task == id).expect("it runs");
    format!("/proc/{pid}/root{path}").into()
}

fn wait_until(cluster: &Cluster, pod: &str, ready: bool) {
    eventually_within(SOON, &format!("{pod} is ready: {ready}"), || {
        let pod = cluster.get("pod", pod);
        match status(&pod)["ready"].as_bool() == Some(ready) && is_ready(&pod) == ready {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
}

fn wait_for_endpoints(cluster: &Cluster, service: &str, count: usize) {
    eventually_within(SOON, &format!("{service} has {count} endpoints"), || {
        let endpoints = cluster.get("endpoints", service);
        let addresses = endpoints["subsets"][0]["addresses"].as_array();
        match addresses.map_or(0, Vec::len) == count {
            true => Ok(()),
            false => Err(endpoints.to_string()),
        }
    });
}

fn restarts(cluster: &Cluster, pod: &str) -> u64 {
    status(&cluster.get("pod", pod))["restartCount"]
        .as_u64()
        .unwrap_or(0)
}

#[test]
fn probes_decide_about_traffic_and_restarts() {
    let cluster = Cluster::up("probes", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    readiness(&cluster, &agent);
    liveness(&cluster, &agent);
    programs(&cluster, &agent);
    control_is_replaced(&cluster);
    control_stands_still(&cluster);
}

/// A Service follows an HTTP readiness probe, by the port's name.
fn readiness(cluster: &Cluster, agent: &Agent) {
    let serve = "echo yes > /www/ok; exec busybox httpd -f -p 8080 -h /www";
    let probes = "    readinessProbe: {httpGet: {path: /ok, port: http}, periodSeconds: 1}\n";
    cluster.apply(&pod("web", serve, probes));
    cluster.apply(&service("web"));
    wait_until(cluster, "web", true);
    wait_for_endpoints(cluster, "web", 1);
    let file = inside(cluster, agent, "web", "/www/ok");
    fs::remove_file(&file).expect("remove the page in the container");
    wait_until(cluster, "web", false);
    wait_for_endpoints(cluster, "web", 0);
    let events = cluster.barge(&["events"]);
    let said = "Readiness probe of main failed: HTTP status 404";
    assert!(events.contains(said), "{events}");
    fs::write(&file, "yes").expect("put the page back");
    wait_until(cluster, "web", true);
    wait_for_endpoints(cluster, "web", 1);
    assert_eq!(restarts(cluster, "web"), 0);
}

/// A container whose TCP liveness probe fails restarts; one whose startup probe holds the liveness probe back does not.
fn liveness(cluster: &Cluster, agent: &Agent) {
    let stops = "busybox httpd -f -p 8080 -h /www & server=$!; while [ ! -e /stop ]; do busybox usleep 50000; done; kill $server; exec busybox sleep 1000";
    let probes =
        "    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 2}\n";
    cluster.apply(&pod("stops", stops, probes));
    let slow = "busybox sleep 5; exec busybox httpd -f -p 8080 -h /www";
    let probes =
        "    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1, failureThreshold: 60}
    livenessProbe: {tcpSocket: {port: http}, periodSeconds: 1, failureThreshold: 1}
";
    cluster.apply(&pod("slow", slow, probes));
    wait_until(cluster, "stops", true);
    fs::write(inside(cluster, agent, "stops", "/stop"), "").expect("stop the server");
    eventually("it restarts", || match restarts(cluster, "stops") {
        1 => Ok(()),
        other => Err(format!("{other} restarts")),
    });
    wait_until(cluster, "stops", true);
    let events = cluster.barge(&["events"]);
    for said in [
        "Liveness probe of main failed: cannot connect",
        "Stopping container main, because its liveness probe failed",
    ] {
        assert!(events.contains(said), "{said}: {events}");
    }
    wait_until(cluster, "slow", true);
    assert_eq!(restarts(cluster, "slow"), 0);
    cluster.barge(&["delete", "pod", "slow", "stops"]);
}

/// A program in the container decides about its readiness.
fn programs(cluster: &Cluster, agent: &Agent) {
    let probes =
        "    readinessProbe: {exec: {command: [busybox, test, -e, /www/ok]}, periodSeconds: 1}\n";
    cluster.apply(&pod("asked", "exec busybox sleep 1000", probes));
    eventually("it runs, and is not ready", || {
        let events = cluster.barge(&["events"]);
        match events.contains("Readiness probe of main failed: exit code 1") {
            true => Ok(()),
            false => Err(events),
        }
    });
    wait_until(cluster, "asked", false);
    fs::write(inside(cluster, agent, "asked", "/www/ok"), "").expect("write in the container");
    wait_until(cluster, "asked", true);
    assert_eq!(restarts(cluster, "asked"), 0);
    cluster.barge(&["delete", "pod", "asked"]);
}

/// Control dies and comes back: a ready pod is never said to be unready in between, nor before the first results.
fn control_is_replaced(cluster: &Cluster) {
    // What is known is kept on disk within a second or two.
    thread::sleep(Duration::from_secs(3));
    kill(cluster.layout().agents[0].pid);
    thread::scope(|scope| {
        let back = scope.spawn(|| cluster.dev_up(1, 1));
        let begin = Instant::now();
        // For some periods of the probe.
        while !back.is_finished() || begin.elapsed() < Duration::from_secs(10) {
            let pod = cluster.get("pod", "web");
            assert!(is_ready(&pod), "{pod}");
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(restarts(cluster, "web"), 0);
}

/// Control stands still, in the middle of attempts, for longer than failureThreshold × periodSeconds: that ends nothing.
fn control_stands_still(cluster: &Cluster) {
    let agent = cluster.layout().agents.remove(0);
    let script =
        r#"#!/bin/sh\nbusybox usleep 600000\nprintf 'Content-Type: text/plain\\r\\n\\r\\nyes'\n"#;
    let serve = format!(
        "busybox mkdir -p /www/cgi-bin; printf '%b' {script:?} > /www/cgi-bin/slow; busybox chmod 755 /www/cgi-bin/slow; exec busybox httpd -f -p 8080 -h /www"
    );
    let serve = serve.replace("\\\\", "\\");
    let probe = "{httpGet: {path: /cgi-bin/slow, port: 8080}, periodSeconds: 1, timeoutSeconds: 2, failureThreshold: 1, initialDelaySeconds: 5}";
    let probes = format!("    livenessProbe: {probe}\n    readinessProbe: {probe}\n");
    cluster.apply(&pod("still", &serve, &probes));
    wait_until(cluster, "still", true);
    let before = (cluster.container_pids(&agent), restarts(cluster, "still"));
    for _ in 0..5 {
        let stopped = Stopped::new([cluster.layout().agents[0].pid]);
        thread::sleep(Duration::from_secs(4));
        drop(stopped);
        thread::sleep(Duration::from_millis(2300));
    }
    wait_until(cluster, "still", true);
    let after = (cluster.container_pids(&agent), restarts(cluster, "still"));
    assert_eq!(after, before);
}
