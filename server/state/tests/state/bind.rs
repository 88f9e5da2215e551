//! Binding pods.

use barge_proto::v1::{Node, NodeSpec, PodRecord, PodStatus};
use barge_state::{LOSS, ORDER, RecordKind, State, Usage, limits::Limits};

use crate::fixtures::{self, *};

fn cluster() -> State {
    state([
        put(node("n1")),
        put(revision("small", "100m", "64Mi")),
        put(revision("large", "3", "1Gi")),
        put(revision("fat", "1", "7Gi")),
        put(revision("odd", "many", "1Gi")),
        put(pod("s1", "small")),
        put(pod("s2", "small")),
        put(pod("s3", "small")),
        put(pod("s4", "small")),
        put(pod("l1", "large")),
        put(pod("l2", "large")),
        put(pod("f1", "fat")),
        put(pod("f2", "fat")),
        put(pod("o1", "odd")),
    ])
}

#[test]
fn a_refused_bind_leaves_the_others_standing() {
    let mut state = cluster();
    let applied = accept(
        &mut state,
        [
            bind("l1", "n1"),
            bind("l2", "n1"),
            bind("f1", "n2"),
            bind("gone", "n1"),
            bind("l1", "n1"),
            bind("s1", "n1"),
        ],
    );
    let answers = applied.outcome.binds;
    assert_eq!(
        answers,
        [
            "",
            "insufficient cpu",
            "the node is gone",
            "the pod is gone",
            "the pod is bound already",
            ""
        ]
    );
    assert_eq!(applied.changes.len(), 2);
    let bound = state.by_uid::<PodRecord>("l1").unwrap();
    assert_eq!(
        (bound.node_uid(), bound.record().bound),
        ("n1", Some(time(1000)))
    );
    assert_eq!(bound.meta().generation, 1);
    let usage = Usage {
        cpu_milli: 3100,
        memory_bytes: (1024 + 64) << 20,
        storage_bytes: 0,
        pods: 2,
    };
    assert_eq!(state.node_usage("n1"), usage);
    crate::indexes::check(&state);
}

#[test]
fn every_resource_has_to_fit() {
    let mut state = cluster();
    let applied = accept(
        &mut state,
        [bind("f1", "n1"), bind("f2", "n1"), bind("o1", "n1")],
    );
    assert_eq!(
        applied.outcome.binds,
        ["", "insufficient memory", "insufficient cpu"]
    );
    let applied = accept(
        &mut state,
        [bind("s1", "n1"), bind("s2", "n1"), bind("s3", "n1")],
    );
    assert_eq!(applied.outcome.binds, ["", "", "too many pods"]);
}

#[test]
fn a_port_of_a_node_is_for_one_pod() {
    let mut state = cluster();
    let small = |uid: &str| revision(uid, "100m", "64Mi");
    let taken = "node(s) didn't have free ports for the requested pod ports";
    accept(
        &mut state,
        [
            put(claiming(small("all"), 80, "")),
            put(claiming(small("first"), 80, "192.0.2.1")),
            put(claiming(small("second"), 80, "192.0.2.2")),
            put(node("n3")),
            put(pod("a1", "all")),
            put(pod("a2", "all")),
            put(pod("b1", "first")),
            put(pod("b2", "first")),
            put(pod("c1", "second")),
        ],
    );
    let applied = accept(
        &mut state,
        [
            bind("b1", "n1"),
            bind("b2", "n1"),
            bind("c1", "n1"),
            bind("a1", "n1"),
            bind("a1", "n3"),
            bind("b2", "n3"),
        ],
    );
    assert_eq!(applied.outcome.binds, ["", taken, "", taken, "", taken]);
    crate::indexes::check(&state);
    let applied = accept(
        &mut state,
        [
            report("a1", phase("Succeeded")),
            remove(RecordKind::Pod, "b1"),
            bind("b2", "n3"),
            bind("a2", "n1"),
        ],
    );
    assert_eq!(applied.outcome.binds, ["", taken]);
    crate::indexes::check(&state);
}

#[test]
fn finished_and_removed_pods_leave_room() {
    let mut state = cluster();
    accept(
        &mut state,
        [bind("l1", "n1"), report("l1", phase("Succeeded"))],
    );
    assert_eq!(state.node_usage("n1"), Usage::default());
    let applied = accept(
        &mut state,
        [bind("l2", "n1"), remove(RecordKind::Pod, "l2")],
    );
    assert_eq!(applied.outcome.binds, [""]);
    assert_eq!(state.node_usage("n1"), Usage::default());
}

#[test]
fn nodes_have_to_be_ready_and_open() {
    let mut state = cluster();
    accept(
        &mut state,
        [put_status(Node {
            status: None,
            ..node("n1")
        })],
    );
    assert_eq!(
        accept(&mut state, [bind("s1", "n1")]).outcome.binds,
        ["the node is not ready"]
    );
    let spec = Some(NodeSpec {
        unschedulable: true,
        ..NodeSpec::default()
    });
    accept(
        &mut state,
        [put_status(node("n1")), put(Node { spec, ..node("n1") })],
    );
    let answers = accept(&mut state, [bind("s1", "n1")]).outcome.binds;
    assert_eq!(answers, ["the node is unschedulable"]);
}

#[test]
fn a_finished_pod_is_not_bound() {
    let mut state = cluster();
    accept(
        &mut state,
        [report(
            "s1",
            PodStatus {
                reason: "Evicted".to_owned(),
                ..phase("Failed")
            },
        )],
    );
    assert_eq!(
        accept(&mut state, [bind("s1", "n1")]).outcome.binds,
        ["the pod has ended"]
    );
}

#[test]
fn nothing_is_bound_to_a_node_that_is_being_deleted() {
    for (level, expected) in [(LOSS, ""), (ORDER, "the node is being deleted")] {
        let mut state = State::with_limits(Limits {
            slice: 1,
            ..Limits::default()
        });
        let pods = (0..3).map(|number| put(pod(&format!("p{number}"), "small")));
        let around = [
            put(fixtures::cluster(level)),
            put(namespace("default")),
            put(node("n1")),
            put(revision("small", "100m", "64Mi")),
        ];
        accept(&mut state, around.into_iter().chain(pods));
        accept(
            &mut state,
            (0..2).map(|number| bind(&format!("p{number}"), "n1")),
        );
        accept(&mut state, [remove(RecordKind::Node, "n1")]);
        let node = state.by_uid::<Node>("n1").unwrap();
        assert!(node.metadata.as_ref().unwrap().deletion_timestamp.is_some());
        // It was cordoned with that; somebody opens it again.
        accept(&mut state, [put(fixtures::node("n1"))]);
        let applied = accept(&mut state, [bind("p2", "n1")]);
        assert_eq!(applied.outcome.binds, [expected], "at level {level}");
    }
}
