//! Pods in the network of their node, and ports of nodes that pods claim.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use barge_tests::{Cluster, cluster::Agent, eventually};
use serde_json::Value;

/// Why the third pod waits.
const TAKEN: &str =
    "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports";

/// A namespace whose pods may have what is the node's.
const PRIVILEGED: &str = "apiVersion: v1
kind: Namespace
metadata:
  name: default
  labels: {pod-security.kubernetes.io/enforce: privileged}
";

fn deployment(name: &str, replicas: u32, pod: &str, port: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
{pod}      containers:
      - name: main
        image: my-app:1.0
        ports: [{{containerPort: 8080{port}}}]
"
    )
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: host}
spec:
  selector: {app: host}
  ports: [{port: 80, targetPort: 8080}]
";

fn answers(cluster: &Cluster, from: &Agent, url: &str) {
    eventually(&format!("{url} answers"), || {
        let page = cluster.fetch_on(from, url)?;
        match page.starts_with("my-app") {
            true => Ok(()),
            false => Err(page),
        }
    });
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or("")
}

#[test]
fn a_pod_answers_at_its_node_s_own_address_and_port() {
    let cluster = Cluster::up("host-ports", 1, 2);
    let agents = cluster.layout().agents;

    // The level of a namespace without labels keeps such pods out.
    let host = deployment("host", 1, "      hostNetwork: true\n", "");
    let file = cluster.write("host.yaml", &host);
    let refused = cluster.try_barge(&["apply", "-f", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("spec.hostNetwork: true must be false"),
        "{said}"
    );
    cluster.apply(PRIVILEGED);

    cluster.apply(&format!("{host}---\n{SERVICE}"));
    let pod = cluster.ready_pods("app=host", 1).remove(0);
    let address = text(&pod, "/status/podIP").to_owned();
    assert_eq!(address, text(&pod, "/status/hostIP"));
    let service = cluster.get("service", "host");
    let service = text(&service, "/spec/clusterIP");
    for agent in &agents {
        answers(&cluster, agent, &format!("http://{address}:8080/"));
        answers(&cluster, agent, &format!("http://{service}/"));
    }
    assert!(cluster.fetch(&format!("http://{address}:8080/")).is_ok());

    // A port of the node is for one pod: there are two nodes for three pods. The pod in the network of its node has another port.
    let claims = deployment("claims", 3, "", ", hostPort: 9090");
    let file = cluster.write("claims.yaml", &claims);
    cluster.barge(&["apply", "-f", file.to_str().unwrap()]);
    let pods = eventually("two run and one waits", || {
        let pods = cluster.list("pods", "app=claims");
        let running = pods
            .iter()
            .filter(|pod| barge_tests::cluster::is_ready(pod));
        let conditions = pods
            .iter()
            .flat_map(|pod| pod["status"]["conditions"].as_array());
        let mut all = conditions.flatten();
        let told =
            all.any(|it| text(it, "/reason") == "Unschedulable" && text(it, "/message") == TAKEN);
        match (running.count(), told) {
            (2, true) => Ok(pods),
            _ => Err(cluster.barge(&["get", "pods", "-o", "wide"])),
        }
    });
    let nodes: BTreeSet<_> = pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect();
    assert_eq!(nodes.len(), 3, "each node, and none: {nodes:?}");
    for agent in &agents {
        let url = format!("http://{}:9090/", agent.address);
        assert!(cluster.fetch(&url).is_ok(), "{url} from outside");
        answers(&cluster, agent, &url);
        answers(&cluster, agent, "http://127.0.0.1:9090/");
        answers(&cluster, &agents[0], &url);
    }
    // The one that goes leaves its port to the one that waits.
    let gone = pods
        .iter()
        .find(|pod| !text(pod, "/spec/nodeName").is_empty());
    let name = text(gone.unwrap(), "/metadata/name");
    cluster.barge(&["scale", "deployment/claims", "--replicas", "2"]);
    cluster.barge(&["delete", "pod", name]);
    cluster.ready_pods("app=claims", 2);
}
