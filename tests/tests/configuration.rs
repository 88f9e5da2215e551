//! ConfigMaps and Secrets in the environment of real containers.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path, process::Command};

use barge_tests::{
    Cluster,
    cluster::{is_ready, kill},
    eventually,
};

const PASSWORD: &str = "correct-horse-battery";

const WEB: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {COLOR: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:1.0
        command: [sh, -c, "exec busybox httpd -f -p 8080 -h /www"]
        resources: {limits: {cpu: 300m}}
        envFrom:
        - configMapRef: {name: web}
        - secretRef: {name: none, optional: true}
        env:
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
        - {name: LOGIN, value: "$(COLOR):$(PASSWORD)"}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
"#;

fn secret(password: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\nstringData: {{password: {password}}}\n"
    )
}

/// The variables of a process.
fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = bytes.split(|byte| *byte == 0);
    variables
        .map(|it| String::from_utf8_lossy(it).into_owned())
        .collect()
}

/// Files below a folder, on its own file system, that hold a text.
fn holding(folder: &Path, text: &str) -> String {
    // grep knows no file systems: find does.
    let found = Command::new("find")
        .arg(folder)
        .args([
            "-xdev", "-type", "f", "-exec", "grep", "-l", "-F", text, "{}", "+",
        ])
        .output()
        .unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

#[test]
fn a_container_waits_for_its_secret_and_has_it_in_its_environment() {
    let cluster = Cluster::up("configuration", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    // Not waited for: it is not ready without the Secret.
    let manifest = cluster.write("web.yaml", WEB);
    cluster.barge(&["apply", "-f", manifest.to_str().unwrap()]);
    eventually("the pod says what it waits for", || {
        let pods = cluster.list("pods", "app=web");
        let pod = pods.first().ok_or("no pod")?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        match waiting["reason"] == "CreateContainerConfigError"
            && message.contains("Secret \"db\" does not exist")
        {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
    cluster.apply(&secret(PASSWORD));
    let pod = cluster.ready_pods("app=web", 1).remove(0);
    let [(_, pid)] = cluster.container_pids(&agent).try_into().unwrap();
    let variables = environment(pid);
    let address = pod["status"]["podIP"].as_str().unwrap();
    for expected in [
        "COLOR=blue".to_owned(),
        format!("PASSWORD={PASSWORD}"),
        format!("LOGIN=blue:{PASSWORD}"),
        "POD=default".to_owned(),
        format!("POD_IP={address}"),
        "CPU=300".to_owned(),
    ] {
        assert!(variables.contains(&expected), "{expected}: {variables:?}");
    }

    // No file of the agents or managers has it. containerd's database does: that is documented.
    for folder in ["agents", "managers"] {
        let folder = cluster.dir().join(folder);
        assert!(folder.exists(), "{folder:?} is to be searched");
        let holding = holding(&folder, PASSWORD);
        let ours = holding.lines().filter(|path| !path.contains("containerd"));
        assert_eq!(ours.collect::<Vec<_>>(), [] as [&str; 0]);
    }

    // Another value ends nothing; control that is started again goes on with all of it.
    cluster.apply(&secret("another-one"));
    kill(cluster.layout().agents[0].pid);
    cluster.dev_up(1, 1);
    eventually("the pod is ready, as it was", || {
        let pods = cluster.list("pods", "app=web");
        let pod = pods.first().ok_or("no pod")?;
        let same = cluster.container_pids(&agent).iter().any(|it| it.1 == pid);
        match is_ready(pod) && same {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
    assert!(environment(pid).contains(&format!("PASSWORD={PASSWORD}")));
    // The next attempt has the new value.
    kill(pid);
    eventually("the container is started again with the new value", || {
        let pids = cluster.container_pids(&agent);
        let (_, pid) = pids.first().ok_or("none")?;
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let variables = String::from_utf8_lossy(&variables).into_owned();
        match variables.contains("PASSWORD=another-one") {
            true => Ok(()),
            false => Err(variables),
        }
    });
}

/// Managers that were started again under a passphrase cannot open Secrets; the nodes whose pods use some are told of all else.
#[test]
fn a_node_with_secrets_goes_on_while_its_managers_are_locked() {
    let cluster = Cluster::up("configuration-locked", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    cluster.apply(&format!("{}---\n{WEB}", secret(PASSWORD)));
    cluster.ready_pods("app=web", 1);
    let [(_, pid)] = cluster.container_pids(&agent).try_into().unwrap();
    let passphrase = cluster.write("passphrase", "correct horse\n");
    let passphrase = ["--passphrase-file", passphrase.to_str().unwrap()];
    cluster.barge(&[&["cluster", "lock"], &passphrase[..]].concat());
    // The agent, too: it needs a full set.
    kill(agent.pid);
    kill(cluster.layout().managers[0].pid);
    cluster.dev_up(1, 1);
    let status = cluster.barge(&["cluster", "status"]);
    assert!(status.contains("is locked"), "{status}");
    cluster.apply(&WEB.replace("web", "plain").replace(
        "        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}\n",
        "",
    ));
    cluster.ready_pods("app=plain", 1);
    assert!(!environment(pid).is_empty(), "the other one runs on");

    cluster.barge(&[&["cluster", "unlock"], &passphrase[..]].concat());
    let db = "{name: db, key: password}";
    assert!(WEB.contains(db));
    let late = WEB
        .replace("web", "late")
        .replace(db, "{name: late, key: password}");
    let secret = secret("later").replace("name: db", "name: late");
    cluster.apply(&format!("{secret}---\n{late}"));
    cluster.ready_pods("app=late", 1);
}
