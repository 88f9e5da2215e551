//! What managers promise when processes are killed, cables pulled and the power fails: nothing that was acknowledged
//! is lost, nothing is applied twice, nobody reads what is no longer true.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use barge_client::{ApplyOptions, Client, ClientOptions, config::Config, v1};
use barge_proto::manifest;
use tokio::runtime::Runtime;

use barge_tests::{Cluster, Disk, Managers, eventually, managers::run};

fn client(config: &Path, deadline: Duration) -> Client {
    let config = Config::load(config).expect("read the credential");
    let context = config.context(None).expect("a current context");
    let options = ClientOptions {
        deadline,
        ..ClientOptions::default()
    };
    // Connections belong to a runtime.
    let _entered = runtime().enter();
    Client::from_context(context, options).expect("make a client")
}

/// One for all tests and threads.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("start a runtime"))
}

/// A Deployment without pods, of which each write changes one number of the spec.
fn counter(value: u64) -> v1::Object {
    let yaml = format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: counter}}
spec:
  replicas: 0
  paused: true
  minReadySeconds: {value}
  selector: {{matchLabels: {{app: counter}}}}
  template:
    metadata: {{labels: {{app: counter}}}}
    spec: {{containers: [{{name: main, image: 'my-app:1.0'}}]}}
"
    );
    let mut objects =
        manifest::parse([manifest::Source::new("counter.yaml", yaml)]).expect("a good manifest");
    objects.remove(0).object
}

/// What is there: the number written last, and how often it was changed.
fn read_counter(client: &Client) -> Result<(u64, u64), String> {
    let object = runtime()
        .block_on(client.get(v1::Kind::Deployment, "default", "counter"))
        .map_err(|error| error.to_string())?;
    let Some(v1::object::Kind::Deployment(deployment)) = object.kind else {
        return Err("another kind".into());
    };
    let value = deployment
        .spec
        .map_or(0, |spec| spec.min_ready_seconds as u64);
    Ok((
        value,
        deployment
            .metadata
            .map_or(0, |metadata| metadata.generation as u64),
    ))
}

/// Writes 1, 2, 3, … one after the other until it is stopped. The client repeats what was not answered.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(config: &Path) -> Self {
        let (stop, acknowledged) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (config, stopped, count) = (config.to_owned(), stop.clone(), acknowledged.clone());
        let thread = thread::spawn(move || {
            let client = client(&config, Duration::from_secs(60));
            for value in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let written = runtime()
                    .block_on(client.apply(vec![counter(value)], &ApplyOptions::default()));
                written.unwrap_or_else(|error| panic!("write {value}: {error}"));
                count.store(value, Ordering::SeqCst);
            }
        });
        Self {
            stop,
            acknowledged,
            thread: Some(thread),
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for so many more acknowledged writes.
    fn wait_for(&self, more: u64) {
        let goal = self.acknowledged() + more;
        eventually("more acknowledged writes", || {
            assert!(
                self.thread
                    .as_ref()
                    .is_some_and(|thread| !thread.is_finished()),
                "the writer died"
            );
            let now = self.acknowledged();
            if now >= goal {
                Ok(())
            } else {
                Err(format!("{now} of {goal}"))
            }
        });
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("it was started")
            .join()
            .expect("every write was acknowledged");
        self.acknowledged()
    }
}

#[test]
fn killing_the_leader_loses_no_acknowledged_write_and_applies_none_twice() {
    let mut managers = Managers::up(3);
    let config = all(&managers, 3);
    let writer = Writer::start(&config);
    writer.wait_for(50);
    for _ in 0..3 {
        let leader = managers.leader();
        managers.kill(leader);
        writer.wait_for(50);
        managers.start(leader, &[]);
        managers.wait_for_voters(3);
    }
    let acknowledged = writer.stop();
    // Through each manager alone: every one sees everything that was acknowledged, at once.
    for index in 0..3 {
        let client = client(&managers.config_for(index), Duration::from_secs(60));
        let (value, generation) = read_counter(&client).expect("read the counter");
        assert_eq!(
            value, acknowledged,
            "manager {index} has the last acknowledged write"
        );
        assert_eq!(generation, acknowledged, "each write was applied once");
    }
}

/// A credential that names all managers.
fn all(managers: &Managers, count: usize) -> std::path::PathBuf {
    let addresses: Vec<_> = (0..count)
        .map(|index| format!("{:?}", managers.address(index)))
        .collect();
    let text = fs::read_to_string(managers.config()).expect("read the credential");
    let text: String = text
        .lines()
        .map(|line| match line.trim_start().starts_with("managers") {
            true => format!("managers = [{}]\n", addresses.join(", ")),
            false => format!("{line}\n"),
        })
        .collect();
    let path = managers.dir().join("all.toml");
    fs::write(&path, text).expect("write a credential");
    path
}

#[test]
fn a_leader_that_was_cut_off_answers_no_reads_and_returns_quietly() {
    let managers = Managers::up(3);
    let leader = managers.leader();
    let config = all(&managers, 3);
    runtime()
        .block_on(
            client(&config, Duration::from_secs(30))
                .apply(vec![counter(1)], &ApplyOptions::default()),
        )
        .expect("a write");

    // Its cable to the others is gone; whoever is on the machine itself still reaches it.
    managers.cut(leader);
    let lonely = managers.config_for(leader);
    let other = (0..3)
        .find(|index| *index != leader)
        .expect("another manager");
    let outside = client(&managers.config_for(other), Duration::from_secs(60));
    runtime()
        .block_on(outside.apply(vec![counter(2)], &ApplyOptions::default()))
        .expect("the majority elects a leader and takes the write");
    let output = Command::new("ip")
        .args(["netns", "exec", &managers.netns(leader)])
        .arg(barge_tests::cluster::program("barge"))
        .args(["get", "deployment", "counter", "-o", "json"])
        .env("BARGE_CONFIG", &lonely)
        .output()
        .expect("start barge");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success(),
        "a leader without a majority answered a read: {text}"
    );

    managers.heal(leader);
    let healed = client(&lonely, Duration::from_secs(60));
    let (value, _) = eventually("the returned manager sees what it missed", || {
        read_counter(&healed)
    });
    assert_eq!(value, 2);
}

#[test]
fn killing_all_managers_at_once_loses_nothing() {
    let mut managers = Managers::up(3);
    let writer = Writer::start(&all(&managers, 3));
    writer.wait_for(30);
    for index in 0..3 {
        managers.kill(index);
    }
    let before = writer.acknowledged();
    for index in 0..3 {
        managers.start(index, &[]);
    }
    writer.wait_for(10);
    let acknowledged = writer.stop();
    assert!(acknowledged >= before + 10);
    let client = client(&all(&managers, 3), Duration::from_secs(60));
    assert_eq!(read_counter(&client), Ok((acknowledged, acknowledged)));
}

/// A file system in a file is copied while it is written to; the copy is what a disk holds after the power failed.
#[test]
fn a_power_cut_under_writes_loses_nothing_that_was_acknowledged() {
    let mut managers = Managers::prepare(1);
    // Declared after the managers, and unmounted before their folder goes.
    let mut disk = Disk::new(&managers.dir().join("disk.img"), "256M");
    disk.mount(&managers.data_dir(0));
    managers.start(0, &["--bootstrap"]);
    managers.wait_for_voters(1);
    let config = managers.dir().join("admin.toml");
    fs::copy(managers.config(), &config).expect("keep the credential");
    let writer = Writer::start(&config);
    for cut in 0..4 {
        // At another instant each time: between writes, in one, while the state is flushed.
        writer.wait_for(rand::random_range(30..150));
        // Stopped, it writes nothing while the copy is made, so that the copy is of one instant.
        managers.signal(0, "-STOP");
        let acknowledged = writer.acknowledged();
        let copy = disk.copy(&managers.dir().join(format!("after-{cut}.img")));
        managers.signal(0, "-CONT");
        check_power_cut(copy, managers.dir(), &format!("after-{cut}"), acknowledged);
    }
    writer.stop();
    managers.kill(0);
}

/// Boots a manager of its own from a copy, on a machine of its own with the same address.
fn check_power_cut(mut disk: Disk, folder: &Path, copy: &str, acknowledged: u64) {
    let mount = folder.join(copy);
    disk.mount(&mount);
    let log = fs::File::create(folder.join(format!("{copy}.log"))).expect("open a log");
    let admin = Config::load(&mount.join("admin.toml")).expect("the credential in the copy");
    let address = admin.context(None).expect("a context").managers[0].clone();
    let netns = format!("cut-{}-{copy}", std::process::id());
    run(&["ip", "netns", "add", &netns]);
    let host = address.split(':').next().expect("a host");
    run(&["ip", "-n", &netns, "link", "set", "lo", "up"]);
    run(&[
        "ip",
        "-n",
        &netns,
        "address",
        "add",
        &format!("{host}/32"),
        "dev",
        "lo",
    ]);
    let inside = |program: &str| {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &netns])
            .arg(barge_tests::cluster::program(program));
        command
    };
    let mut server = inside("barge-server");
    server
        .args(["run", "--data-dir"])
        .arg(&mount)
        .args(["--advertise", &address]);
    let mut server = server.stderr(log).spawn().expect("start a manager");
    let value = eventually("the copy serves", || {
        let output = inside("barge")
            .args(["get", "deployment", "counter", "-o", "json"])
            .env("BARGE_CONFIG", mount.join("admin.toml"))
            .output()
            .expect("start barge");
        let text = String::from_utf8_lossy(&output.stdout);
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        json["spec"]["minReadySeconds"]
            .as_u64()
            .ok_or_else(|| text.into_owned())
    });
    server.kill().expect("kill the manager");
    server.wait().expect("wait for the manager");
    run(&["ip", "netns", "del", &netns]);
    assert!(
        value >= acknowledged,
        "{acknowledged} writes were acknowledged before the cut, {value} are there"
    );
}

#[test]
fn no_container_notices_that_the_leader_is_killed() {
    let cluster = Cluster::up("leader_kill", 3, 1);
    let agent = cluster.layout().agents.remove(0);
    cluster.barge(&[
        "apply",
        "--wait",
        "-f",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"),
    ]);
    let before = cluster.container_pids(&agent);
    assert_eq!(before.len(), 6, "{before:?}");
    let members = cluster.barge(&["cluster", "members"]);
    let leader = members
        .lines()
        .find(|line| line.contains("leader") && line.contains(':'))
        .expect("a leader");
    let layout = cluster.layout();
    let leader = layout
        .managers
        .iter()
        .find(|manager| leader.contains(&manager.address))
        .expect("one of ours");
    run(&["kill", "-9", &leader.pid.to_string()]);
    // The next write is accepted and acted on.
    cluster.barge(&["scale", "deployment/my-app", "--replicas", "4"]);
    cluster.ready_pods("app=my-app", 4);
    let after = cluster.container_pids(&agent);
    assert_eq!(after.len(), 7);
    assert!(
        before.iter().all(|container| after.contains(container)),
        "no container was restarted"
    );
    // It returns by itself with the same flags.
    cluster.dev_up(3, 1);
    eventually("three voters answer", || {
        let status = cluster.barge(&["cluster", "status"]);
        if status.contains("warning") {
            Err(status)
        } else {
            Ok(())
        }
    });
}
