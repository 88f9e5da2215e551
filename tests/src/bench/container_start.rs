//! `container-start`: one container after the other.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use barge_client::{Client, ClientOptions, UpdateOptions, config::Config, v1::Kind};
use tokio::time::timeout;

use super::{
    bare::Bare,
    report::{Row, milliseconds},
};
use crate::Cluster;

const RUNS: usize = 20;
/// The precision of a measurement.
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// The manifest of a Deployment whose containers do nothing and end at once when told to.
#[must_use]
pub fn deployment(name: &str, replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: my-app:1.0
"
    )
}

/// The chain id of my-app's one layer, as snapshots name it.
///
/// # Errors
/// When the image's layout cannot be read.
pub fn chain_id() -> anyhow::Result<String> {
    let folder = std::env::var_os("BARGE_TEST_IMAGES")
        .map(PathBuf::from)
        .context("run tests/bench")?;
    let image = format!("oci:{}:1.0", folder.join("my-app_1.0").display());
    let output = Command::new("skopeo")
        .args(["inspect", "--config", &image])
        .output()?;
    let config: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("read the image's configuration")?;
    match config["rootfs"]["diff_ids"].as_array().map(Vec::as_slice) {
        Some([layer]) => Ok(layer.as_str().unwrap_or_default().to_owned()),
        other => bail!("my-app should have one layer: {other:?}"),
    }
}

/// Starts containers one after the other: bare, and as a scale by one, from the request to the container running.
///
/// # Errors
/// When containerd refuses a bare container.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("container-start", 3, 1);
    let agent = cluster.layout().agents.remove(0);
    let runtime = tokio::runtime::Runtime::new()?;
    cluster.apply(&deployment("steps", 1));
    let bare = runtime.block_on(Bare::new(&agent, &chain_id()?))?;
    let (_, theirs) = runtime.block_on(bare.start(RUNS, 1))?;
    runtime.block_on(bare.remove(RUNS))?;

    // A connected client, as the peer has one; its connection lives on the runtime.
    let _on = runtime.enter();
    let client = Config::load(cluster.config())?;
    let client = Client::from_context(client.context(None)?, ClientOptions::default())?;
    let mut ours = Vec::with_capacity(RUNS);
    for wanted in 2..RUNS + 2 {
        let replicas = i32::try_from(wanted)?;
        let start = Instant::now();
        runtime.block_on(async {
            client
                .scale(
                    Kind::Deployment,
                    "default",
                    "steps",
                    replicas,
                    &UpdateOptions::default(),
                )
                .await?;
            timeout(PATIENCE, runs(&agent.containerd_namespace, wanted))
                .await
                .context("wait for one more container")
        })?;
        ours.push(milliseconds(start.elapsed()));
        cluster.ready_pods("app=steps", wanted);
    }
    Ok(vec![
        Row::least("container-start", "ms", &ours).beside("bare containerd and CNI", &theirs),
    ])
}

/// Returns when so many containers run.
async fn runs(namespace: &str, wanted: usize) {
    let mut look = tokio::time::interval(LOOK);
    while running(namespace) < wanted {
        look.tick().await;
    }
}

/// Containers whose process has been started: runc's state folder is the cheapest place to see it. A started
/// container no longer has the FIFO that holds its first process back.
fn running(namespace: &str) -> usize {
    let folder = PathBuf::from("/run/containerd/runc").join(namespace);
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| {
            entry.path().join("state.json").exists() && !entry.path().join("exec.fifo").exists()
        })
        .count()
}
