//! Backup, restore and recovery: what is left when managers are lost for good, and that nothing else is.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use barge_tests::{
    Cluster, Managers,
    cluster::{name, program},
    eventually,
    managers::run,
    s3::S3,
};
use serde_json::Value;

fn server(arguments: &[&str]) -> Output {
    Command::new(program("barge-server"))
        .args(arguments)
        .output()
        .expect("start barge-server")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn refused(output: &Output, why: &str) {
    assert!(!output.status.success());
    assert!(said(output).contains(why), "{}", said(output));
}

/// What a person wrote, without what the cluster adds to it as time goes by.
fn wanted(object: &Value) -> Value {
    let meta = &object["metadata"];
    serde_json::json!({
        "name": meta["name"], "uid": meta["uid"], "generation": meta["generation"],
        "labels": meta["labels"], "created": meta["creationTimestamp"], "spec": object["spec"],
    })
}

#[test]
fn restore_adopts_the_containers_that_run() {
    let cluster = Cluster::up("restore", 3, 1);
    let agent = cluster.layout().agents.remove(0);
    cluster.barge(&[
        "apply",
        "--wait",
        "-f",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"),
    ]);
    let look = || {
        let mut all: Vec<_> = [
            ("deployments", "nginx-deployment"),
            ("deployments", "my-app"),
            ("services", "nginx-service"),
            ("nodes", "node-1"),
        ]
        .iter()
        .map(|(kind, name)| wanted(&cluster.get(kind, name)))
        .collect();
        let mut pods: Vec<_> = cluster.list("pods", "").iter().map(wanted).collect();
        pods.sort_by_key(|pod| pod["name"].to_string());
        all.extend(pods);
        all
    };
    let before = look();

    let passphrase = cluster.write("passphrase", "correct horse battery staple\n");
    let backup = cluster.dir().join("test/backup");
    let (file, passphrase) = (text(&backup), text(&passphrase));
    cluster.barge(&["cluster", "backup", file, "--passphrase-file", passphrase]);
    cluster.barge(&["cluster", "backup", "--verify", file]);
    refused(&cluster.try_barge(&["cluster", "backup", file]), "exists");
    let whole = fs::read(&backup).unwrap();
    let cut = cluster.dir().join("test/cut");
    fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    let checked = cluster.try_barge(&["cluster", "backup", "--verify", text(&cut)]);
    refused(&checked, "cut off");

    // A pod that the backup does not know.
    cluster.barge(&["scale", "deployment/my-app", "--replicas", "4"]);
    cluster.ready_pods("app=my-app", 4);
    let pids = cluster.container_pids(&agent);

    // Lost: every manager with its disk. The agent and its containers know nothing of it.
    let managers = cluster.layout().managers;
    let folder = |number: usize| cluster.dir().join("managers").join(number.to_string());
    for manager in &managers {
        run(&["kill", "-9", &manager.pid.to_string()]);
    }
    for number in 1..=managers.len() {
        eventually("the folder is free", || {
            fs::remove_dir_all(folder(number)).map_err(|error| error.to_string())
        });
    }
    let first = folder(1);
    let restore = |file: &Path| {
        server(&[
            "restore",
            text(file),
            "--data-dir",
            text(&first),
            "--advertise",
            &managers[0].address,
            "--passphrase-file",
            passphrase,
        ])
    };
    refused(&restore(&cut), "cut off");
    assert!(!first.exists(), "nothing is made of a bad backup");
    let restored = restore(&backup);
    assert!(restored.status.success(), "{}", said(&restored));
    refused(&restore(&backup), "into an empty folder only");

    // The others join as new managers of the cluster that it was.
    cluster.dev_up(3, 1);
    eventually("all are well", || {
        let status = cluster.barge(&["cluster", "status"]);
        if status.contains("warning") {
            Err(status)
        } else {
            Ok(())
        }
    });
    cluster.ready_pods("app=my-app", 3);
    assert_eq!(look(), before);
    eventually("the node tells of the pod that nobody knows", || {
        let node = cluster.get("nodes", "node-1");
        let conditions = node["status"]["conditions"].to_string();
        match conditions.contains("default/my-app-") {
            true => Ok(()),
            false => Err(conditions),
        }
    });
    let adopted = cluster.container_pids(&agent);
    assert_eq!(
        adopted, pids,
        "adopted, and the pod that nobody knows runs on"
    );

    // And it lives: what is changed now is done, beside what was there.
    cluster.barge(&["scale", "deployment/my-app", "--replicas", "4"]);
    cluster.ready_pods("app=my-app", 4);
    let after = cluster.container_pids(&agent);
    assert_eq!(after.len(), pids.len() + 1);
    assert!(pids.iter().all(|container| after.contains(container)));
}

#[test]
fn backups_are_kept_in_a_bucket_and_on_a_schedule() {
    let mut managers = Managers::up(1);
    create(&managers, "kept");
    let store = S3::start();
    let barge = |arguments: &[&str]| {
        let mut command = managers.barge_command(&managers.config(), arguments);
        store.configure(&mut command);
        command.output().expect("start barge")
    };
    let url = "s3://bucket/some/where/monday.backup";
    let taken = barge(&["cluster", "backup", url]);
    assert!(taken.status.success(), "{}", said(&taken));
    assert_eq!(store.names(), ["bucket/some/where/monday.backup"]);
    let good = barge(&["cluster", "backup", "--verify", url]);
    assert!(said(&good).contains("good: "), "{}", said(&good));
    refused(
        &barge(&["cluster", "backup", "--verify", "s3://bucket/no"]),
        "no",
    );
    refused(
        &managers.try_barge(&["cluster", "backup-schedule", "relative", "--every", "1h"]),
        "absolute path",
    );

    // By the leader, into a folder of its machine; what cannot be written is said, then what could.
    let folder = managers.dir().join("backups");
    fs::write(&folder, "a file where a folder should be").unwrap();
    let place = text(&folder).to_owned();
    let scheduled = managers.try_barge(&[
        "cluster",
        "backup-schedule",
        &place,
        "--every",
        "1m",
        "--keep",
        "2",
    ]);
    assert!(scheduled.status.success(), "{}", said(&scheduled));
    let status = || said(&managers.try_barge(&["cluster", "status"]));
    eventually("the failure is in the status", || {
        let status = status();
        match status.contains("the last one failed") {
            true => Ok(()),
            false => Err(status),
        }
    });
    let events = said(&managers.try_barge(&["events"]));
    assert!(events.contains("BackupFailed"), "{events}");
    fs::remove_file(&folder).unwrap();
    // Another place is tried at once.
    let better = format!("{place}/here");
    managers.try_barge(&["cluster", "backup-schedule", &better, "--every", "1d"]);
    let name = eventually("a backup is kept", || {
        let entries = fs::read_dir(&better).map_err(|error| error.to_string())?;
        let names = entries.flatten().map(|entry| entry.path());
        names
            .into_iter()
            .find(|path| path.extension().is_some_and(|end| end == "backup"))
            .ok_or_else(|| "none".to_owned())
    });
    let good = managers.try_barge(&["cluster", "backup", "--verify", text(&name)]);
    assert!(good.status.success(), "{}", said(&good));
    let json = managers.try_barge(&["cluster", "status", "-o", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["backup"]["place"], better.as_str());

    // Out of the bucket into a new life.
    managers.kill(0);
    let key = managers.dir().join("key");
    fs::copy(managers.data_dir(0).join("sealing.key"), &key).unwrap();
    fs::remove_dir_all(managers.data_dir(0)).unwrap();
    let mut restore = Command::new(program("barge-server"));
    restore
        .args(["restore", url, "--advertise", &managers.address(0)])
        .arg("--data-dir")
        .arg(managers.data_dir(0))
        .arg("--sealing-key-file")
        .arg(&key);
    store.configure(&mut restore);
    let restored = restore.output().expect("start barge-server");
    assert!(restored.status.success(), "{}", said(&restored));
    managers.start(0, &[]);
    managers.wait_for_voters(1);
    assert!(namespaces(&managers).contains(&"kept".to_owned()));
}

fn namespaces(managers: &Managers) -> Vec<String> {
    let output = managers.try_barge(&["get", "namespaces", "-o", "json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| name(item).to_owned()).collect()
}

fn create(managers: &Managers, name: &str) {
    let file = managers.dir().join("namespace.yaml");
    let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    fs::write(&file, manifest).unwrap();
    let applied = managers.try_barge(&["apply", "-f", text(&file)]);
    assert!(applied.status.success(), "{}", said(&applied));
}

#[test]
fn recover_after_a_majority_was_lost() {
    let mut managers = Managers::up(3);
    create(&managers, "before");
    managers.wait_until_caught_up();
    let data = managers.data_dir(0);
    let recover = |more: &[&str]| {
        let mut arguments = vec!["recover", "--data-dir", text(&data)];
        arguments.extend(more);
        server(&arguments)
    };
    let lose = |managers: &mut Managers, index: usize| {
        managers.kill(index);
        fs::remove_dir_all(managers.data_dir(index)).unwrap();
    };
    refused(&recover(&[]), "in use");
    lose(&mut managers, 1);
    managers.kill(0);
    // Two would be a majority: nothing is done while the third one lives.
    refused(&recover(&[]), &managers.address(2));
    lose(&mut managers, 2);

    let plan = recover(&[]);
    assert_eq!(plan.status.code(), Some(2), "{}", said(&plan));
    let plan = said(&plan);
    assert!(plan.contains(&managers.address(1)), "{plan}");
    let id = plan
        .split_whitespace()
        .last()
        .expect("the command to repeat ends with the id")
        .to_owned();
    refused(&recover(&["--confirm", "another"]), "not of another");
    let done = recover(&["--confirm", &id]);
    assert!(done.status.success(), "{}", said(&done));

    managers.start(0, &["--bootstrap"]);
    managers.wait_for_voters(1);
    assert!(namespaces(&managers).contains(&"before".to_owned()));
    create(&managers, "after");
    for index in [1, 2] {
        let file = managers.dir().join(format!("again-{index}"));
        fs::write(&file, managers.token("manager")).unwrap();
        let address = managers.address(0);
        managers.start(index, &["--join", &address, "--token-file", text(&file)]);
    }
    managers.wait_for_voters(3);
    managers.wait_until_caught_up();
    for index in 0..3 {
        let config = managers.config_for(index);
        let output = managers.try_barge_with(&config, &["get", "namespaces", "-o", "name"]);
        let names = said(&output);
        assert!(
            names.contains("before") && names.contains("after"),
            "manager {index}: {names}"
        );
    }
}
