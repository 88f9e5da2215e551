#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What an agent may change, and what it may not.

use barge_proto::v1::{
    Bind, ClusterRecord, Condition, EventReport, Namespace, NodeSpec, PodReport, PodStatus,
    PodTemplateSpec, Quantity, Revision, StatusVersion, Transaction, change::Change as Action,
};

use super::*;

fn meta(namespace: &str, name: &str, uid: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    })
}

fn node(uid: &str, range: &str) -> Node {
    let amount = |value: &str| Quantity {
        value: value.to_owned(),
    };
    Node {
        metadata: meta("", uid, uid),
        spec: Some(NodeSpec {
            pod_cidr: range.to_owned(),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            allocatable: [("cpu", "4"), ("memory", "8Gi"), ("pods", "110")]
                .map(|(name, value)| (name.to_owned(), amount(value)))
                .into(),
            conditions: vec![Condition {
                r#type: READY.to_owned(),
                status: "True".to_owned(),
                ..Condition::default()
            }],
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

/// Two nodes with a pod each.
fn state() -> State {
    at_level(ORDER)
}

fn at_level(feature_level: u32) -> State {
    let mut draft = Draft::new();
    draft.put(ClusterRecord {
        metadata: meta("", "cluster", "c"),
        feature_level,
        ..ClusterRecord::default()
    });
    draft.put(Namespace {
        metadata: meta("", "default", "ns"),
        ..Namespace::default()
    });
    draft.put(node("n1", "10.244.0.0/24"));
    draft.put(node("n2", "10.244.1.0/24"));
    draft.put(Revision {
        metadata: meta("default", "t", "t"),
        number: 1,
        status: None,
        template: Some(PodTemplateSpec::default()),
    });
    for (pod, node) in [("p1", "n1"), ("p2", "n2")] {
        draft.put(PodRecord {
            metadata: meta("default", pod, pod),
            template_uid: "t".to_owned(),
            ..PodRecord::default()
        });
        draft.change(Action::Bind(Bind {
            pod_uid: pod.to_owned(),
            node_uid: node.to_owned(),
        }));
    }
    let mut state = State::default();
    let outcome = apply(&mut state, draft);
    assert_eq!(outcome, ["", ""], "both are bound");
    state
}

fn apply(state: &mut State, draft: Draft) -> Vec<String> {
    let transaction: Transaction = draft.build("test".to_owned(), None);
    let outcome = state.apply(1, transaction).outcome;
    assert_eq!(outcome.refusal, None);
    outcome.binds
}

fn report(state: &mut State, node_uid: &str, report: Report) {
    let relay = NodeRelay {
        node_uid: node_uid.to_owned(),
        report: Some(report),
    };
    let mut draft = Draft::new();
    plan(state, &relay, &mut draft);
    apply(state, draft);
}

fn about(pod: &str, phase: &str, gone: bool) -> Report {
    Report {
        pods: vec![PodReport {
            uid: pod.to_owned(),
            status: Some(PodStatus {
                phase: phase.to_owned(),
                ..PodStatus::default()
            }),
            gone,
            version: None,
        }],
        ..Report::default()
    }
}

fn phase(state: &State, pod: &str) -> Option<String> {
    let pod = state.by_uid::<PodRecord>(pod)?;
    Some(pod.status().phase)
}

#[test]
fn an_agent_reports_its_own_pods() {
    for level in [LOSS - 1, LOSS, ORDER] {
        let mut state = at_level(level);
        report(&mut state, "n1", about("p1", "Running", false));
        assert_eq!(phase(&state, "p1").as_deref(), Some("Running"));
        report(&mut state, "n1", about("p1", "Running", true));
        assert_eq!(phase(&state, "p1"), None);
    }
}

#[test]
fn two_reports_that_were_swapped_on_the_way_leave_the_newer() {
    let mut state = state();
    let numbered = |counter, message: &str| {
        let mut report = about("p1", "Running", false);
        report.pods[0].version = Some(StatusVersion {
            incarnation: 1,
            counter,
        });
        report.pods[0].status.as_mut().unwrap().message = message.to_owned();
        report
    };
    report(&mut state, "n1", numbered(2, "newer"));
    report(&mut state, "n1", numbered(1, "older"));
    let message = state.by_uid::<PodRecord>("p1").unwrap().status().message;
    assert_eq!(message, "newer");
}

#[test]
fn what_is_too_large_is_named() {
    let mut report = about("p1", "Running", false);
    assert_eq!(unacceptable(&report), None);
    report.pods[0].status.as_mut().unwrap().message = "x".repeat(MAX_POD_STATUS);
    let why = unacceptable(&report).unwrap();
    assert!(why.starts_with("pods[0].status of pod p1 has 65"), "{why}");
    let event = EventReport {
        message: "x".repeat(MAX_EVENT),
        ..EventReport::default()
    };
    let report = Report {
        events: vec![EventReport::default(), event],
        ..Report::default()
    };
    let why = unacceptable(&report).unwrap();
    assert!(why.starts_with("events[1] has"), "{why}");
    let large = &about("p1", "Running", false).pods[0];
    let report = Report {
        pods: vec![large.clone(); MAX_REPORT / large.encoded_len()],
        ..Report::default()
    };
    let why = unacceptable(&report).unwrap();
    assert!(why.starts_with("the report has"), "{why}");
}

#[test]
fn a_report_that_a_pod_is_gone_ends_its_tombstone() {
    let mut state = state();
    let mut draft = Draft::new();
    draft.remove::<PodRecord>("p1");
    apply(&mut state, draft);
    assert_eq!(state.tombstones_on("n1").count(), 1);
    report(&mut state, "n2", about("p1", "Failed", true));
    assert_eq!(state.tombstones_on("n1").count(), 1, "not of that node");
    report(&mut state, "n1", about("p1", "Failed", true));
    assert_eq!(state.tombstones_on("n1").count(), 0);
    let before = state.revision();
    report(&mut state, "n1", about("p1", "Failed", true));
    assert_eq!(state.revision(), before, "said again it changes nothing");
}

#[test]
fn below_the_level_of_tombstones_a_pod_that_is_gone_is_removed() {
    let mut state = at_level(LOSS - 1);
    report(&mut state, "n1", about("p1", "Running", true));
    assert_eq!(phase(&state, "p1"), None);
    assert_eq!(state.count::<PodTombstone>(), 0);
}

#[test]
fn an_agent_does_not_touch_the_pods_of_another_node() {
    let mut state = state();
    let before = state.revision();
    report(&mut state, "n1", about("p2", "Failed", false));
    report(&mut state, "n1", about("p2", "Failed", true));
    assert_eq!(state.revision(), before);
    assert!(phase(&state, "p2").is_some());
}

#[test]
fn an_agent_does_not_say_whether_its_node_is_ready() {
    let mut state = state();
    let claim = NodeStatus {
        conditions: vec![Condition {
            r#type: READY.to_owned(),
            status: "Maybe".to_owned(),
            ..Condition::default()
        }],
        ..NodeStatus::default()
    };
    let status = Report {
        node: Some(claim),
        ..Report::default()
    };
    report(&mut state, "n1", status);
    let node = state.by_uid::<Node>("n1").unwrap();
    let conditions = &node.status.as_ref().unwrap().conditions;
    assert_eq!(conditions.len(), 1);
    assert_eq!(conditions[0].status, "True");
}

#[test]
fn events_are_about_ones_own() {
    let mut state = state();
    let event = |uid: &str| EventReport {
        involved_object: Some(ObjectReference {
            // The rest of what it says of the object is not believed.
            name: "forged".to_owned(),
            uid: uid.to_owned(),
            ..ObjectReference::default()
        }),
        reason: "Started".to_owned(),
        ..EventReport::default()
    };
    let all = Report {
        events: vec![event("p1"), event("n1"), event("p2"), event("n2")],
        ..Report::default()
    };
    report(&mut state, "n1", all);
    let of = |uid: &str| state.owned::<Event>(uid).count();
    assert_eq!([of("p1"), of("n1"), of("p2"), of("n2")], [1, 1, 0, 0]);
    let event = state.owned::<Event>("p1").next().unwrap();
    assert_eq!(event.involved_object.as_ref().unwrap().name, "p1");
}

#[test]
fn a_node_that_is_gone_reports_nothing() {
    let mut state = state();
    let before = state.revision();
    report(&mut state, "n3", about("p1", "Failed", true));
    assert_eq!(state.revision(), before);
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(cut("äö", 3), "ä");
    assert_eq!(cut("abc", 3), "abc");
}
