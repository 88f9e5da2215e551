//! Short ways to make records, transactions and states.

use barge_proto::v1::{
    Change, ClusterRecord, Condition, Container, ContainerPort, Deployment, DeploymentSpec, Event,
    MarkPod, Namespace, Node, NodeSpec, NodeStatus, ObjectMeta, ObjectReference, OwnerReference,
    PodRecord, PodSpec, PodStatus, PodTemplateSpec, Quantity, Record, RecordRef, Refusal,
    RefusalReason, ReplicaSet, ReplicaSetSpec, ResourceRequirements, Revision, Service,
    ServicePort, ServiceSpec, Time, Transaction, change,
};
use barge_state::{Applied, Kind, RecordKind, State};

pub const TERM: u64 = 7;

/// Metadata; cluster-scoped kinds have the namespace "".
pub fn meta(namespace: &str, name: &str, uid: &str) -> ObjectMeta {
    ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    }
}

/// The record, belonging to the object with this uid.
pub fn owned_by<K: Kind>(mut record: K, owner: &str) -> K {
    let owner = OwnerReference {
        uid: owner.to_owned(),
        ..OwnerReference::default()
    };
    record.meta_mut().owner_references.push(owner);
    record
}

pub fn namespace(name: &str) -> Namespace {
    Namespace {
        metadata: Some(meta("", name, &format!("ns-{name}"))),
        ..Namespace::default()
    }
}

pub fn deployment(uid: &str, replicas: i32) -> Deployment {
    let spec = DeploymentSpec {
        replicas: Some(replicas),
        ..DeploymentSpec::default()
    };
    Deployment {
        metadata: Some(meta("default", &format!("name-of-{uid}"), uid)),
        spec: Some(spec),
        ..Deployment::default()
    }
}

pub fn replica_set(uid: &str, replicas: i32) -> ReplicaSet {
    let spec = ReplicaSetSpec {
        replicas: Some(replicas),
        ..ReplicaSetSpec::default()
    };
    ReplicaSet {
        metadata: Some(meta("default", &format!("name-of-{uid}"), uid)),
        spec: Some(spec),
        ..ReplicaSet::default()
    }
}

pub fn service(uid: &str, cluster_ip: &str, node_ports: &[i32]) -> Service {
    let ports = node_ports.iter().map(|port| ServicePort {
        node_port: *port,
        ..ServicePort::default()
    });
    let spec = ServiceSpec {
        cluster_ip: cluster_ip.to_owned(),
        ports: ports.collect(),
        ..ServiceSpec::default()
    };
    Service {
        metadata: Some(meta("default", &format!("name-of-{uid}"), uid)),
        spec: Some(spec),
        ..Service::default()
    }
}

fn resources(cpu: &str, memory: &str) -> [(String, Quantity); 2] {
    [("cpu", cpu), ("memory", memory)].map(|(name, value)| {
        (
            name.to_owned(),
            Quantity {
                value: value.to_owned(),
            },
        )
    })
}

/// A template whose pods ask for this much.
pub fn revision(uid: &str, cpu: &str, memory: &str) -> Revision {
    let resources = ResourceRequirements {
        requests: resources(cpu, memory).into(),
        ..ResourceRequirements::default()
    };
    let container = Container {
        name: "main".to_owned(),
        resources: Some(resources),
        ..Container::default()
    };
    let spec = PodSpec {
        containers: vec![container],
        ..PodSpec::default()
    };
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels,
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    };
    Revision {
        metadata: Some(meta("default", &format!("name-of-{uid}"), uid)),
        number: 1,
        status: None,
        template: Some(template),
    }
}

/// A template whose pods claim a port of their node.
pub fn claiming(mut revision: Revision, host_port: i32, host_ip: &str) -> Revision {
    let template = revision.template.as_mut().unwrap();
    let container = &mut template.spec.as_mut().unwrap().containers[0];
    container.ports = vec![ContainerPort {
        container_port: 80,
        host_port,
        host_ip: host_ip.to_owned(),
        ..ContainerPort::default()
    }];
    revision
}

pub fn pod(uid: &str, template: &str) -> PodRecord {
    PodRecord {
        metadata: Some(meta("default", &format!("name-of-{uid}"), uid)),
        template_uid: template.to_owned(),
        ..PodRecord::default()
    }
}

/// A ready node with 4 processors, 8Gi and room for 3 pods.
pub fn node(uid: &str) -> Node {
    let pods = (
        "pods".to_owned(),
        Quantity {
            value: "3".to_owned(),
        },
    );
    let ready = Condition {
        r#type: "Ready".to_owned(),
        status: "True".to_owned(),
        ..Condition::default()
    };
    let status = NodeStatus {
        allocatable: resources("4", "8Gi").into_iter().chain([pods]).collect(),
        conditions: vec![ready],
        ..NodeStatus::default()
    };
    Node {
        metadata: Some(meta("", &format!("name-of-{uid}"), uid)),
        spec: Some(NodeSpec::default()),
        status: Some(status),
        ..Node::default()
    }
}

pub fn mark(pod_uid: &str, node_uid: &str, lost: bool) -> change::Change {
    change::Change::MarkPod(MarkPod {
        uid: pod_uid.to_owned(),
        lost,
        node_uid: node_uid.to_owned(),
    })
}

pub fn phase(phase: &str) -> PodStatus {
    PodStatus {
        phase: phase.to_owned(),
        ..PodStatus::default()
    }
}

/// An event about a pod, seen at second `at`.
pub fn event(uid: &str, object_uid: &str, message: &str, at: i64) -> Event {
    let object = ObjectReference {
        uid: object_uid.to_owned(),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        ..ObjectReference::default()
    };
    Event {
        metadata: Some(ObjectMeta {
            uid: uid.to_owned(),
            ..ObjectMeta::default()
        }),
        involved_object: Some(object),
        message: message.to_owned(),
        last_timestamp: Some(time(at)),
        ..Event::default()
    }
}

pub fn time(seconds: i64) -> Time {
    Time { seconds, nanos: 0 }
}

pub fn put<K: Kind>(record: K) -> change::Change {
    change::Change::Put(as_record(record))
}

pub fn put_status<K: Kind>(record: K) -> change::Change {
    change::Change::PutStatus(as_record(record))
}

pub fn as_record<K: Kind>(record: K) -> Record {
    record.into_record()
}

/// A report of a pod's status.
pub fn report(uid: &str, status: PodStatus) -> change::Change {
    let metadata = Some(ObjectMeta {
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    });
    put_status(PodRecord {
        metadata,
        status: Some(status),
        ..PodRecord::default()
    })
}

/// The same, as the node numbers it.
pub fn report_as(
    uid: &str,
    node_uid: &str,
    version: Option<(u64, u64)>,
    status: PodStatus,
) -> change::Change {
    change::Change::ReportPod(barge_proto::v1::ReportPod {
        uid: uid.to_owned(),
        node_uid: node_uid.to_owned(),
        status: Some(status),
        version: version.map(|(incarnation, counter)| barge_proto::v1::StatusVersion {
            incarnation,
            counter,
        }),
    })
}

pub fn remove(kind: RecordKind, uid: &str) -> change::Change {
    let uid = uid.to_owned();
    change::Change::Remove(RecordRef {
        kind: kind.number(),
        uid,
        ..RecordRef::default()
    })
}

pub fn bind(pod: &str, node: &str) -> change::Change {
    let (pod_uid, node_uid) = (pod.to_owned(), node.to_owned());
    change::Change::Bind(barge_proto::v1::Bind { pod_uid, node_uid })
}

/// A node confirms that a pod is gone.
pub fn gone(pod: &str, node: &str) -> change::Change {
    let (uid, node_uid) = (pod.to_owned(), node.to_owned());
    change::Change::PodGone(barge_proto::v1::PodGone { uid, node_uid })
}

/// The cluster at a feature level.
pub fn cluster(feature_level: u32) -> ClusterRecord {
    ClusterRecord {
        metadata: Some(meta("", "cluster", "c")),
        feature_level,
        ..ClusterRecord::default()
    }
}

pub fn terminate(uid: &str, grace: Option<i64>) -> change::Change {
    change::Change::TerminatePod(barge_proto::v1::TerminatePod {
        uid: uid.to_owned(),
        grace_period_seconds: grace,
        reason: "Asked".to_owned(),
    })
}

/// A transaction at second 1000.
pub fn tx(changes: impl IntoIterator<Item = change::Change>) -> Transaction {
    let changes = changes
        .into_iter()
        .map(|change| Change {
            change: Some(change),
        })
        .collect();
    Transaction {
        principal: "admin/1".to_owned(),
        time: Some(time(1000)),
        changes,
        ..Transaction::default()
    }
}

/// Applies changes that must be accepted.
pub fn accept(state: &mut State, changes: impl IntoIterator<Item = change::Change>) -> Applied {
    let applied = state.apply(TERM, tx(changes));
    assert_eq!(applied.outcome.refusal, None);
    applied
}

/// Applies changes that must be refused, and checks that they leave no trace.
pub fn refuse(
    state: &mut State,
    changes: impl IntoIterator<Item = change::Change>,
) -> RefusalReason {
    refuse_tx(state, &tx(changes)).reason()
}

/// As [`refuse`], for a whole transaction.
pub fn refuse_tx(state: &mut State, tx: &Transaction) -> Refusal {
    let before = copy(state);
    let applied = state.apply(TERM, tx.clone());
    assert_eq!(applied.changes, []);
    assert!(*state == before, "a refused transaction changed something");
    crate::indexes::check(state);
    applied.outcome.refusal.expect("a refusal")
}

/// Another state with the same content.
pub fn copy(state: &State) -> State {
    State::restore_stored(state.stored(), state.meta(), state.limits())
}

/// A state with these records.
pub fn state(changes: impl IntoIterator<Item = change::Change>) -> State {
    let mut state = State::default();
    accept(&mut state, changes);
    state
}
