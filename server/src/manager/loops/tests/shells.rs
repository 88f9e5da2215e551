//! The loops in their shells, with their threads and timers.

use super::{memory::Memory, *};
use crate::controllers::{
    stamp::{Stamps, SystemStamps},
    testing::TERM,
};
use barge_proto::v1::{Condition, ConfigMap, PodStatus, Transaction};
use barge_state::LOSS;
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Nodes whose agents are heard.
struct Heartbeats {
    silent: Mutex<BTreeSet<String>>,
    began: Instant,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            silent: Mutex::default(),
            began: Instant::now(),
        }
    }
}

impl NodeHeartbeats for Heartbeats {
    fn last_heard(&self, node_uid: &str) -> Option<Instant> {
        let silent = self.silent.lock().unwrap().contains(node_uid);
        (!silent).then(Instant::now)
    }

    fn confirmed(&self, node_uid: &str) -> Option<Instant> {
        self.last_heard(node_uid)
    }

    fn attentive_since(&self) -> Instant {
        self.began
    }
}

struct Leader {
    memory: Memory,
    heartbeats: Arc<Heartbeats>,
    cancel: CancellationToken,
    loops: tokio::task::JoinHandle<()>,
    agents: tokio::task::JoinHandle<()>,
}

/// Starts the loops, and agents that run what they are given.
fn start(world: World) -> Leader {
    let memory = Memory::new(world.state);
    let heartbeats = Arc::new(Heartbeats::default());
    let cancel = CancellationToken::new();
    let loops = tokio::spawn(run(
        memory.clone(),
        heartbeats.clone(),
        Context {
            term: TERM,
            stamps: Arc::new(SystemStamps),
            cancel: cancel.clone(),
            meters: Meters::default(),
        },
        NodeTimes {
            patience: Duration::ZERO,
            grace: NODE_GRACE,
            loss_interval: NODE_LOSS_INTERVAL,
        },
    ));
    let agents = tokio::spawn(agents(memory.clone(), heartbeats.clone()));
    Leader {
        memory,
        heartbeats,
        cancel,
        loops,
        agents,
    }
}

impl Leader {
    /// Waits until it is so.
    async fn until(&self, what: &str, holds: impl Fn(&barge_state::State) -> bool) {
        let waited = async {
            while !self.memory.read(&holds) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let deadline = Duration::from_secs(60);
        assert!(
            tokio::time::timeout(deadline, waited).await.is_ok(),
            "never: {what}"
        );
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.loops.await.unwrap();
        self.agents.abort();
    }

    fn put(&self, record: Record) {
        let outcome = self.memory.apply(&transaction([change::Change::Put(
            barge_proto::v1::Record {
                record: Some(record),
            },
        )]));
        assert_eq!(outcome.refusal, None);
    }
}

fn transaction(changes: impl IntoIterator<Item = change::Change>) -> Transaction {
    let changes = changes.into_iter().map(|change| Change {
        change: Some(change),
    });
    Transaction {
        time: Some(SystemStamps.now()),
        changes: changes.collect(),
        ..Transaction::default()
    }
}

async fn agents(memory: Memory, heartbeats: Arc<Heartbeats>) {
    loop {
        let silent = heartbeats.silent.lock().unwrap().clone();
        let pods: Vec<_> = memory.read(|state| state.list::<PodRecord>(None).cloned().collect());
        let bound = |pod: &Arc<PackedPod>| pod.is_bound() && !silent.contains(pod.node_uid());
        for pod in pods.into_iter().filter(bound) {
            if pods::is_terminating(&pod) {
                memory.apply(&transaction([change::Change::Remove(plan::reference(
                    &*pod,
                ))]));
            } else if !pods::is_ready(&pod) {
                let condition = Condition {
                    r#type: "Ready".into(),
                    status: "True".into(),
                    ..Condition::default()
                };
                let status = PodStatus {
                    phase: "Running".into(),
                    pod_ip: format!("10.1.0.{}", pod.meta().resource_version),
                    conditions: vec![condition],
                    ..PodStatus::default()
                };
                memory.apply(&transaction([change::Change::PutStatus(
                    barge_proto::v1::Record {
                        record: Some(Record::Pod(PodRecord {
                            status: Some(status),
                            ..pod.record()
                        })),
                    },
                )]));
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ready(state: &barge_state::State) -> usize {
    let pods = state.list::<PodRecord>(None);
    pods.filter(|pod| pods::is_live(pod) && pods::is_ready(pod))
        .count()
}

fn addresses(state: &barge_state::State) -> usize {
    let endpoints = state.get::<Endpoints>("default", "nginx-service");
    let subsets = endpoints.map_or(&[][..], |endpoints| &endpoints.subsets);
    subsets.iter().map(|subset| subset.addresses.len()).sum()
}

#[tokio::test]
async fn the_example_runs_and_scales_and_goes() {
    let leader = start(cluster(&["one", "two"]));
    leader
        .until("3 ready pods", |state| {
            ready(state) == 3 && addresses(state) == 3
        })
        .await;
    let uid = leader.memory.read(|state| {
        let deployments = state.list::<barge_proto::v1::Deployment>(None);
        deployments
            .map(|deployment| deployment.uid().to_owned())
            .next()
            .unwrap()
    });
    leader.put(nginx(&uid, 7));
    leader
        .until("7 ready pods", |state| {
            ready(state) == 7 && addresses(state) == 7
        })
        .await;
    leader.put(nginx(&uid, 0));
    leader
        .until("no pods", |state| {
            state.count::<PodRecord>() == 0 && addresses(state) == 0
        })
        .await;
    leader.stop().await;
}

#[tokio::test]
async fn lost_answers_and_watches_change_nothing_in_the_end() {
    let leader = start(cluster(&["one", "two"]));
    leader.memory.unanswered.store(10, Ordering::SeqCst);
    leader.memory.gaps.store(10, Ordering::SeqCst);
    leader
        .until("3 ready pods", |state| {
            ready(state) == 3 && addresses(state) == 3
        })
        .await;
    assert_eq!(leader.memory.read(|state| state.count::<PodRecord>()), 3);
    leader.stop().await;
}

#[tokio::test]
async fn what_owns_much_goes_in_slices() {
    let mut world = cluster(&["one"]);
    let meta = |name: &str| barge_proto::v1::ObjectMeta {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: name.to_owned(),
        ..Default::default()
    };
    world.put(Record::Cluster(barge_proto::v1::ClusterRecord {
        metadata: Some(barge_proto::v1::ObjectMeta {
            namespace: String::new(),
            ..meta("cluster")
        }),
        feature_level: barge_state::LOSS,
        ..Default::default()
    }));
    let config_map = |metadata| ConfigMap {
        metadata: Some(metadata),
        ..ConfigMap::default()
    };
    let owner = config_map(meta("owner"));
    world.put(Record::ConfigMap(owner.clone()));
    let reference = plan::controller_reference("v1", "ConfigMap", owner.meta());
    world.apply((0..1200).map(|number| {
        let mut metadata = meta(&format!("owned-{number}"));
        metadata.owner_references = vec![reference.clone()];
        change::Change::Put(config_map(metadata).into_record())
    }));
    let leader = start(world);
    let remove = change::Change::Remove(plan::reference(&owner));
    let outcome = leader.memory.apply(&transaction([remove]));
    assert_eq!(outcome.refusal, None);
    let left = leader.memory.read(|state| state.count::<ConfigMap>());
    assert!(left > 0, "they do not go at once");
    leader
        .until("none is left", |state| state.count::<ConfigMap>() == 0)
        .await;
    leader.stop().await;
}

#[tokio::test]
async fn a_lost_machine_is_replaced() {
    let leader = start(cluster(&["one", "two"]));
    leader
        .until("3 ready pods", |state| ready(state) == 3)
        .await;
    let two = leader
        .memory
        .read(|state| state.get::<Node>("", "two").unwrap().uid().to_owned());
    leader.heartbeats.silent.lock().unwrap().insert(two.clone());
    leader
        .until("3 ready pods elsewhere", |state| {
            ready(state) == 3 && state.pods_on(&two).next().is_none() && addresses(state) == 3
        })
        .await;
    leader.heartbeats.silent.lock().unwrap().clear();
    leader
        .until("the node is back", |state| {
            barge_state::node_is_ready(state.by_uid::<Node>(&two).unwrap())
        })
        .await;
    leader.stop().await;
}

#[tokio::test]
async fn a_machine_that_is_back_before_it_is_replaced_keeps_its_pods() {
    let mut world = cluster(&["one", "two"]);
    world.raise(LOSS);
    let leader = start(world);
    leader
        .until("3 ready pods", |state| ready(state) == 3)
        .await;
    let node = |name: &str| {
        let found = |state: &barge_state::State| state.get::<Node>("", name).unwrap().clone();
        leader.memory.read(found)
    };
    let two = node("two").uid().to_owned();
    // Nothing can be replaced: there is no other place.
    let mut cordoned = Node::clone(&node("one"));
    cordoned.spec.get_or_insert_default().unschedulable = true;
    leader.put(Record::Node(cordoned));
    let there = |state: &barge_state::State| {
        let pods = state.pods_on(&two);
        pods.map(|pod| pod.uid().to_owned()).collect::<Vec<_>>()
    };
    let before = leader.memory.read(there);
    leader.heartbeats.silent.lock().unwrap().insert(two.clone());
    leader
        .until("its pods are lost", |state| {
            state.lost_on(&two).count() == before.len() && addresses(state) == 3 - before.len()
        })
        .await;
    leader.heartbeats.silent.lock().unwrap().clear();
    leader
        .until("the same 3 pods", |state| {
            ready(state) == 3 && addresses(state) == 3 && state.count::<PodRecord>() == 3
        })
        .await;
    assert_eq!(leader.memory.read(there), before);
    leader.stop().await;
}

#[tokio::test]
async fn a_deposed_leader_changes_nothing_and_ends() {
    let leader = start(cluster(&["one"]));
    leader
        .until("3 ready pods", |state| ready(state) == 3)
        .await;
    leader.memory.term.store(99, Ordering::SeqCst);
    let uid = leader.memory.read(|state| {
        let deployments = state.list::<barge_proto::v1::Deployment>(None);
        deployments
            .map(|deployment| deployment.uid().to_owned())
            .next()
            .unwrap()
    });
    leader.put(nginx(&uid, 9));
    let refused = leader.memory.refused.clone();
    leader
        .until("a refusal", |_| refused.load(Ordering::SeqCst) > 0)
        .await;
    assert_eq!(leader.memory.read(|state| state.count::<PodRecord>()), 3);
    leader.stop().await;
}

#[tokio::test]
async fn dropping_the_loops_ends_the_schedulers_thread() {
    struct Probe(Arc<AtomicBool>);
    impl Drop for Probe {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    #[derive(Clone)]
    struct Probed(#[allow(dead_code, reason = "held to be dropped")] Arc<Probe>);
    impl Stamps for Probed {
        fn now(&self) -> barge_proto::v1::Time {
            SystemStamps.now()
        }
        fn monotonic(&self) -> Instant {
            SystemStamps.monotonic()
        }
        fn seed(&self) -> [u8; 32] {
            SystemStamps.seed()
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let stamps = Arc::new(Probed(Arc::new(Probe(dropped.clone()))));
    let memory = Memory::new(cluster(&["one"]).state);
    let heartbeats = Arc::new(Heartbeats::default());
    let loops = tokio::spawn(run(
        memory.clone(),
        heartbeats,
        Context {
            term: TERM,
            stamps,
            cancel: CancellationToken::new(),
            meters: Meters::default(),
        },
        NodeTimes {
            patience: Duration::ZERO,
            grace: NODE_GRACE,
            loss_interval: NODE_LOSS_INTERVAL,
        },
    ));
    // The thread runs: it has bound a pod.
    let bound = |state: &barge_state::State| {
        let mut pods = state.list::<PodRecord>(None);
        pods.any(|pod| pod.is_bound())
    };
    let deadline = Duration::from_secs(60);
    let started = async {
        while !memory.read(bound) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(deadline, started).await.is_ok());
    loops.abort();
    let ended = async {
        while !dropped.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(deadline, ended).await.is_ok());
}

#[tokio::test]
async fn pods_whose_placing_panics_hold_up_no_others() {
    let mut world = cluster(&["one"]);
    let uid = world.uid();
    let Record::Deployment(mut poisonous) = nginx(&uid, 2) else {
        panic!("a Deployment");
    };
    poisonous.metadata.as_mut().unwrap().name = "poisonous".to_owned();
    let template = poisonous.spec.as_mut().unwrap().template.as_mut().unwrap();
    let selector = &mut template.spec.as_mut().unwrap().node_selector;
    selector.insert("test/poison".to_owned(), String::new());
    world.put(Record::Deployment(poisonous));
    let leader = start(world);
    leader
        .until("3 ready pods", |state| ready(state) == 3)
        .await;
    let told = |state: &barge_state::State| {
        let mut events = state.list::<barge_proto::v1::Event>(None);
        events.any(|event| {
            event.reason == "FailedScheduling" && event.message.contains("a fault of Barge")
        })
    };
    leader.until("the others are told why", told).await;
    leader.stop().await;
}
