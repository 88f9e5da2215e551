//! What managers promise when processes are killed, cables pulled and the power fails: nothing that was acknowledged
//! is lost, nothing is applied twice, nobody reads what is no longer true.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path, process::Command, time::Duration};

use barge_client::{ApplyOptions, config::Config};

use barge_tests::{
    Cluster, Disk, Managers, eventually,
    managers::run,
    writer::{Writer, client, counter, read_counter, runtime},
};

#[test]
fn killing_the_leader_loses_no_acknowledged_write_and_applies_none_twice() {
    let mut managers = Managers::up(3);
    let config = managers.config_of(&[0, 1, 2]);
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

#[test]
fn a_leader_that_was_cut_off_answers_no_reads_and_returns_quietly() {
    let managers = Managers::up(3);
    let leader = managers.leader();
    let config = managers.config_of(&[0, 1, 2]);
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
    let writer = Writer::start(&managers.config_of(&[0, 1, 2]));
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
    let client = client(&managers.config_of(&[0, 1, 2]), Duration::from_secs(60));
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
    let _ = writer.stop();
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
