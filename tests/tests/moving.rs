//! Agents that find a manager which knows less than themselves, or is none of their cluster's: no container ends because of it. And a
//! log that is followed goes on, whichever manager dies.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use barge_tests::{
    Cluster,
    cluster::{Agent, Process, kill, program},
    eventually,
    managers::run,
};

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn deployment(replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: steady}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: steady}}}}
  template:
    metadata: {{labels: {{app: steady}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:1.0
        command: [sh, -c, 'exec busybox httpd -f -p 8080 -h /www']
"
    )
}

fn data_dir(cluster: &Cluster, manager: &Process) -> PathBuf {
    let number = manager.name.trim_start_matches("manager-");
    cluster.dir().join("managers").join(number)
}

/// A manager that follows and is not the first, which the tests' commands go to.
fn follower(cluster: &Cluster) -> Process {
    let members = cluster.barge(&["cluster", "members"]);
    let leads = |address: &str| {
        let mut lines = members.lines();
        lines.any(|line| line.contains("leader") && line.contains(address))
    };
    let managers = cluster.layout().managers;
    let mut others = managers.into_iter().skip(1);
    others
        .find(|manager| !leads(&manager.address))
        .expect("one of two does not lead")
}

/// What a manager has said.
fn log(cluster: &Cluster, manager: &Process) -> String {
    let path = cluster.dir().join(format!("logs/{}.log", manager.name));
    fs::read_to_string(path).unwrap_or_default()
}

/// How often a manager has turned an agent away, or lost one.
fn sessions_ended(log: &str) -> usize {
    log.matches("a session ended").count()
}

/// A manager that is not one of the cluster's processes; ends with this.
struct Stray {
    child: Child,
    log: PathBuf,
}

impl Stray {
    fn start(cluster: &Cluster, dir: &Path, address: &str, flags: &[&str]) -> Self {
        let log = cluster.write("stray.log", "");
        let file = fs::File::create(&log).expect("make a log");
        let child = Command::new(program("barge-server"))
            .args(["run", "--data-dir", text(dir), "--advertise", address])
            .args(["--listen", address, "--min-disk-free", "256Mi"])
            .args(flags)
            .env("BARGE_LOG", "info,barge_server::net=debug")
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("start a manager");
        Self { child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The containers of the only agent.
fn pids(cluster: &Cluster) -> Vec<(String, u32)> {
    cluster.container_pids(&agent(cluster))
}

fn agent(cluster: &Cluster) -> Agent {
    cluster.layout().agents.remove(0)
}

/// All managers are there again.
fn all_return(cluster: &Cluster, managers: usize) {
    cluster.dev_up(managers, 1);
    eventually("all are well", || {
        let status = cluster.barge(&["cluster", "status"]);
        // One that is alone is always worth a warning.
        match managers > 1 && status.contains("warning") {
            true => Err(status),
            false => Ok(()),
        }
    });
}

/// The same containers go on, and the agent does what the cluster says: one more.
fn goes_on(cluster: &Cluster, before: &[(String, u32)]) {
    let count = before.len() + 1;
    let replicas = count.to_string();
    cluster.barge(&["scale", "deployment/steady", "--replicas", &replicas]);
    cluster.ready_pods("app=steady", count);
    let after = pids(cluster);
    assert_eq!(after.len(), count);
    assert!(
        before.iter().all(|container| after.contains(container)),
        "{before:?} and now {after:?}"
    );
}

#[test]
fn an_agent_that_finds_a_lagging_manager_stops_nothing() {
    let cluster = Cluster::up("lagging", 3, 1);
    cluster.apply(&deployment(2));
    cluster.ready_pods("app=steady", 2);
    let lagging = follower(&cluster);
    let pid = lagging.pid.to_string();
    run(&["kill", "-STOP", &pid]);
    cluster.apply(&deployment(4));
    cluster.ready_pods("app=steady", 4);
    let before = pids(&cluster);
    assert_eq!(before.len(), 4);

    // Nobody is left who knows of the two that came last, but the agent.
    for other in &cluster.layout().managers {
        if other.pid != lagging.pid {
            kill(other.pid);
        }
    }
    let earlier = sessions_ended(&log(&cluster, &lagging));
    run(&["kill", "-CONT", &pid]);
    eventually("the agent is turned away, again and again", || {
        match sessions_ended(&log(&cluster, &lagging)) - earlier {
            0..=2 => Err(log(&cluster, &lagging)),
            _ => Ok(()),
        }
    });
    assert_eq!(pids(&cluster), before, "no container's process has changed");
    all_return(&cluster, 3);
    goes_on(&cluster, &before);
}

#[test]
fn an_agent_that_finds_a_manager_on_an_older_copy_of_its_folder_stops_nothing() {
    let cluster = Cluster::up("older_copy", 3, 1);
    cluster.apply(&deployment(2));
    cluster.ready_pods("app=steady", 2);
    let old = follower(&cluster);
    let (dir, copy) = (data_dir(&cluster, &old), cluster.dir().join("copy"));
    kill(old.pid);
    run(&["cp", "-a", text(&dir), text(&copy)]);
    cluster.dev_up(3, 1);
    cluster.apply(&deployment(4));
    cluster.ready_pods("app=steady", 4);
    eventually("all managers have it", || {
        let status = cluster.barge(&["cluster", "status"]);
        match status.contains("warning") {
            true => Err(status),
            false => Ok(()),
        }
    });
    let before = pids(&cluster);
    assert_eq!(before.len(), 4);

    for manager in &cluster.layout().managers {
        kill(manager.pid);
    }
    fs::remove_dir_all(&dir).expect("remove the folder");
    fs::rename(&copy, &dir).expect("put the copy in its place");
    // First on its own, then with those who know better.
    let alone = Stray::start(&cluster, &dir, &old.address, &[]);
    eventually(
        "the agent is turned away, again and again",
        || match sessions_ended(&alone.said()) {
            0..=2 => Err(alone.said()),
            _ => Ok(()),
        },
    );
    assert_eq!(pids(&cluster), before, "no container's process has changed");
    drop(alone);
    all_return(&cluster, 3);
    goes_on(&cluster, &before);
}

#[test]
fn an_agent_that_finds_a_manager_of_another_cluster_stops_nothing() {
    let cluster = Cluster::up("foreign", 1, 1);
    cluster.apply(&deployment(2));
    cluster.ready_pods("app=steady", 2);
    let before = pids(&cluster);
    assert_eq!(before.len(), 2);
    let manager = cluster.layout().managers.remove(0);
    kill(manager.pid);
    let dir = cluster.dir().join("foreign");
    let foreign = Stray::start(&cluster, &dir, &manager.address, &["--bootstrap"]);
    eventually(
        "the agent does not take it for its manager",
        || match foreign.said().matches("handshake failed").count() {
            0..=2 => Err(foreign.said()),
            _ => Ok(()),
        },
    );
    assert_eq!(pids(&cluster), before, "no container's process has changed");
    drop(foreign);
    all_return(&cluster, 1);
    goes_on(&cluster, &before);
}

/// Ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The leader, the one that `barge` asked, and the one that the agent is connected to are among them.
#[test]
fn a_followed_log_goes_on_whichever_manager_dies() {
    let cluster = Cluster::up("followed", 3, 1);
    let count = "i=0; while :; do i=$((i+1)); echo $i; busybox usleep 20000; done";
    let manifest = deployment(1).replace("exec busybox httpd -f -p 8080 -h /www", count);
    cluster.apply(&manifest);
    cluster.ready_pods("app=steady", 1);
    let path = cluster.write("followed.log", "");
    let follow = cluster
        .command(&["logs", "-f", "deployment/steady"])
        .stdout(fs::File::create(&path).expect("make a file"))
        .spawn();
    let _follow = Running(follow.expect("start barge"));
    let lines = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let numbers = whole.lines().map(|line| line.parse().expect("a number"));
        numbers.collect::<Vec<usize>>()
    };
    let wait_for_more = || {
        let before = lines().len();
        eventually("more lines", || match lines().len() {
            now if now >= before + 50 => Ok(()),
            now => Err(format!("{before}, then {now}")),
        });
    };
    wait_for_more();
    for number in 0..3 {
        kill(cluster.layout().managers[number].pid);
        wait_for_more();
        all_return(&cluster, 3);
    }
    let lines = lines();
    assert_eq!(lines, (1..=lines.len()).collect::<Vec<_>>(), "each once");
}
