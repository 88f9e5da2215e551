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
    let pids = cluster.container_pids(&agent);
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
    assert_eq!(cluster.container_pids(&agent), pids, "adopted");

    // And it lives: what is changed now is done, beside what was there.
    cluster.barge(&["scale", "deployment/my-app", "--replicas", "4"]);
    cluster.ready_pods("app=my-app", 4);
    let after = cluster.container_pids(&agent);
    assert_eq!(after.len(), pids.len() + 1);
    assert!(pids.iter().all(|container| after.contains(container)));
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
