//! ReplicaSets of real containers: their pods are kept in number, and end with them.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barge_tests::{
    Cluster,
    cluster::{is_ready, name},
    eventually,
};
use serde_json::Value;
use std::{
    fs,
    process::{Child, Stdio},
};

fn set(replicas: i32, color: &str) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:1.0
        command: [sh, -c, "exec busybox httpd -f -p 8080 -h /www"]
        env: [{{name: COLOR, value: {color}}}]
"#
    )
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 8080}]
";

/// The cells of the one line that `barge get` prints of it.
fn line(cluster: &Cluster, kind: &str, object: &str) -> Vec<String> {
    let table = cluster.barge(&["get", kind, object]);
    let line = table.lines().nth(1).unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Deletes a pod, and waits until so many others are ready.
fn replaced(cluster: &Cluster, gone: &str, count: usize) -> Vec<Value> {
    cluster.barge(&["delete", "pod", gone]);
    eventually("another pod is in its place", || {
        let pods = cluster.list("pods", "app=web");
        let others = pods.iter().all(|pod| name(pod) != gone && is_ready(pod));
        match others && pods.len() == count {
            true => Ok(pods),
            false => Err(cluster.barge(&["get", "pods"])),
        }
    })
}

fn color(pod: &Value) -> &str {
    let color = &pod["spec"]["containers"][0]["env"][0]["value"];
    color.as_str().unwrap_or_default()
}

#[test]
fn a_replica_set_keeps_its_pods_in_number() {
    let cluster = Cluster::up("replicasets", 1, 1);
    let manifest = cluster.write("web.yaml", &(set(2, "blue") + "---\n" + SERVICE));
    let manifest = manifest.to_str().unwrap();
    cluster.barge(&["apply", "-f", manifest, "--wait"]);
    let pods = cluster.list("pods", "app=web");
    assert!(pods.len() == 2 && pods.iter().all(is_ready), "{pods:?}");
    for pod in &pods {
        let owner = &pod["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["name"]),
            (&"ReplicaSet".into(), &"web".into())
        );
    }
    assert_eq!(line(&cluster, "rs", "web")[..4], ["web", "2", "2", "2"]);
    let described = cluster.barge(&["describe", "rs", "web"]);
    assert!(described.contains(name(&pods[0])), "{described}");
    assert!(described.contains("SuccessfulCreate"), "{described}");
    eventually("the Service has both pods", || {
        let endpoints = cluster.get("endpoints", "web");
        let addresses = endpoints["subsets"][0]["addresses"].as_array();
        match addresses.map_or(0, Vec::len) {
            2 => Ok(()),
            _ => Err(endpoints.to_string()),
        }
    });

    cluster.barge(&["scale", "rs/web", "--replicas", "3"]);
    let pods = cluster.ready_pods("app=web", 3);
    let gone = name(&pods[0]).to_owned();
    replaced(&cluster, &gone, 3);

    // Another template is for the next pod.
    let manifest = cluster.write("green.yaml", &set(3, "green"));
    cluster.barge(&["apply", "-f", manifest.to_str().unwrap(), "--wait"]);
    let pods = cluster.ready_pods("app=web", 3);
    assert!(pods.iter().all(|pod| color(pod) == "blue"), "{pods:?}");
    let pods = replaced(&cluster, name(&pods[0]), 3);
    let mut colors: Vec<_> = pods.iter().map(color).collect();
    colors.sort_unstable();
    assert_eq!(colors, ["blue", "blue", "green"]);

    cluster.barge(&["delete", "rs", "web"]);
    cluster.ready_pods("app=web", 0);
}

const DEPLOYMENT: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  replicas: 2
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:1.0
        command: [sh, -c, "exec busybox httpd -f -p 8080 -h /www"]
"#;

/// A command that goes on until the test ends.
struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command that is refused says.
fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.try_barge(arguments);
    assert!(!output.status.success(), "{arguments:?} is taken");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_revisions_of_a_deployment_are_its_replica_sets() {
    let cluster = Cluster::up("revisions", 1, 1);
    cluster.apply(DEPLOYMENT);
    let pods = cluster.ready_pods("app=api", 2);
    let owner = &pods[0]["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "ReplicaSet");
    let first = owner["name"].as_str().unwrap().to_owned();
    assert!(name(&pods[0]).starts_with(&first), "{pods:?}");
    let counts = |set: &str| {
        let line = line(&cluster, "rs", set);
        line.get(1..4).map_or_else(String::new, |it| it.join(" "))
    };
    eventually("its ReplicaSet counts both", || match counts(&first) {
        counts if counts == "2 2 2" => Ok(()),
        other => Err(other),
    });
    let shown = cluster.get("rs", &first);
    let metadata = &shown["metadata"];
    assert_eq!(metadata["ownerReferences"][0]["name"], "api");
    assert_eq!(metadata["uid"], owner["uid"]);
    let described = cluster.barge(&["describe", "rs", &first]);
    assert!(described.contains(name(&pods[0])), "{described}");
    let replicas = "jsonpath={.status.readyReplicas}=2";
    cluster.barge(&["wait", "rs", &first, "--for", replicas]);
    assert!(cluster.barge(&["get", "all"]).contains(&first));
    for arguments in [
        &["scale", &format!("rs/{first}"), "--replicas", "1"][..],
        &["delete", "rs", &first],
        &["label", "rs", &first, "a=b"],
    ] {
        let said = refused(&cluster, arguments);
        let expected = format!("replicaset/{first} is a revision of deployment/api");
        assert!(said.contains(&expected), "{said}");
    }

    // All that are to be deleted are those that somebody applied.
    let manifest = cluster.write("web.yaml", &set(1, "blue"));
    cluster.barge(&["apply", "-f", manifest.to_str().unwrap(), "--wait"]);
    let deleted = cluster.try_barge(&["delete", "rs", "--all"]);
    let said = String::from_utf8_lossy(&deleted.stderr);
    assert!(deleted.status.success(), "{said}");
    let left = format!("replicaset.apps/{first} left alone");
    assert!(said.contains(&left), "{said}");
    let sets = cluster.list("rs", "");
    assert_eq!(sets.iter().map(name).collect::<Vec<_>>(), [&first]);

    let seen = cluster.write("watched", "");
    let watch = cluster
        .command(&["get", "rs", "-w"])
        .stdout(fs::File::create(&seen).unwrap())
        .stderr(Stdio::null())
        .spawn();
    let _watch = Going(watch.expect("start a watch"));
    let watched = |end: &str| {
        let text = fs::read_to_string(&seen).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with(&first));
        let counts = |line: &str| {
            line.split_whitespace()
                .skip(1)
                .take(3)
                .collect::<Vec<_>>()
                .join(" ")
        };
        match lines.any(|line| counts(line) == end) {
            true => Ok(()),
            false => Err(text),
        }
    };
    eventually("the watch begins", || watched("2 2 2"));
    cluster.apply(&DEPLOYMENT.replace("name: main", "name: other"));
    eventually("the watch shows that no pod is left", || watched("0 0 0"));
    eventually("the earlier one is empty and the later one has all", || {
        let sets = cluster.list("rs", "app=api");
        let count = |set: &Value| (name(set) == first, set["spec"]["replicas"].as_i64());
        let mut counts: Vec<_> = sets.iter().map(count).collect();
        counts.sort_unstable();
        match counts == [(false, Some(2)), (true, Some(0))] {
            true => Ok(()),
            false => Err(format!("{counts:?}")),
        }
    });
    assert_eq!(counts(&first), "0 0 0");
    let history = cluster.barge(&["rollout", "history", "deployment/api"]);
    assert!(history.lines().count() >= 3, "{history}");
    cluster.barge(&["rollout", "undo", "deployment/api"]);
    eventually("the earlier one has all again", || match counts(&first) {
        counts if counts == "2 2 2" => Ok(()),
        other => Err(other),
    });
    let annotations = &cluster.get("rs", &first)["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");

    cluster.barge(&["delete", "deployment", "api"]);
    cluster.ready_pods("app=api", 0);
    eventually("no ReplicaSet is left", || {
        match cluster.list("rs", "app=api") {
            sets if sets.is_empty() => Ok(()),
            sets => Err(format!("{sets:?}")),
        }
    });
}
