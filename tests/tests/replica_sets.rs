//! ReplicaSets of real containers: their pods are kept in number, and end with them.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barge_tests::{
    Cluster,
    cluster::{is_ready, name},
    eventually,
};
use serde_json::Value;

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
