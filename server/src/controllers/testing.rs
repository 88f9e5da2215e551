#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

//! A cluster without any I/O, for the tests of plans: a state, a clock that is turned by hand,
//! agents that are played.

use super::{
    plan::{Plan, reference},
    pods,
    stamp::Stamp,
};
use crate::store::transaction::Draft;
use barge_proto::v1::{
    Bind, Change, ClusterRecord, Condition, Container, ContainerPort, Deployment, DeploymentSpec,
    IntOrString, LabelSelector, Node, NodeAddress, NodeSpec, NodeStatus, ObjectMeta, Outcome,
    PodRecord, PodSpec, PodStatus, PodTemplateSpec, Quantity, Record, ReplicaSet, ReplicaSetSpec,
    Service, ServicePort, ServiceSpec, Time, Transaction, change::Change as What,
    int_or_string::Value, record,
};
use barge_state::{Changed, Kind, Own, PackedPod, State, labels_of};
use std::sync::Arc;

/// The term of all transactions.
pub const TERM: u64 = 7;

/// The cluster.
pub struct World {
    /// Its state.
    pub state: State,
    /// Its clock.
    pub now: Time,
    /// All changes so far that were not taken.
    pub changes: Vec<Changed>,
    seeds: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            state: State::default(),
            now: Time {
                seconds: 1_000_000,
                nanos: 0,
            },
            changes: Vec::new(),
            seeds: 0,
        }
    }
}

impl World {
    /// All managers understand this feature level.
    pub fn raise(&mut self, feature_level: u32) {
        let known = self.state.cluster().map(|cluster| cluster.uid().to_owned());
        let uid = known.unwrap_or_else(|| self.uid());
        self.put(record::Record::Cluster(ClusterRecord {
            metadata: Some(ObjectMeta {
                name: "cluster".to_owned(),
                uid,
                ..ObjectMeta::default()
            }),
            feature_level,
            ..ClusterRecord::default()
        }));
    }

    /// Turns the clock.
    pub fn advance(&mut self, seconds: i64) {
        self.now.seconds += seconds;
    }

    /// Another stamp at each call.
    pub fn stamp(&mut self) -> Stamp {
        self.seeds += 1;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seeds.to_le_bytes());
        Stamp::new(self.now, seed)
    }

    /// A new uid.
    pub fn uid(&mut self) -> String {
        self.stamp().uid()
    }

    /// Applies changes, whatever comes of it.
    pub fn submit(&mut self, changes: Vec<Change>) -> Outcome {
        let applied = self.state.apply(
            TERM,
            Transaction {
                term: TERM,
                time: Some(self.now),
                changes,
                ..Transaction::default()
            },
        );
        self.changes.extend(applied.changes);
        applied.outcome
    }

    /// Applies changes that have to be accepted.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = What>) {
        let changes = changes.into_iter().map(|change| Change {
            change: Some(change),
        });
        let outcome = self.submit(changes.collect());
        assert_eq!(outcome.refusal, None);
    }

    /// Applies what a loop of the leader says, whatever comes of it.
    pub fn propose(&mut self, draft: Draft) -> Outcome {
        let id = self.uid().into_bytes();
        let transaction = draft.build_at("controller/test".to_owned(), id, self.now, TERM);
        let applied = self.state.apply(TERM, transaction);
        self.changes.extend(applied.changes);
        applied.outcome
    }

    /// Applies a plan, which has to be accepted.
    pub fn follow(&mut self, plan: Plan) {
        let outcome = self.propose(plan.draft);
        assert_eq!(outcome.refusal, None);
    }

    /// Creates or replaces a record.
    pub fn put(&mut self, record: record::Record) {
        self.apply([What::Put(Record {
            record: Some(record),
        })]);
    }

    /// Replaces the status of a record.
    pub fn put_status(&mut self, record: record::Record) {
        self.apply([What::PutStatus(Record {
            record: Some(record),
        })]);
    }

    /// Removes a record.
    pub fn remove(&mut self, record: &impl barge_state::Kept) {
        self.apply([What::Remove(reference(record))]);
    }

    /// A node that is ready, with processors, MiB and places for pods.
    pub fn node(&mut self, name: &str, cpu: i64, memory: i64, pods: i64) -> Arc<Node> {
        let uid = self.uid();
        let mut labels = std::collections::BTreeMap::new();
        labels.insert("kubernetes.io/hostname".to_owned(), name.to_owned());
        let mut node = Node {
            metadata: Some(ObjectMeta {
                name: name.to_owned(),
                uid: uid.clone(),
                labels,
                ..ObjectMeta::default()
            }),
            spec: Some(NodeSpec::default()),
            ..Node::default()
        };
        self.put(record::Record::Node(node.clone()));
        node.status = Some(NodeStatus {
            allocatable: allocatable(cpu, memory, pods),
            conditions: vec![condition("Ready", true, self.now)],
            addresses: vec![NodeAddress {
                r#type: "InternalIP".to_owned(),
                address: format!("10.0.0.{}", self.state.count::<Node>()),
            }],
            ..NodeStatus::default()
        });
        self.put_status(record::Record::Node(node));
        self.by_uid::<Node>(&uid)
    }

    /// A record that is there.
    pub fn by_uid<K: Kind>(&self, uid: &str) -> Arc<K::Kept> {
        self.state.by_uid::<K>(uid).unwrap().clone()
    }

    /// A Deployment as it is.
    pub fn deployment(&self, name: &str) -> Arc<Deployment> {
        self.state
            .get::<Deployment>("default", name)
            .unwrap()
            .clone()
    }

    /// Changes the spec of a Deployment.
    pub fn edit(&mut self, name: &str, edit: impl FnOnce(&mut DeploymentSpec)) {
        let mut deployment = Deployment::clone(&self.deployment(name));
        edit(deployment.spec.as_mut().unwrap());
        self.put(record::Record::Deployment(deployment));
    }

    /// All pods.
    pub fn pods(&self) -> Vec<Arc<PackedPod>> {
        self.state.list::<PodRecord>(None).cloned().collect()
    }

    /// Live pods.
    pub fn live(&self) -> Vec<Arc<PackedPod>> {
        let mut pods = self.pods();
        pods.retain(|pod| pods::is_live(pod));
        pods
    }

    /// Binds a pod.
    pub fn bind(&mut self, pod: &PackedPod, node: &Node) {
        self.apply([What::Bind(Bind {
            pod_uid: pod.uid().to_owned(),
            node_uid: node.uid().to_owned(),
        })]);
    }

    /// Plays the agent: a pod's phase, and whether it is ready.
    pub fn report(&mut self, uid: &str, phase: &str, ready: bool) {
        let old = self.by_uid::<PodRecord>(uid);
        let since = match old.ready_transition() {
            Some(since) if old.has_condition("Ready") == ready => since,
            _ => self.now,
        };
        self.put_status(record::Record::Pod(PodRecord {
            metadata: Some(old.meta()),
            status: Some(PodStatus {
                phase: phase.to_owned(),
                pod_ip: address(uid),
                conditions: vec![condition("Ready", ready, since)],
                ..PodStatus::default()
            }),
            ..PodRecord::default()
        }));
    }

    /// Gives a pod these labels instead of those that it has, as a client does.
    pub fn label(&mut self, pod: &PackedPod, labels: &[(&str, &str)]) {
        let mut record = self.by_uid::<PodRecord>(pod.uid()).record();
        let template = self.state.template(pod).unwrap().template.as_ref();
        let wanted = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let (set, removed) = Own::between(labels_of(template), &wanted.collect());
        record.metadata.as_mut().unwrap().labels = set;
        record.removed_labels = removed;
        self.put(record::Record::Pod(record));
    }

    /// Messages of all events of that reason.
    pub fn events(&self, reason: &str) -> Vec<String> {
        self.state
            .list::<barge_proto::v1::Event>(None)
            .filter(|event| event.reason == reason)
            .map(|event| event.message.clone())
            .collect()
    }
}

/// An address that follows from a uid.
fn address(uid: &str) -> String {
    let number = uid.bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let [_, high, middle, low] = number.to_be_bytes();
    format!("10.{high}.{middle}.{low}")
}

/// What a node offers.
pub fn allocatable(
    cpu: i64,
    memory: i64,
    pods: i64,
) -> std::collections::BTreeMap<String, Quantity> {
    let quantity = |value: String| Quantity { value };
    [
        ("cpu".to_owned(), quantity(format!("{cpu}m"))),
        ("memory".to_owned(), quantity(format!("{memory}Mi"))),
        ("pods".to_owned(), quantity(pods.to_string())),
    ]
    .into()
}

/// A condition that is True or False since then.
pub fn condition(kind: &str, value: bool, since: Time) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: if value { "True" } else { "False" }.to_owned(),
        last_transition_time: Some(since),
        ..Condition::default()
    }
}

/// The Deployment of the examples.
pub fn nginx(uid: &str, replicas: i32) -> record::Record {
    let labels = std::collections::BTreeMap::from([("app".to_owned(), "nginx".to_owned())]);
    record::Record::Deployment(Deployment {
        metadata: Some(ObjectMeta {
            name: "nginx-deployment".to_owned(),
            namespace: "default".to_owned(),
            uid: uid.to_owned(),
            ..ObjectMeta::default()
        }),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: Some(LabelSelector {
                match_labels: labels.clone(),
                ..LabelSelector::default()
            }),
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels,
                    ..ObjectMeta::default()
                }),
                spec: Some(PodSpec {
                    containers: vec![Container {
                        name: "nginx".to_owned(),
                        image: "nginx:latest".to_owned(),
                        ports: vec![ContainerPort {
                            container_port: 80,
                            ..ContainerPort::default()
                        }],
                        ..Container::default()
                    }],
                    ..PodSpec::default()
                }),
            }),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    })
}

/// A ReplicaSet "web" with the pods of the examples' Deployment.
pub fn web_set(uid: &str, replicas: i32) -> record::Record {
    let record::Record::Deployment(deployment) = nginx(uid, replicas) else {
        panic!("no Deployment");
    };
    let spec = deployment.spec.unwrap();
    record::Record::ReplicaSet(ReplicaSet {
        metadata: Some(ObjectMeta {
            name: "web".to_owned(),
            ..deployment.metadata.unwrap()
        }),
        spec: Some(ReplicaSetSpec {
            replicas: spec.replicas,
            selector: spec.selector,
            template: spec.template,
            min_ready_seconds: 0,
        }),
        ..ReplicaSet::default()
    })
}

/// The Service of the examples.
pub fn nginx_service(uid: &str) -> Service {
    Service {
        metadata: Some(ObjectMeta {
            name: "nginx-service".to_owned(),
            namespace: "default".to_owned(),
            uid: uid.to_owned(),
            ..ObjectMeta::default()
        }),
        spec: Some(ServiceSpec {
            selector: [("app".to_owned(), "nginx".to_owned())].into(),
            ports: vec![ServicePort {
                protocol: "TCP".to_owned(),
                port: 80,
                target_port: Some(IntOrString {
                    value: Some(Value::Int(80)),
                }),
                ..ServicePort::default()
            }],
            r#type: "LoadBalancer".to_owned(),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Sets the image of a Deployment's only container.
pub fn set_image(spec: &mut DeploymentSpec, image: &str) {
    let template = spec.template.as_mut().unwrap();
    template.spec.as_mut().unwrap().containers[0].image = image.to_owned();
}
