//! `node-loss`: how long the replicas of a machine that is cut off are missing.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use barge_client::{
    Client, Selection,
    config::Config,
    v1::{Kind, Pod, object},
};

use super::{container_start::deployment, report::Row};
use crate::{
    Cluster,
    cluster::{Agent, Process},
    eventually,
    faults::Stopped,
    writer::{client, runtime},
};

const RUNS: usize = 10;
const AGENTS: usize = 3;
const REPLICAS: usize = 6;
const POLL: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(120);

/// Cuts a machine off that runs two of six replicas, and measures until six are Ready on the others; then the same with the manager
/// that leads standing still from the same moment on, as when both were on one machine.
///
/// # Errors
/// When the replicas are not Ready within two minutes.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("node-loss", 3, AGENTS);
    // On every machine once, so that no image is pulled in what is measured; and longer than a leader in a new process waits for agents.
    cluster.apply(&deployment("warm", 2 * AGENTS));
    thread::sleep(Duration::from_secs(20));
    cluster.barge(&["delete", "deployment", "warm"]);
    let mut rows = Vec::new();
    for (name, with_leader) in [("node-loss", false), ("node-loss, with the leader", true)] {
        let samples = (0..RUNS).map(|run| {
            let app = format!("loss-{with_leader}-{run}");
            lose(&cluster, &app, with_leader).with_context(|| app.clone())
        });
        let samples = samples.collect::<anyhow::Result<Vec<_>>>()?;
        rows.push(Row::least(name, "s", &samples));
    }
    Ok(rows)
}

/// Loses a machine with some of the replicas of a new Deployment and has it back; answers how many seconds the replicas were missing.
fn lose(cluster: &Cluster, app: &str, with_leader: bool) -> anyhow::Result<f64> {
    cluster.apply(&deployment(app, REPLICAS));
    cluster.wait_until_well();
    let (leader, followers) = cluster.leader_and_followers();
    let client = client_of(cluster, &followers)?;
    let lost = machine_of(cluster, &pods(&client, app)?)?;

    let begun = Instant::now();
    lost.cut();
    let stopped = with_leader.then(|| Stopped::new([leader.pid]));
    let missing = until_ready_elsewhere(&client, app, &lost.node(), begun)?;
    drop(stopped);
    lost.heal();
    cluster.wait_until_well();
    cluster.barge(&["delete", "deployment", app]);
    for agent in &cluster.layout().agents {
        eventually("its containers are gone", || {
            match cluster.container_pids(agent) {
                none if none.is_empty() => Ok(()),
                some => Err(format!("{some:?}")),
            }
        });
    }
    Ok(missing.as_secs_f64())
}

fn until_ready_elsewhere(
    client: &Client,
    app: &str,
    lost: &str,
    begun: Instant,
) -> anyhow::Result<Duration> {
    loop {
        // While nobody leads it cannot be asked.
        let pods = pods(client, app).unwrap_or_default();
        let ready = pods.iter().filter(|pod| is_ready(pod) && node(pod) != lost);
        if ready.count() == REPLICAS {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > DEADLINE {
            bail!("not Ready elsewhere within {DEADLINE:?}");
        }
        thread::sleep(POLL);
    }
}

/// A client that asks none but these managers.
fn client_of(cluster: &Cluster, managers: &[Process]) -> anyhow::Result<Client> {
    let mut config = Config::load(cluster.config())?;
    let context = config.contexts.first_mut().context("a context")?;
    context.only_these_managers = true;
    context.managers = managers.iter().map(|one| one.address.clone()).collect();
    let path = cluster.write("survivors.toml", "");
    config.save(&path)?;
    Ok(client(&path, Duration::from_secs(1)))
}

fn pods(client: &Client, app: &str) -> anyhow::Result<Vec<Pod>> {
    let listed = runtime().block_on(client.list(&Selection::of(Kind::Pod, "default")))?;
    let pods = listed
        .objects
        .into_iter()
        .filter_map(|object| match object.kind {
            Some(object::Kind::Pod(pod)) => Some(pod),
            _ => None,
        });
    let of_app = |pod: &Pod| {
        let metadata = pod.metadata.as_ref();
        metadata.is_some_and(|metadata| metadata.labels.get("app").is_some_and(|is| is == app))
    };
    Ok(pods.filter(of_app).collect())
}

/// A machine that runs one of the pods.
fn machine_of(cluster: &Cluster, pods: &[Pod]) -> anyhow::Result<Agent> {
    let mut agents = cluster.layout().agents.into_iter();
    agents
        .find(|agent| pods.iter().any(|pod| node(pod) == agent.node()))
        .context("a machine with pods")
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().map_or("", |spec| &spec.node_name)
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.r#type == "Ready" && condition.status == "True")
}
