//! Pods that were deleted serve until nobody sends them new connections.

use barge_proto::v1::{
    EndpointAddress, EndpointSubset, Endpoints, ExecAction, Lifecycle, LifecycleHandler,
    ObjectReference,
};

use super::*;

/// An assignment at a revision, on a node with Endpoints that have these pods.
fn serving(before: &Desired, revision: u64, pods: Vec<Pod>, serve: &[&str]) -> Desired {
    let mut desired = assigned(1, pods);
    let node = Node {
        metadata: Some(ObjectMeta {
            name: "node".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    desired.welcome = Some(Arc::new(Welcome {
        node: Some(node),
        ..Default::default()
    }));
    desired.revision = revision;
    desired.serving = before.serving.clone();
    let addresses = serve.iter().map(|uid| EndpointAddress {
        node_name: "node".into(),
        target_ref: Some(ObjectReference {
            uid: (*uid).into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    let endpoints = Endpoints {
        subsets: vec![EndpointSubset {
            addresses: addresses.collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    desired
        .serving
        .note("node", "web", Some(&endpoints), revision);
    desired
}

/// Milliseconds until the runtime is asked to stop the pod's container, from now on.
async fn until_term(machine: &Machine, uid: &str) -> i64 {
    let begin = machine.clock.now_ms();
    let call = format!("stop {}", container_id(uid, "web", 0));
    let found = timeout(Duration::from_secs(600), async {
        while !machine
            .runtime
            .calls()
            .iter()
            .any(|it| it.starts_with(&call))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap();
    machine.clock.now_ms() - begin
}

struct Roll {
    machine: Machine,
    agent: Agent,
    desired: Desired,
}

impl Roll {
    /// A pod that runs, and serves.
    async fn of(pod: Pod) -> Self {
        let machine = Machine::new();
        let desired = serving(&Desired::default(), 5, vec![pod], &["u1"]);
        let mut agent = machine.agent(desired.clone());
        agent.until_phase("u1", "Running").await;
        Self {
            machine,
            agent,
            desired,
        }
    }

    fn assign(&mut self, revision: u64, pods: Vec<Pod>, serve: &[&str]) {
        self.desired = serving(&self.desired, revision, pods, serve);
        self.agent.assign(self.desired.clone());
    }

    async fn gone(mut self) -> Vec<String> {
        self.agent.until_gone("u1").await;
        self.agent.end().await;
        assert_eq!(self.machine.runtime.violations(), [""; 0]);
        self.machine.runtime.calls()
    }
}

fn web() -> Pod {
    pod("u1", "Always")
}

#[tokio::test(start_paused = true)]
async fn term_comes_when_the_last_node_has_taken_the_pod_out_of_its_rules() {
    let mut roll = Roll::of(web()).await;
    roll.assign(7, vec![ending(web(), 30)], &["u1"]);
    let (machine, everywhere) = (&roll.machine, roll.machine.everywhere.clone());
    let term = until_term(machine, "u1");
    let nodes = async {
        // The deletion is in all rules, and the pod, too.
        everywhere.send_replace(7);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let left = serving(&roll.desired, 8, vec![ending(web(), 30)], &[]);
        roll.agent.assign(left);
        tokio::time::sleep(Duration::from_millis(300)).await;
        everywhere.send_replace(8);
    };
    let (took, ()) = tokio::join!(term, nodes);
    assert!((600..700).contains(&took), "{took} ms");
    let calls = roll.gone().await;
    let stop = calls.iter().find(|it| it.starts_with("stop")).unwrap();
    assert!(stop.ends_with(" 29"), "what is left of the grace: {stop}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_slow_or_silent_costs_two_seconds() {
    for serve in [&["u1"][..], &[]] {
        let mut roll = Roll::of(web()).await;
        roll.assign(7, vec![ending(web(), 30)], serve);
        let took = until_term(&roll.machine, "u1").await;
        assert!((1900..2200).contains(&took), "{took} ms");
        roll.gone().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_pod_without_connections() {
    // In no Service; and one that left its Services long ago, because it was not ready.
    for serve in [None, Some(&[][..])] {
        let mut roll = match serve {
            None => {
                let machine = Machine::new();
                let desired = serving(&Desired::default(), 5, vec![web()], &[]);
                let mut agent = machine.agent(desired.clone());
                agent.until_phase("u1", "Running").await;
                Roll {
                    machine,
                    agent,
                    desired,
                }
            }
            Some(serve) => {
                let mut roll = Roll::of(web()).await;
                roll.assign(6, vec![web()], serve);
                roll.machine.everywhere.send_replace(6);
                roll
            }
        };
        roll.assign(9, vec![ending(web(), 30)], &[]);
        let took = until_term(&roll.machine, "u1").await;
        assert!(took < 100, "{took} ms");
        roll.gone().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_grace_is_not_prolonged() {
    let mut roll = Roll::of(web()).await;
    roll.machine.runtime.ignore_term();
    let begin = roll.machine.clock.now_ms();
    roll.assign(7, vec![ending(web(), 3)], &["u1"]);
    let took = until_term(&roll.machine, "u1").await;
    assert!(
        (900..1100).contains(&took),
        "all but two seconds: {took} ms"
    );
    let clock = roll.machine.clock.clone();
    roll.gone().await;
    let took = clock.now_ms() - begin;
    assert!(took < 3500, "{took} ms");
    // Without any grace, and when somebody loses patience.
    let mut roll = Roll::of(web()).await;
    roll.assign(7, vec![ending(web(), 0)], &["u1"]);
    assert!(until_term(&roll.machine, "u1").await < 100);
    roll.gone().await;
    let mut roll = Roll::of(web()).await;
    roll.assign(7, vec![ending(web(), 30)], &["u1"]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    roll.assign(7, vec![ending(web(), 0)], &["u1"]);
    assert!(until_term(&roll.machine, "u1").await < 100);
    roll.gone().await;
}

/// The seconds between TERM and KILL that the runtime was asked for.
fn left(calls: &[String]) -> Vec<u64> {
    let stops = calls.iter().filter(|it| it.starts_with("stop"));
    let left = stops.map(|it| it.rsplit(' ').next().unwrap().parse().unwrap());
    left.collect()
}

#[tokio::test(start_paused = true)]
async fn no_wait_takes_the_time_for_term() {
    // Patience is lost after a while.
    let mut roll = Roll::of(web()).await;
    roll.assign(7, vec![ending(web(), 30)], &["u1"]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    roll.assign(7, vec![ending(web(), 1)], &["u1"]);
    assert!(until_term(&roll.machine, "u1").await < 100);
    let left_of = left(&roll.gone().await);
    assert!(left_of.iter().all(|left| *left >= 1), "{left_of:?}");
    // The process stands still for longer than the grace.
    let mut roll = Roll::of(web()).await;
    roll.assign(7, vec![ending(web(), 30)], &["u1"]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::advance(Duration::from_secs(40)).await;
    until_term(&roll.machine, "u1").await;
    let left_of = left(&roll.gone().await);
    assert!(left_of.iter().all(|left| *left >= 2), "{left_of:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_finds_a_pod_ending_does_not_wait_again() {
    let mut roll = Roll::of(web()).await;
    roll.agent.end().await;
    roll.desired = serving(&roll.desired, 7, vec![ending(web(), 30)], &["u1"]);
    roll.agent = roll.machine.agent(roll.desired.clone());
    assert!(until_term(&roll.machine, "u1").await < 100);
    roll.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_begins_at_once_and_takes_the_same_grace() {
    let mut hooked = web();
    let container = &mut hooked.spec.as_mut().unwrap().containers[0];
    container.lifecycle = Some(Lifecycle {
        pre_stop: Some(LifecycleHandler {
            exec: Some(ExecAction {
                command: vec!["bye".into()],
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let mut roll = Roll::of(hooked.clone()).await;
    roll.machine.runtime.exec_takes(Duration::from_secs(5));
    roll.assign(7, vec![ending(hooked.clone(), 30)], &["u1"]);
    let took = until_term(&roll.machine, "u1").await;
    assert!((4900..5200).contains(&took), "the hook alone: {took} ms");
    let calls = roll.gone().await;
    let stop = calls.iter().find(|it| it.starts_with("stop")).unwrap();
    assert!(stop.ends_with(" 24") || stop.ends_with(" 25"), "{stop}");
    // One that is done at once.
    let mut roll = Roll::of(hooked.clone()).await;
    roll.assign(7, vec![ending(hooked, 30)], &["u1"]);
    let took = until_term(&roll.machine, "u1").await;
    assert!((1900..2200).contains(&took), "{took} ms");
    roll.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_stopped_for_its_probe_does_not_wait() {
    // It was not deleted: it stays where it is, and starts again.
    let mut roll = Roll::of(web()).await;
    let mut over = web();
    over.spec.as_mut().unwrap().active_deadline_seconds = Some(1);
    roll.assign(7, vec![over.clone()], &["u1"]);
    let took = until_term(&roll.machine, "u1").await;
    assert!(took < 1200, "{took} ms");
    roll.assign(8, vec![ending(over, 30)], &[]);
    roll.gone().await;
}
