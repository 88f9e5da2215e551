//! What pods and nodes take, as `barge top` shows it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use barge_client::config::Config;
use barge_tests::{
    Cluster,
    cluster::{Agent, kill},
    eventually, eventually_within,
    faults::Stopped,
};

/// One burns half a core, the other holds 64 MiB.
const PODS: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: burns, labels: {app: burns}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, "while true; do true; done"]
    resources: {limits: {cpu: 500m}, requests: {cpu: 10m}}
---
apiVersion: v1
kind: Pod
metadata: {name: holds, labels: {app: holds}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, "busybox dd if=/dev/zero of=/held/it bs=1M count=64 && exec busybox sleep 100000"]
    volumeMounts: [{name: held, mountPath: /held}]
  - {name: side, image: "my-app:1.0", command: [busybox, sleep, "100000"]}
  volumes:
  - {name: held, emptyDir: {medium: Memory, sizeLimit: 100Mi}}
"#;

#[test]
fn top_shows_what_containers_and_nodes_take() {
    let cluster = Cluster::up("top", 3, 2);
    cluster.apply(PODS);
    cluster.ready_pods("app=burns", 1);
    cluster.ready_pods("app=holds", 1);
    let begin = Instant::now();
    burns_half_a_core(&cluster, &[]);
    println!(
        "[top] half a core after {:.1} s",
        begin.elapsed().as_secs_f32()
    );
    through_any_manager(&cluster);
    holds_its_memory(&cluster);
    nodes(&cluster);
    an_agent_starts_anew(&cluster);
    a_silent_node_is_named(&cluster);
}

/// What is printed; what is said of a pod that has not been measured yet is an error.
fn top(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let output = cluster.try_barge(arguments);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The cells of the row that begins with these words; the rest of what was printed when there is none.
fn row(printed: &str, begin: &[&str]) -> Result<Vec<String>, String> {
    let rows = printed.lines().map(|line| line.split_whitespace());
    let mut rows = rows.map(|words| words.map(str::to_owned).collect::<Vec<_>>());
    rows.find(|row| row.len() > begin.len() && row[..begin.len()] == *begin)
        .ok_or_else(|| printed.to_owned())
}

/// The name of an agent's node.
fn node_of(agent: &Agent) -> String {
    let number = agent.name.rsplit('-').next().unwrap();
    format!("node-{number}")
}

fn number(cell: &str, unit: &str) -> Result<u64, String> {
    let digits = cell.strip_suffix(unit);
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| cell.to_owned())
}

/// About half a core, also where the machine is busy with other things: the kernel throttles above, and what is missing is another's.
fn is_half(cell: &str) -> Result<(), String> {
    match number(cell, "m")? {
        350..=560 => Ok(()),
        other => Err(format!("{other}m")),
    }
}

fn burns_half_a_core(cluster: &Cluster, flags: &[&str]) {
    eventually("it shows half a core", || {
        let printed = top(
            cluster,
            &[flags, &["top", "po", "burns", "--window", "10s"]].concat(),
        )?;
        is_half(&row(&printed, &["burns"])?[1])
    });
}

fn through_any_manager(cluster: &Cluster) {
    for manager in cluster.layout().managers {
        // A credential that knows this manager only.
        let mut config = Config::load(cluster.config()).expect("the credential");
        for context in &mut config.contexts {
            context.managers = vec![manager.address.clone()];
            context.only_these_managers = true;
        }
        let file = cluster.write(&format!("{}.toml", manager.name), "");
        config.save(&file).expect("write the credential");
        let file = file.to_str().expect("a plain path");
        burns_half_a_core(cluster, &["--config", file]);
    }
}

fn holds_its_memory(cluster: &Cluster) {
    let held = eventually("the pod shows what it holds", || {
        let printed = top(cluster, &["top", "pod", "holds"])?;
        let held = number(&row(&printed, &["holds"])?[2], "Mi")?;
        match held {
            64..=80 => Ok(held),
            other => Err(format!("{other}Mi")),
        }
    });
    let printed = cluster.barge(&["top", "pods", "-l", "app=holds", "--containers"]);
    let main = row(&printed, &["holds", "main"]).expect("a row of the first container");
    let side = row(&printed, &["holds", "side"]).expect("a row of the second container");
    let of = |row: &[String]| number(&row[3], "Mi").expect("mebibytes");
    assert!(of(&main) >= 64 && of(&side) < 16, "{printed}");
    assert!(of(&main) + of(&side) <= held + 2, "{printed}");
    let all = cluster.barge(&["top", "pods", "-A", "--sort-by", "memory", "--no-headers"]);
    assert!(all.starts_with("default   holds"), "{all}");
    let other = cluster.try_barge(&["top", "pod", "absent"]);
    assert!(!other.status.success());
    let error = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(error.contains("default/absent"), "{error}");
}

fn nodes(cluster: &Cluster) {
    eventually("both nodes show what they take", || {
        let printed = cluster.barge(&["top", "nodes"]);
        for agent in cluster.layout().agents {
            let row = row(&printed, &[&node_of(&agent)])?;
            // Whoever burns on this machine burns on both nodes: they are one machine.
            if number(&row[1], "m")? < 100 || number(&row[3], "Mi")? < 64 {
                return Err(printed);
            }
            number(&row[2], "%")?;
            number(&row[4], "%")?;
        }
        Ok(())
    });
}

fn an_agent_starts_anew(cluster: &Cluster) {
    for agent in cluster.layout().agents {
        kill(agent.pid);
    }
    cluster.dev_up(3, 2);
    burns_half_a_core(cluster, &[]);
}

fn a_silent_node_is_named(cluster: &Cluster) {
    let agents = cluster.layout().agents;
    let stopped = Stopped::new([agents[0].pid]);
    eventually_within(Duration::from_secs(60), "the silent one is named", || {
        let begin = Instant::now();
        let output = cluster.try_barge(&["top", "nodes"]);
        let took = begin.elapsed();
        let (printed, said) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "{said}");
        row(&printed, &[&node_of(&agents[1])])?;
        match said.contains(&format!("node {} ", node_of(&agents[0]))) {
            true if took < Duration::from_secs(30) => Ok(()),
            _ => Err(format!("{said} {printed} after {took:?}")),
        }
    });
    drop(stopped);
    eventually("it answers again", || {
        let printed = cluster.barge(&["top", "nodes"]);
        row(&printed, &[&node_of(&agents[0])]).map(drop)
    });
}
