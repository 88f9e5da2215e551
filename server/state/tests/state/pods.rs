//! What is believed of a pod's status, and how it ends.

use barge_proto::v1::{Condition, PodIp, PodRecord, PodStatus};
use barge_state::{Kind, RecordKind, State};

use crate::fixtures::*;

fn bound_pod() -> State {
    state([
        put(node("n1")),
        put(revision("r1", "1", "1Gi")),
        put(pod("p1", "r1")),
        bind("p1", "n1"),
    ])
}

fn status(state: &State) -> PodStatus {
    state.by_uid::<PodRecord>("p1").unwrap().status()
}

#[test]
fn the_phase_never_moves_back() {
    let mut state = bound_pod();
    accept(&mut state, [report("p1", phase("Running"))]);
    let late = PodStatus {
        message: "starting".to_owned(),
        ..phase("Pending")
    };
    accept(&mut state, [report("p1", late)]);
    assert_eq!(
        status(&state),
        PodStatus {
            message: "starting".to_owned(),
            ..phase("Running")
        }
    );
    accept(&mut state, [report("p1", phase("Failed"))]);
    for other in ["Running", "Succeeded", ""] {
        let applied = accept(&mut state, [report("p1", phase(other))]);
        assert_eq!(applied.changes, [], "{other}");
    }
    let detail = PodStatus {
        message: "exit code 1".to_owned(),
        ..phase("Failed")
    };
    accept(&mut state, [report("p1", detail.clone())]);
    assert_eq!(status(&state), detail);
}

#[test]
fn a_report_that_comes_late_never_overwrites_a_newer_one() {
    let said = |message: &str| PodStatus {
        message: message.to_owned(),
        ..phase("Running")
    };
    let mut state = bound_pod();
    let mut message_after = |version, message| {
        accept(&mut state, [report_as("p1", "n1", version, said(message))]);
        status(&state).message
    };
    assert_eq!(message_after(Some((7, 4)), "four"), "four");
    assert_eq!(message_after(Some((7, 3)), "three"), "four");
    assert_eq!(message_after(Some((7, 4)), "four again"), "four");
    assert_eq!(message_after(Some((6, 9)), "an earlier process"), "four");
    assert_eq!(message_after(Some((7, 6)), "four"), "four");
    assert_eq!(message_after(Some((7, 5)), "five"), "four", "six says four");
    assert_eq!(
        message_after(Some((8, 1)), "the next process"),
        "the next process"
    );
    assert_eq!(
        message_after(None, "it does not count"),
        "it does not count"
    );
    assert_eq!(message_after(Some((8, 1)), "late"), "it does not count");
    assert_eq!(message_after(Some((8, 2)), "it counts"), "it counts");
}

#[test]
fn a_report_is_believed_of_pods_of_the_node_only_and_brings_none_back() {
    let mut state = bound_pod();
    let applied = accept(&mut state, [report_as("p1", "n2", None, phase("Running"))]);
    assert_eq!(applied.changes, []);
    accept(&mut state, [gone("p1", "n1")]);
    let late = report_as("p1", "n1", Some((1, 1)), phase("Running"));
    assert_eq!(accept(&mut state, [late]).changes, []);
    assert!(state.by_uid::<PodRecord>("p1").is_none());
}

#[test]
fn what_is_known_otherwise_is_not_kept() {
    let mut state = bound_pod();
    let condition = |name: &str| Condition {
        r#type: name.to_owned(),
        ..Condition::default()
    };
    let reported = PodStatus {
        host_ip: "192.0.2.1".to_owned(),
        pod_ip: "10.244.1.2".to_owned(),
        pod_ips: vec![PodIp {
            ip: "10.244.1.2".to_owned(),
        }],
        conditions: vec![condition("PodScheduled"), condition("Ready")],
        ..phase("Running")
    };
    accept(&mut state, [report("p1", reported.clone())]);
    let kept = PodStatus {
        host_ip: String::new(),
        pod_ips: Vec::new(),
        conditions: vec![condition("Ready")],
        ..reported.clone()
    };
    assert_eq!(status(&state), kept);
    assert_eq!(accept(&mut state, [report("p1", reported)]).changes, []);
}

#[test]
fn a_pod_on_a_node_ends_gracefully() {
    let mut state = bound_pod();
    accept(&mut state, [terminate("p1", None)]);
    let ends = |state: &State| {
        let meta = state.by_uid::<PodRecord>("p1").unwrap().meta();
        (meta.deletion_timestamp, meta.deletion_grace_period_seconds)
    };
    assert_eq!(ends(&state), (Some(time(1030)), Some(30)));
    assert_eq!(
        accept(&mut state, [terminate("p1", Some(40))]).changes,
        [],
        "never later"
    );
    accept(&mut state, [terminate("p1", Some(0))]);
    assert_eq!(ends(&state), (Some(time(1000)), Some(0)));
    accept(&mut state, [report("p1", phase("Running"))]);
    assert_eq!(status(&state).reason, "Asked", "the node does not know why");
    let mut relabelled = pod("p1", "r1");
    relabelled
        .meta_mut()
        .labels
        .insert("a".to_owned(), "b".to_owned());
    accept(&mut state, [put(relabelled)]);
    assert_eq!(
        ends(&state),
        (Some(time(1000)), Some(0)),
        "a put does not revive"
    );
    accept(&mut state, [remove(RecordKind::Pod, "p1")]);
    assert_eq!(state.count::<PodRecord>(), 0);
}

#[test]
fn a_pod_that_nobody_runs_ends_at_once() {
    let mut state = bound_pod();
    accept(&mut state, [put(pod("p2", "r1"))]);
    accept(&mut state, [terminate("p2", None), terminate("gone", None)]);
    assert_eq!(state.by_uid::<PodRecord>("p2"), None);
}

#[test]
fn a_lost_pod_is_marked_once_and_a_report_does_not_find_it() {
    let mut state = bound_pod();
    let lost = |state: &State| state.by_uid::<PodRecord>("p1").unwrap().record().lost;
    let marked = accept(&mut state, [mark("p1", "n1", true)]);
    let since = lost(&state);
    assert!(since.is_some() && state.lost_on("n1").count() == 1);
    assert_eq!(marked.changes.len(), 1);
    let again = accept(&mut state, [mark("p1", "n1", true)]);
    assert_eq!(again.changes, [], "it keeps its time");
    accept(&mut state, [report("p1", phase("Running"))]);
    accept(&mut state, [put(pod("p1", "r1"))]);
    assert_eq!(lost(&state), since);
    for other in [mark("p1", "n2", false), mark("p2", "n1", true)] {
        assert_eq!(accept(&mut state, [other]).changes, []);
    }
    accept(&mut state, [mark("p1", "n1", false)]);
    assert_eq!((lost(&state), state.lost_on("n1").count()), (None, 0));
}

#[test]
fn a_pod_that_is_bound_nowhere_is_not_lost() {
    let mut state = state([put(revision("r1", "1", "1Gi")), put(pod("p1", "r1"))]);
    assert_eq!(accept(&mut state, [mark("p1", "", true)]).changes, []);
}
