//! `container-start`: one container after the other.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use barge_client::{Client, ClientOptions, UpdateOptions, config::Config, v1::Kind};
use jiff::Timestamp;
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
/// Makes agents log how long each step takes.
const LOG: &str = "info,barge_agent::timing=debug";
/// What the agent does for a container, in its own words, in the order of the report. `sandbox` includes `network`, `volumes` includes `token`, and
/// `start` what follows it, of which `record` includes `group`, and `output` goes on beside both.
const STEPS: [&str; 16] = [
    "list",
    "restore",
    "image",
    "sandbox",
    "network",
    "volumes",
    "token",
    "start",
    "configuration",
    "snapshot",
    "group",
    "output",
    "record",
    "task",
    "note",
    "run",
];

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
    let cluster = Cluster::prepare("container-start").logging(LOG);
    cluster.form(3, 1, &[]);
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
    let log = cluster.dir().join(format!("logs/{}.log", agent.name));
    let before = fs::read_to_string(&log)?.len();
    let mut ours = Vec::with_capacity(RUNS);
    let mut asked = Vec::with_capacity(RUNS);
    for wanted in 2..RUNS + 2 {
        let replicas = i32::try_from(wanted)?;
        let start = Instant::now();
        asked.push(Timestamp::now());
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
    let mut rows =
        vec![Row::least("container-start", "ms", &ours).beside("bare containerd and CNI", &theirs)];
    let log = fs::read_to_string(&log)?;
    rows.extend(by_step(log.get(before..).unwrap_or(""), &asked));
    Ok(rows)
}

/// How long each step took, and before them the time from the request until the agent has the pod.
fn by_step(log: &str, asked: &[Timestamp]) -> Vec<Row> {
    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut begun = Vec::new();
    for line in log
        .lines()
        .filter(|line| line.contains("barge_agent::timing"))
    {
        let field = |name: &str| line.split(name).nth(1)?.split(['"', ' ']).next();
        let step = field("step=\"");
        let us: Option<f64> = field("us=").and_then(|text| text.parse().ok());
        let ended = line.split(' ').next().and_then(|text| text.parse().ok());
        let (Some(step), Some(us), Some(ended)) = (step, us, ended) else {
            continue;
        };
        let ended: Timestamp = ended;
        if step == STEPS[0] {
            begun.push(ended.as_microsecond() as f64 - us);
        }
        took.entry(step).or_default().push(us / 1000.0);
    }
    let reached = asked.iter().filter_map(|asked| {
        let asked = asked.as_microsecond() as f64;
        let first = begun.iter().find(|begun| **begun >= asked)?;
        Some((first - asked) / 1000.0)
    });
    let reached: Vec<f64> = reached.collect();
    let mut rows = vec![Row::least("container-start: to the agent", "ms", &reached)];
    for step in STEPS {
        let samples = took.get(step).map_or(&[][..], Vec::as_slice);
        rows.push(Row::least(
            format!("container-start: {step}"),
            "ms",
            samples,
        ));
    }
    rows
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
