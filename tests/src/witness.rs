//! Who says afterwards whether a fault has touched what runs.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    Cluster,
    cluster::{is_ready, name},
};

/// How pods and nodes were before a fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Witness {
    labels: &'static str,
    /// By uid: its name, node and readiness, and each container with its process and how often it was restarted.
    pods: BTreeMap<String, String>,
    /// Since when each node is Ready.
    ready: BTreeMap<String, String>,
}

impl Witness {
    /// Looks at all machines, and at the pods with the labels, which are all ready.
    ///
    /// # Panics
    /// When one of them is not.
    #[must_use]
    pub fn of(cluster: &Cluster, labels: &'static str) -> Self {
        let pods = cluster.list("pods", labels);
        assert!(!pods.is_empty() && pods.iter().all(is_ready), "{pods:?}");
        Self::look(cluster, labels)
    }

    fn look(cluster: &Cluster, labels: &'static str) -> Self {
        let agents = cluster.layout().agents;
        let pids: BTreeMap<String, u32> = agents
            .iter()
            .flat_map(|agent| cluster.container_pids(agent))
            .collect();
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap_or("?").to_owned();
        let pods = cluster.list("pods", labels);
        let nodes = cluster.list("nodes", "");
        Self {
            labels,
            pods: pods
                .iter()
                .map(|pod| (uid(pod), about(pod, &pids)))
                .collect(),
            ready: nodes
                .iter()
                .map(|node| (name(node).to_owned(), ready(node)))
                .collect(),
        }
    }

    /// The same pods are there, ready, and their containers are the same processes.
    ///
    /// # Panics
    /// When one was replaced, restarted or ended.
    pub fn assert_containers(&self, cluster: &Cluster) {
        let now = Self::look(cluster, self.labels);
        assert_eq!(now.pods, self.pods, "the same pods with the same processes");
    }

    /// As [`Witness::assert_containers`]; and every node was Ready all the time.
    ///
    /// # Panics
    /// When one was not.
    pub fn assert_nothing(&self, cluster: &Cluster) {
        self.assert_containers(cluster);
        let now = Self::look(cluster, self.labels);
        assert_eq!(now.ready, self.ready, "the nodes were Ready all the time");
    }
}

fn about(pod: &Value, pids: &BTreeMap<String, u32>) -> String {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let containers = statuses.into_iter().flatten().map(|status| {
        let id = status["containerID"].as_str().unwrap_or("");
        let pid = pids.get(id.trim_start_matches("containerd://"));
        format!("process {pid:?}, restarts {}", status["restartCount"])
    });
    format!(
        "{} on {}, ready {}: {:?}",
        name(pod),
        pod["spec"]["nodeName"],
        is_ready(pod),
        containers.collect::<Vec<_>>()
    )
}

/// The status of a node's Ready condition, and when it changed last: one that was NotReady for a moment has another time.
fn ready(node: &Value) -> String {
    let conditions = node["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == "Ready")
        .map_or_else(String::new, |condition| {
            format!(
                "{} since {}",
                condition["status"], condition["lastTransitionTime"]
            )
        })
}
