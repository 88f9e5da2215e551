//! Init containers, sidecars, hooks, deadlines and last words of real containers.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, thread, time::Duration};

use barge_tests::{
    Cluster,
    cluster::{Agent, is_ready, kill},
    eventually,
};
use serde_json::Value;

#[test]
fn containers_live_in_their_order_and_say_why_they_ended() {
    let cluster = Cluster::up("podlife", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    cluster.apply(ENDS);
    stages(&cluster, &agent);
    control_is_replaced(&cluster, &agent);
    the_end(&cluster);
    ended(&cluster);
}

/// An init container that ends, a sidecar, and a container with hooks.
const STAGES: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: stages}
spec:
  terminationGracePeriodSeconds: 20
  initContainers:
  - name: first
    image: my-app:1.0
    command: [sh, -c, "busybox sleep 1; echo prepared"]
    resources: {requests: {cpu: 50m}}
  - name: side
    image: my-app:1.0
    restartPolicy: Always
    command: [sh, -c, "busybox sleep 1; echo > /up; exec busybox httpd -f -p 8081 -h /www"]
    startupProbe: {exec: {command: [busybox, test, -e, /up]}, periodSeconds: 1, failureThreshold: 60}
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, "trap 'busybox sleep 2; exit 0' TERM; busybox httpd -p 8080 -h /www; while true; do busybox usleep 100000; done"]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "busybox sleep 1; echo > /www/started"]}}
      preStop: {httpGet: {port: 8081, path: /anything}}
    readinessProbe: {httpGet: {port: 8080, path: /started}, periodSeconds: 1}
"#;

/// Pods that come to their end by themselves; they are looked at later.
const ENDS: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: unprepared}
spec:
  restartPolicy: Never
  initContainers:
  - {name: prepare, image: "my-app:1.0", command: [sh, -c, "echo no database > /dev/termination-log; exit 3"]}
  containers:
  - {name: main, image: "my-app:1.0", command: [busybox, sleep, "1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  activeDeadlineSeconds: 3
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "my-app:1.0", command: [busybox, sleep, "1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: panics}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, "echo begin; printf 'panic: no memory'; exit 2"]
    terminationMessagePolicy: FallbackToLogsOnError
---
apiVersion: v1
kind: Pod
metadata: {name: unhooked}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: my-app:1.0
    command: [busybox, sleep, "1000"]
    lifecycle: {postStart: {exec: {command: [busybox, "false"]}}}
"#;

fn init(pod: &Value, index: usize) -> &Value {
    &pod["status"]["initContainerStatuses"][index]
}

fn main_of(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn time(value: &Value) -> &str {
    value.as_str().expect("a time")
}

fn stages(cluster: &Cluster, agent: &Agent) {
    cluster.apply(STAGES);
    eventually("it shows which init container runs", || {
        let shown = cluster.barge(&["get", "pods"]);
        match shown.contains("Init:0/2") || shown.contains("Init:1/2") {
            true => Ok(()),
            false => Err(shown),
        }
    });
    wait_until_ready(cluster);
    let pod = cluster.get("pod", "stages");
    let first = &init(&pod, 0)["state"]["terminated"];
    assert_eq!(first["exitCode"].as_i64().unwrap_or(0), 0, "{pod}");
    let side = &init(&pod, 1)["state"]["running"];
    let main = &main_of(&pod)["state"]["running"];
    let order = [&first["finishedAt"], &side["startedAt"], &main["startedAt"]].map(time);
    assert!(order.is_sorted(), "{order:?}");
    assert_ne!(order[1], order[2], "the sidecar needs a second to start");
    assert_eq!(
        cluster.barge(&["logs", "stages", "-c", "first"]),
        "prepared\n"
    );
    let shown = cluster.barge(&["get", "pods"]);
    let line = shown.lines().find(|line| line.starts_with("stages"));
    assert!(line.is_some_and(|line| line.contains("2/2")), "{shown}");
    let (_, pid) = running(cluster, agent, main_of(&pod)).expect("it runs");
    let hook = format!("/proc/{pid}/root/www/started");
    assert!(fs::exists(hook).expect("look into the container"));
}

fn wait_until_ready(cluster: &Cluster) {
    eventually("the pod is ready", || {
        let pod = cluster.get("pod", "stages");
        match is_ready(&pod) {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
}

/// The id and the process of a container that runs.
fn running(cluster: &Cluster, agent: &Agent, status: &Value) -> Option<(String, u32)> {
    let id = status["containerID"].as_str()?;
    let id = id.trim_start_matches("containerd://");
    let pids = cluster.container_pids(agent);
    pids.into_iter().find(|(task, _)| task == id)
}

/// Another agent finds a pod that is initialised: it runs no init container and no hook again.
fn control_is_replaced(cluster: &Cluster, agent: &Agent) {
    let status = |pod: &Value| {
        let status = &pod["status"];
        [
            &status["initContainerStatuses"],
            &status["containerStatuses"],
        ]
        .map(Value::clone)
    };
    let before = status(&cluster.get("pod", "stages"));
    kill(agent.pid);
    cluster.dev_up(1, 1);
    // The new agent has looked after its pods once it has made another one.
    cluster.apply(&STAGES.replace("name: stages", "name: others"));
    eventually("the new agent works", || {
        let pod = cluster.get("pod", "others");
        match is_ready(&pod) {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
    assert_eq!(status(&cluster.get("pod", "stages")), before);
    cluster.barge(&["delete", "pod", "others"]);
}

/// A deletion: the container ends first, and its hook still finds the sidecar.
fn the_end(cluster: &Cluster) {
    let agent = cluster.layout().agents.remove(0);
    let pod = cluster.get("pod", "stages");
    thread::scope(|scope| {
        let deleted = scope.spawn(|| cluster.barge(&["delete", "pod", "stages"]));
        let mut alone = false;
        while !deleted.is_finished() {
            let pids = cluster.container_pids(&agent);
            let runs = |status: &Value| {
                let id = status["containerID"].as_str().expect("an id");
                let id = id.trim_start_matches("containerd://");
                pids.iter().any(|(task, _)| task == id)
            };
            let (main, side) = (runs(main_of(&pod)), runs(init(&pod, 1)));
            assert!(side || !main, "the sidecar ended before what it serves");
            alone |= side && !main;
            thread::sleep(Duration::from_millis(20));
        }
        assert!(alone, "the sidecar was seen to run after the container");
    });
    let events = cluster.barge(&["events"]);
    assert!(!events.contains("FailedPreStopHook"), "{events}");
}

fn ended(cluster: &Cluster) {
    for (name, word, reason) in [
        ("unprepared", "Init:Error", Value::Null),
        ("late", "Error", Value::from("DeadlineExceeded")),
    ] {
        eventually(&format!("{name} failed"), || {
            let pod = cluster.get("pod", name);
            let shown = cluster.barge(&["get", "pods"]);
            let line = shown.lines().find(|line| line.starts_with(name));
            let told = line.is_some_and(|line| line.contains(word));
            let status = &pod["status"];
            match told && status["phase"] == "Failed" && status["reason"] == reason {
                true => Ok(()),
                false => Err(format!("{shown}{pod}")),
            }
        });
    }
    let unprepared = cluster.get("pod", "unprepared");
    let words = &init(&unprepared, 0)["state"]["terminated"]["message"];
    assert_eq!(words, "no database\n");
    eventually("the end of its log is its last word", || {
        let pod = cluster.get("pod", "panics");
        let words = &main_of(&pod)["state"]["terminated"]["message"];
        match words == "begin\npanic: no memory" {
            true => Ok(()),
            false => Err(pod.to_string()),
        }
    });
    eventually("a container whose hook fails restarts", || {
        let pod = cluster.get("pod", "unhooked");
        let events = cluster.barge(&["events"]);
        let told = events.contains("PostStartHook failed: exit code 1");
        match told && main_of(&pod)["restartCount"].as_u64() > Some(0) {
            true => Ok(()),
            false => Err(format!("{events}{pod}")),
        }
    });
}
