//! The pods over a runtime in memory, with time that passes when nothing else happens.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use barge_proto::v1::{
    Container, ContainerState as ApiState, Node, NodeStatus, ObjectMeta, Pod, PodReport, PodSpec,
    PodStatus, Quantity, Time, Welcome,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Options, PodManager, unknown::Unknown};
use crate::{
    clock::{Clock, TokioClock},
    desired::Desired,
    dns::Resolver,
    events::Recorder,
    outbox::Outbox,
    runtime::{self, ContainerState},
    testing::{Scripted, container_id},
    tokens::Tokens,
};

mod deadlines;
mod deletions;
mod departures;
mod host_paths;
mod images;
mod needs;
mod probes;
mod reasons;
mod storage;
mod tokens;
mod troubles;
mod volumes;

fn pod(uid: &str, policy: &str) -> Pod {
    Pod {
        metadata: Some(ObjectMeta {
            uid: uid.into(),
            name: uid.into(),
            namespace: "default".into(),
            ..Default::default()
        }),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "web".into(),
                image: "nginx".into(),
                ..Default::default()
            }],
            restart_policy: policy.into(),
            termination_grace_period_seconds: Some(5),
            automount_service_account_token: Some(false),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn ending(mut pod: Pod, grace: i64) -> Pod {
    let meta = pod.metadata.as_mut().unwrap();
    meta.deletion_timestamp = Some(Time::default());
    meta.deletion_grace_period_seconds = Some(grace);
    pod
}

/// What the machine has for pods.
fn node() -> NodeStatus {
    let four = Quantity { value: "4".into() };
    NodeStatus {
        allocatable: [("cpu".to_owned(), four)].into(),
        ..NodeStatus::default()
    }
}

/// A machine: what stays when its agent dies.
struct Machine {
    runtime: Arc<Scripted>,
    clock: Arc<dyn Clock>,
    folder: tempfile::TempDir,
    tokens: Tokens,
    /// The revision that all nodes have in their rules.
    everywhere: watch::Sender<u64>,
}

/// An agent on it, as far as pods go.
struct Agent {
    desired: watch::Sender<Arc<Desired>>,
    outbox: Arc<Outbox>,
    unknown: watch::Receiver<Unknown>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    reports: BTreeMap<String, PodReport>,
    events: Vec<String>,
    /// Reason and message of each event.
    messages: Vec<String>,
}

impl Machine {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(1_700_000_000_000));
        Self {
            runtime: Scripted::new(clock.clone()),
            clock,
            folder: tempfile::tempdir().unwrap(),
            tokens: Tokens::default(),
            everywhere: watch::Sender::default(),
        }
    }

    fn agent(&self, desired: Desired) -> Agent {
        self.agent_with(desired, watch::channel(true).1)
    }

    fn agent_with(&self, desired: Desired, network_ready: watch::Receiver<bool>) -> Agent {
        let outbox = Arc::new(Outbox::default());
        let (sender, receiver) = watch::channel(Arc::new(desired));
        let (unknown, unknown_now) = watch::channel(Unknown::new());
        let manager = PodManager::new(Options {
            runtime: self.runtime.clone(),
            clock: self.clock.clone(),
            outbox: outbox.clone(),
            recorder: Recorder::new(outbox.clone(), self.clock.clone()),
            desired: receiver,
            everywhere: self.everywhere.subscribe(),
            unknown,
            host_ip: "192.0.2.1".into(),
            node: watch::channel(node()).1,
            network_ready,
            resolver: watch::channel(Resolver::Absent).1,
            data_dir: Path::to_owned(self.folder.path()),
            parallel_creations: 2,
            tokens: self.tokens.clone(),
            taken: Default::default(),
            roots: Box::new(String::new),
        });
        let stop = CancellationToken::new();
        Agent {
            running: tokio::spawn(manager.run(stop.clone())),
            desired: sender,
            unknown: unknown_now,
            outbox,
            stop,
            reports: BTreeMap::new(),
            events: Vec::new(),
            messages: Vec::new(),
        }
    }
}

fn assigned(epoch: u64, pods: impl IntoIterator<Item = Pod>) -> Desired {
    let keyed = pods.into_iter().map(|pod| {
        let uid = pod.metadata.as_ref().unwrap().uid.clone();
        (uid, Arc::new(pod))
    });
    Desired {
        revision: epoch,
        epoch,
        pods: keyed.collect(),
        ..Default::default()
    }
}

impl Agent {
    fn assign(&self, desired: Desired) {
        self.desired.send_replace(Arc::new(desired));
    }

    /// Plays the manager that takes reports, until one satisfies.
    async fn until(&mut self, uid: &str, what: &str, holds: impl Fn(&PodReport) -> bool) {
        let found = timeout(Duration::from_secs(3600), async {
            loop {
                while let Some(report) = self.outbox.take() {
                    self.outbox.acknowledge(report.sequence);
                    let said = report.events.iter();
                    let said = said.map(|event| format!("{}: {}", event.reason, event.message));
                    self.messages.extend(said);
                    let reasons = report.events.into_iter().map(|event| event.reason);
                    self.events.extend(reasons);
                    for pod in report.pods {
                        self.reports.insert(pod.uid.clone(), pod);
                    }
                }
                if self.reports.get(uid).is_some_and(&holds) {
                    return;
                }
                self.outbox.ready().await;
            }
        });
        if found.await.is_err() {
            panic!("{uid} never was {what}: {:?}", self.reports.get(uid));
        }
    }

    async fn until_phase(&mut self, uid: &str, phase: &str) {
        let holds = |report: &PodReport| status(report).phase == phase;
        self.until(uid, phase, holds).await;
    }

    async fn until_gone(&mut self, uid: &str) {
        self.until(uid, "gone", |report| report.gone).await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    /// As SIGKILL: at whatever it was waiting for.
    fn kill(self) {
        self.running.abort();
        // Workers are tasks of the manager's set and go with it.
    }
}

fn status(report: &PodReport) -> PodStatus {
    report.status.clone().unwrap_or_default()
}

fn state(report: &PodReport) -> ApiState {
    let container = status(report).container_statuses.into_iter().next();
    container.and_then(|c| c.state).unwrap_or_default()
}

fn waits_for(reason: &'static str) -> impl Fn(&PodReport) -> bool {
    move |report| state(report).waiting.is_some_and(|w| w.reason == reason)
}

fn restarts(count: i32) -> impl Fn(&PodReport) -> bool {
    move |report| {
        let running = state(report).running.is_some();
        running && status(report).container_statuses[0].restart_count == count
    }
}

fn pids(machine: &Machine) -> Vec<u32> {
    let containers = machine.runtime.containers().into_iter();
    containers
        .filter_map(|c| match c.state {
            ContainerState::Running { pid, .. } => Some(pid),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_ends() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent.until_phase("u1", "Running").await;
    let report = status(&agent.reports["u1"]);
    assert!(report.pod_ip.starts_with("10.244."));
    assert_eq!(report.host_ip, "192.0.2.1");
    agent.assign(assigned(1, [ending(pod("u1", "Always"), 5)]));
    agent.until_gone("u1").await;
    assert_eq!(
        state(&agent.reports["u1"]).terminated.unwrap().exit_code,
        143
    );
    assert!(machine.runtime.is_empty());
    let folder = machine.folder.path().join("pods");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        assert!(agent.events.contains(&reason.to_owned()), "{reason}");
    }
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off_and_its_restarts_survive_the_agent() {
    let machine = Machine::new();
    let desired = assigned(1, [pod("u1", "Always")]);
    let mut agent = machine.agent(desired.clone());
    agent.until_phase("u1", "Running").await;
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    agent.until("u1", "restarted", restarts(1)).await;
    machine.runtime.exit(&container_id("u1", "web", 1), 7);
    let crash_loop = waits_for("CrashLoopBackOff");
    agent.until("u1", "in a crash loop", crash_loop).await;
    agent.end().await;
    let mut agent = machine.agent(desired);
    agent.until("u1", "restarted twice", restarts(2)).await;
    let container = &status(&agent.reports["u1"]).container_statuses[0];
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 7);
    assert_eq!(machine.runtime.containers().len(), 1);
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_the_agent_was_away_is_told_and_what_runs_is_not_touched() {
    let machine = Machine::new();
    let desired = assigned(1, [pod("u1", "Always"), pod("u2", "Never")]);
    let mut agent = machine.agent(desired.clone());
    agent.until_phase("u1", "Running").await;
    agent.until_phase("u2", "Running").await;
    let before = pids(&machine);
    agent.kill();
    machine.runtime.exit(&container_id("u2", "web", 0), 42);
    // From disk: no manager was heard.
    let mut agent = machine.agent(Desired {
        epoch: 0,
        ..desired
    });
    agent.until_phase("u2", "Failed").await;
    assert_eq!(
        state(&agent.reports["u2"]).terminated.unwrap().exit_code,
        42
    );
    agent.until_phase("u1", "Running").await;
    assert!(pids(&machine).iter().all(|pid| before.contains(pid)));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_is_tried_again() {
    let machine = Machine::new();
    machine.runtime.fail("pull", "ErrImagePull");
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent
        .until("u1", "failing", waits_for("ErrImagePull"))
        .await;
    agent
        .until("u1", "backing off", waits_for("ImagePullBackOff"))
        .await;
    agent.until_phase("u1", "Running").await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn killed_anywhere_it_goes_on_where_it_was() {
    for calls in 0..12 {
        let machine = Machine::new();
        let desired = assigned(1, [pod("u1", "Always"), pod("u2", "Always")]);
        machine.runtime.die_after(Some(calls));
        let agent = machine.agent(desired.clone());
        tokio::time::sleep(Duration::from_secs(5)).await;
        agent.kill();
        tokio::task::yield_now().await;
        machine.runtime.die_after(None);
        let mut agent = machine.agent(desired);
        agent.until_phase("u1", "Running").await;
        agent.until_phase("u2", "Running").await;
        assert_eq!(machine.runtime.containers().len(), 2, "after {calls} calls");
        let both = [
            ending(pod("u1", "Always"), 1),
            ending(pod("u2", "Always"), 1),
        ];
        // And in the middle of the end.
        machine.runtime.die_after(Some(calls));
        agent.assign(assigned(1, both.clone()));
        tokio::time::sleep(Duration::from_secs(5)).await;
        agent.kill();
        tokio::task::yield_now().await;
        machine.runtime.die_after(None);
        let mut agent = machine.agent(assigned(1, both));
        agent.until_gone("u1").await;
        agent.until_gone("u2").await;
        assert!(machine.runtime.is_empty(), "after {calls} calls");
        assert_eq!(machine.runtime.violations(), [""; 0]);
        agent.end().await;
    }
}
