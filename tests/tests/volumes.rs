//! Volumes of real containers: shared, owned, and as they change while containers and agents come and go.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process::Command};

use barge_tests::{
    Cluster,
    cluster::{is_ready, kill},
    eventually,
};
use serde_json::Value;

fn config(color: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: web}}
data: {{color: {color}, page: {color} page}}
"
    )
}

const SECRET: &str = "apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: correct-horse-battery}
";

const POD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web, tier: one}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
  - name: writer
    image: my-app:1.0
    command: [sh, -c, "cp /config/color /shared/first && mkdir /shared/logs/more && exec sleep 1000"]
    volumeMounts: &mounts
    - {name: config, mountPath: /config}
    - {name: config, mountPath: /etc/page, subPath: page}
    - {name: secret, mountPath: /secret, readOnly: true}
    - {name: shared, mountPath: /shared}
    - {name: shared, mountPath: /shared/logs, subPath: logs}
    - {name: memory, mountPath: /dev/shm}
    - {name: all, mountPath: /etc/pod}
  - name: reader
    image: my-app:1.0
    command: [sh, -c, "until [ -d /shared/logs/more ]; do sleep 0.1; done; exec sleep 1000"]
    volumeMounts: *mounts
  volumes:
  - name: config
    configMap: {name: web, defaultMode: 0444}
  - name: secret
    secret: {secretName: db, defaultMode: 0400}
  - name: shared
    emptyDir: {}
  - name: memory
    emptyDir: {medium: Memory, sizeLimit: 1Mi}
  - name: all
    projected:
      sources:
      - downwardAPI:
          items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]
      - configMap: {name: none, optional: true}
      - configMap: {name: web, items: [{key: color, path: sub/color}]}
"#;

/// The process ids of the pod's containers by name.
fn pids(cluster: &Cluster) -> Vec<(String, u32)> {
    let agent = cluster.layout().agents.remove(0);
    let pids = cluster.container_pids(&agent);
    let pod = cluster.get("pod", "web");
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
    let pid = |status: &Value| {
        let id = status["containerID"].as_str()?;
        let id = id.trim_start_matches("containerd://");
        let (_, pid) = pids.iter().find(|(task, _)| task == id)?;
        Some((status["name"].as_str()?.to_owned(), *pid))
    };
    statuses.iter().filter_map(pid).collect()
}

fn inside(pid: u32, path: &str) -> PathBuf {
    format!("/proc/{pid}/root{path}").into()
}

/// A file as a process of the pod sees it; links in it are the container's.
fn read(pid: u32, path: &str) -> Result<String, String> {
    let read = Command::new("chroot")
        .arg(inside(pid, "/"))
        .args(["/bin/cat", path])
        .output()
        .unwrap();
    match read.status.success() {
        true => Ok(String::from_utf8_lossy(&read.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&read.stderr).into_owned()),
    }
}

fn wait_for(pid: u32, path: &str, expected: &str) {
    eventually(&format!("{path} is {expected:?}"), || {
        match read(pid, path)? {
            text if text == expected => Ok(()),
            text => Err(text),
        }
    });
}

#[test]
fn volumes_are_shared_and_follow_changes_while_agents_come_and_go() {
    let cluster = Cluster::up("volumes", 1, 1);
    cluster.apply(&config("blue"));
    let manifest = cluster.write("pod.yaml", POD);
    cluster.barge(&["apply", "-f", manifest.to_str().unwrap()]);
    eventually("the pod says what it waits for", || {
        let pod = cluster.get("pod", "web");
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        match waiting["reason"] == "ContainerCreating"
            && message.contains("volume \"secret\": Secret \"db\" does not exist")
        {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
    eventually("an event says so, too", || {
        let events = cluster.barge(&["events"]);
        match events.contains("FailedMount") {
            true => Ok(()),
            false => Err(events),
        }
    });
    cluster.apply(SECRET);
    cluster.ready_pods("app=web", 1);
    let before = pids(&cluster);
    let [(_, writer), (_, reader)] = before.as_slice() else {
        panic!("two containers run: {before:?}");
    };

    // What one wrote the other has, and it is the group's.
    wait_for(*reader, "/shared/first", "blue");
    for (path, mode) in [("/shared/first", 0o444), ("/shared/logs/more", 0o2755)] {
        let found = fs::metadata(inside(*reader, path)).unwrap();
        let owner = (found.uid(), found.gid(), found.mode() & 0o7777);
        assert_eq!(owner, (1000, 2000, mode), "{path}");
    }
    for (path, text) in [
        ("/secret/password", "correct-horse-battery"),
        ("/etc/page", "blue page"),
        ("/etc/pod/labels", "app=\"web\"\ntier=\"one\""),
        ("/etc/pod/sub/color", "blue"),
    ] {
        assert_eq!(read(*writer, path).as_deref(), Ok(text), "{path}");
    }
    let places = fs::read_to_string(format!("/proc/{writer}/mounts")).unwrap();
    let at = |place: &str| places.lines().find(|line| line.contains(place)).unwrap();
    assert!(at(" /dev/shm ").contains("size=1024k"), "{places}");
    assert!(at(" /secret ").contains(" ro,"), "{places}");

    // A change reaches the files, but not through a subPath; and with another agent.
    cluster.apply(&config("red"));
    wait_for(*writer, "/config/color", "red");
    wait_for(*reader, "/etc/pod/sub/color", "red");
    assert_eq!(read(*writer, "/etc/page").as_deref(), Ok("blue page"));
    kill(cluster.layout().agents[0].pid);
    cluster.apply(&config("green"));
    cluster.dev_up(1, 1);
    wait_for(*reader, "/config/color", "green");
    assert!(read(*reader, "/etc/pod/labels").is_ok());
    eventually("the pod is ready, as it was", || {
        let pod = cluster.get("pod", "web");
        match is_ready(&pod) && pids(&cluster) == before {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });

    // The next attempt finds what the one before wrote, and the subPath as it is now.
    kill(*reader);
    let next = eventually("the container runs again", || {
        let now = pids(&cluster);
        let (_, pid) = now
            .iter()
            .find(|(name, _)| name == "reader")
            .ok_or("none")?;
        match pid == reader {
            true => Err("the one before".to_owned()),
            false => Ok(*pid),
        }
    });
    wait_for(next, "/etc/page", "green page");
    assert_eq!(read(next, "/shared/first").as_deref(), Ok("blue"));

    let uid = cluster.get("pod", "web")["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap();
    cluster.barge(&["delete", "pod", "web", "--wait"]);
    let left = Command::new("find")
        .arg(cluster.dir().join("agents"))
        .args([
            "-path",
            &format!("*{uid}*"),
            "-not",
            "-path",
            "*containerd*",
        ])
        .output()
        .unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert_eq!(left, "", "nothing of the pod is left");
}
