//! Measures the state alone, without Raft and disk: `cargo run --release -p barge-state --example binds [PODS] [NODES]`.
//! Prints how fast pods are created, bound and reported running, and how much memory each takes.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measurement needs a clock; the state has none"
)]

use std::{env, fs, time::Instant};

use barge_proto::v1::{
    Bind, Change, Condition, ContainerStatus, Node, NodeSpec, NodeStatus, ObjectMeta,
    OwnerReference, PodRecord, PodStatus, Quantity, Record, ReportPod, Revision, StatusVersion,
    Time, Transaction, change::Change as Action, record::Record as Body,
};
use barge_state::State;

/// Changes in one transaction.
const BATCH: usize = 500;

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|number| number.parse().ok());
    let (pods, nodes) = (
        numbers.next().unwrap_or(100_000),
        numbers.next().unwrap_or(5_000),
    );
    let mut state = State::default();
    let template = Revision {
        metadata: meta("r", 0),
        ..Revision::default()
    };
    run(&mut state, [put(Body::Revision(template))]);
    run(&mut state, (0..nodes).map(node));
    let empty = resident();
    measure("created", pods, || {
        run(&mut state, (0..pods).map(|pod| put(Body::Pod(record(pod)))))
    });
    measure("bound", pods, || {
        run(
            &mut state,
            (0..pods).map(|pod| {
                let (pod_uid, node_uid) = (uid("p", pod), uid("n", pod % nodes));
                Action::Bind(Bind { pod_uid, node_uid })
            }),
        );
    });
    measure("reported running", pods, || {
        run(&mut state, (0..pods).map(|pod| running(pod, nodes)))
    });
    println!("{} bytes a pod", (resident() - empty) / pods.max(1));
}

fn measure(what: &str, count: usize, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    println!(
        "{:.0} pods/s {what}",
        count as f64 / start.elapsed().as_secs_f64()
    );
}

fn run(state: &mut State, changes: impl IntoIterator<Item = Action>) {
    let mut changes = changes
        .into_iter()
        .map(|change| Change {
            change: Some(change),
        })
        .peekable();
    while changes.peek().is_some() {
        let changes = changes.by_ref().take(BATCH).collect();
        let time = Some(Time {
            seconds: 1_800_000_000,
            nanos: 0,
        });
        let applied = state.apply(
            1,
            Transaction {
                time,
                changes,
                ..Transaction::default()
            },
        );
        let outcome = applied.outcome;
        assert!(outcome.refusal.is_none(), "{:?}", outcome.refusal);
        assert!(
            outcome.binds.iter().all(String::is_empty),
            "{:?}",
            outcome.binds
        );
    }
}

fn put(body: Body) -> Action {
    Action::Put(Record { record: Some(body) })
}

/// As long as a real one.
fn uid(prefix: &str, number: usize) -> String {
    // Spread like random ones.
    let spread = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{spread:016x}-0000-4000-{prefix:0>2}-{number:010}")
}

fn meta(prefix: &str, number: usize) -> Option<ObjectMeta> {
    let uid = uid(prefix, number);
    let name = format!("web-6d4cf56db6-{number:07}");
    Some(ObjectMeta {
        name,
        namespace: "default".to_owned(),
        uid,
        ..ObjectMeta::default()
    })
}

fn record(number: usize) -> PodRecord {
    let owner = OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: "web".to_owned(),
        uid: uid("r", 0),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let metadata = meta("p", number).map(|metadata| ObjectMeta {
        owner_references: vec![owner],
        ..metadata
    });
    PodRecord {
        metadata,
        template_uid: uid("r", 0),
        ..PodRecord::default()
    }
}

fn node(number: usize) -> Action {
    let amounts = [("cpu", "1000"), ("memory", "1Ti"), ("pods", "100000")];
    let amounts = amounts.map(|(name, value)| {
        (
            name.to_owned(),
            Quantity {
                value: value.to_owned(),
            },
        )
    });
    let status = NodeStatus {
        allocatable: amounts.into(),
        conditions: vec![condition("Ready")],
        ..NodeStatus::default()
    };
    let metadata = meta("n", number).map(|metadata| ObjectMeta {
        namespace: String::new(),
        ..metadata
    });
    put(Body::Node(Node {
        metadata,
        spec: Some(NodeSpec::default()),
        status: Some(status),
        ..Node::default()
    }))
}

fn condition(name: &str) -> Condition {
    Condition {
        r#type: name.to_owned(),
        status: "True".to_owned(),
        ..Condition::default()
    }
}

fn running(number: usize, nodes: usize) -> Action {
    let container = ContainerStatus {
        name: "web".to_owned(),
        ready: true,
        image: "docker.io/library/nginx:latest".to_owned(),
        image_id: format!("docker.io/library/nginx@sha256:{:064x}", 1),
        container_id: format!("containerd://{}-web-0", uid("p", number)),
        ..ContainerStatus::default()
    };
    let status = PodStatus {
        phase: "Running".to_owned(),
        conditions: ["Initialized", "ContainersReady", "Ready"]
            .map(condition)
            .to_vec(),
        pod_ip: "10.244.123.123".to_owned(),
        container_statuses: vec![container],
        ..PodStatus::default()
    };
    Action::ReportPod(ReportPod {
        uid: uid("p", number),
        node_uid: uid("n", number % nodes),
        status: Some(status),
        version: Some(StatusVersion {
            incarnation: 1_790_000_000_000 + (number % nodes) as u64,
            counter: (number / nodes) as u64,
        }),
    })
}

/// Resident memory of this process, in bytes; 0 where the kernel does not say.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
