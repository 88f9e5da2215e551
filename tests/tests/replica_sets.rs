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

/// Two pods that tell their names, what they are labelled with, and what they were labelled with when they began.
const TOLD: &str = r#"apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, tier: front}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:1.0
        command: [sh, -c, 'echo "$NAME" >/www/index.html; exec busybox httpd -f -p 8080 -h /www']
        env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: pod, mountPath: /pod}, {name: www, mountPath: /www}]
      volumes:
      - name: pod
        downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
      - {name: www, emptyDir: {}}
"#;

/// What a pod's container is, and how often it was started.
fn container(pod: &Value) -> (Value, Value) {
    let status = &pod["status"]["containerStatuses"][0];
    (
        status["containerID"].clone(),
        status["restartCount"].clone(),
    )
}

#[test]
fn a_pod_is_taken_out_of_service_by_its_label() {
    let cluster = Cluster::up("labels", 1, 1);
    let manifest = cluster.write("web.yaml", &(TOLD.to_owned() + "---\n" + SERVICE));
    cluster.barge(&["apply", "-f", manifest.to_str().unwrap(), "--wait"]);
    let pods = cluster.ready_pods("app=web", 2);
    let pod = name(&pods[0]);
    let agent = &cluster.layout().agents[0];
    let service = cluster.get("service", "web");
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let visit = || cluster.fetch_on(agent, &format!("http://{address}:8080/"));
    eventually("the Service leads to it", || match visit() {
        Ok(told) if told.trim() == pod => Ok(()),
        told => Err(format!("{told:?}")),
    });

    let said = cluster.barge(&["label", "pod", pod, "app=debug", "by=ann", "--overwrite"]);
    assert!(said.contains("labeled"), "{said}");
    cluster.barge(&["annotate", "pod", pod, "why=it is slow"]);
    let others = cluster.ready_pods("app=web", 2);
    assert!(others.iter().all(|other| name(other) != pod), "{others:?}");
    eventually("the Service does not lead to it any more", || {
        let told: Vec<_> = (0..20).map(|_| visit()).collect();
        let is_other =
            |told: &Result<String, String>| told.as_ref().is_ok_and(|told| told.trim() != pod);
        match told.iter().all(is_other) {
            true => Ok(()),
            false => Err(format!("{told:?}")),
        }
    });
    // The container goes on, with the variables that it began with and the file that follows.
    let shell = "echo $APP; cat /pod/labels";
    eventually("the file follows", || {
        let told = cluster.barge(&["exec", pod, "--", "sh", "-c", shell]);
        match told.lines().collect::<Vec<_>>()[..] {
            ["web", "app=\"debug\"", "by=\"ann\"", "tier=\"front\""] => Ok(()),
            _ => Err(told),
        }
    });
    let after = cluster.get("pod", pod);
    assert_eq!(container(&after), container(&pods[0]));
    assert!(
        is_ready(&after) && after["metadata"]["ownerReferences"].is_null(),
        "{after}"
    );
    assert_eq!(after["metadata"]["annotations"]["why"], "it is slow");

    // With its label it comes back, and one of the three ends.
    cluster.barge(&["label", "pod", pod, "app=web", "by-", "--overwrite"]);
    cluster.ready_pods("app=web", 2);
    let described = cluster.barge(&["describe", "rs", "web"]);
    for reason in ["ReleasedPod", "AdoptedPod"] {
        assert!(described.contains(reason), "{described}");
    }

    // Pods that are left alone are those of the next ReplicaSet.
    let before = names(&cluster.ready_pods("app=web", 2));
    cluster.barge(&["delete", "rs", "web", "--cascade=orphan"]);
    cluster.barge(&["apply", "-f", manifest.to_str().unwrap(), "--wait"]);
    let pods = cluster.ready_pods("app=web", 2);
    assert_eq!(names(&pods), before);
    cluster.barge(&["delete", "rs", "web"]);
    cluster.ready_pods("app=web", 0);
}

fn names(pods: &[Value]) -> Vec<String> {
    pods.iter().map(|pod| name(pod).to_owned()).collect()
}
