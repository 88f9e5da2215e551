#![allow(clippy::unwrap_used)]
use barge_proto::v1::{ContainerState, ContainerStateWaiting, ContainerStatus};

use super::*;

fn phase(phase: &str) -> PodStatus {
    PodStatus {
        phase: phase.into(),
        ..Default::default()
    }
}

fn phases(report: &Report) -> Vec<&str> {
    report
        .pods
        .iter()
        .map(|pod| pod.status.as_ref().map_or("", |s| s.phase.as_str()))
        .collect()
}

#[test]
fn only_the_newest_status_is_kept_and_an_old_ack_does_not_drop_a_newer_one() {
    let outbox = Outbox::default();
    outbox.pod_status("a", phase("Pending"));
    outbox.pod_status("a", phase("Running"));
    let first = outbox.take().unwrap();
    assert_eq!(phases(&first), ["Running"]);
    assert!(outbox.take().is_none());
    outbox.pod_status("a", phase("Failed"));
    outbox.acknowledge(first.sequence);
    let second = outbox.take().unwrap();
    assert_eq!(phases(&second), ["Failed"]);
    assert!(second.sequence > first.sequence);
    outbox.acknowledge(second.sequence);
    outbox.restart();
    assert!(outbox.take().is_none());
}

#[test]
fn what_was_not_acknowledged_is_sent_again() {
    let outbox = Outbox::default();
    outbox.pod_gone("a", None);
    outbox.node_status(NodeStatus::default());
    let first = outbox.take().unwrap();
    outbox.restart();
    let again = outbox.take().unwrap();
    assert_eq!(again.pods, first.pods);
    assert!(again.node.is_some());
    assert_eq!(outbox.acknowledge(again.sequence), ["a"]);
    outbox.restart();
    assert!(outbox.take().is_none());
}

fn uids(report: &Report) -> Vec<&str> {
    report.pods.iter().map(|pod| pod.uid.as_str()).collect()
}

#[test]
fn statuses_are_numbered_in_the_order_in_which_they_were_made() {
    let outbox = Outbox::new(9);
    outbox.pod_status("b", phase("Running"));
    outbox.pod_status("a", phase("Pending"));
    outbox.pod_status("a", phase("Running"));
    let report = outbox.take().unwrap();
    let version = |at: usize| report.pods[at].version.unwrap();
    assert_eq!(uids(&report), ["a", "b"]);
    assert_eq!((version(0).incarnation, version(1).incarnation), (9, 9));
    assert_eq!((version(0).counter, version(1).counter), (3, 1));
    outbox.restart();
    assert_eq!(
        outbox.take().unwrap().pods,
        report.pods,
        "sent again as they were"
    );
}

#[test]
fn what_is_refused_with_others_is_not_dropped_when_these_were_replaced() {
    let outbox = Outbox::default();
    ["a", "b"]
        .iter()
        .for_each(|uid| outbox.pod_status(uid, phase("Running")));
    let first = outbox.take().unwrap();
    outbox.pod_status("b", phase("Failed"));
    assert_eq!(outbox.refused(first.sequence), None);
    outbox.acknowledge(first.sequence);
    assert_eq!(uids(&outbox.take().unwrap()), ["a"]);
    assert_eq!(uids(&outbox.take().unwrap()), ["b"]);
}

#[test]
fn a_report_is_bounded_in_bytes_and_texts_are_shortened() {
    let outbox = Outbox::default();
    let images = vec![Default::default(); 100];
    for number in 0..100 {
        let mut status = PodStatus {
            message: "é".repeat(4096),
            container_statuses: images.clone(),
            ..phase("Running")
        };
        for container in &mut status.container_statuses {
            container.image = "x".repeat(100);
        }
        outbox.pod_status(&format!("p{number}"), status);
    }
    let mut sent = 0;
    while let Some(report) = outbox.take() {
        assert!(report.encoded_len() <= REPORT_BYTES + 1024);
        assert_eq!(report.pods[0].status.as_ref().unwrap().message.len(), 1024);
        sent += report.pods.len();
        outbox.acknowledge(report.sequence);
    }
    assert_eq!(sent, 100);
}

#[test]
fn of_a_refused_report_only_what_is_refused_by_itself_is_dropped() {
    let outbox = Outbox::default();
    ["a", "b", "c"]
        .iter()
        .for_each(|uid| outbox.pod_status(uid, phase("Running")));
    let first = outbox.take().unwrap();
    assert_eq!(outbox.refused(first.sequence), None);
    assert!(outbox.acknowledge(first.sequence).is_empty());
    // Something new does not travel with them.
    outbox.pod_status("d", phase("Running"));
    let mut said = Vec::new();
    while let Some(report) = outbox.take() {
        said.push(uids(&report).join(" "));
        if report.pods[0].uid == "b" {
            let dropped = outbox.refused(report.sequence);
            assert_eq!(dropped, Some(Dropped::Pod("b".into())));
        }
        outbox.acknowledge(report.sequence);
    }
    assert_eq!(said, ["a", "b", "c", "d"]);
    assert!(!outbox.is_waiting());
}

#[test]
fn a_status_that_is_refused_is_said_once_more_without_its_messages() {
    let outbox = Outbox::new(9);
    let waiting = ContainerStateWaiting {
        reason: "ErrImagePull".into(),
        message: "no such image".into(),
    };
    let state = ContainerState {
        waiting: Some(waiting),
        ..Default::default()
    };
    let container = ContainerStatus {
        name: "web".into(),
        state: Some(state),
        ..Default::default()
    };
    let status = PodStatus {
        message: "long".into(),
        container_statuses: vec![container],
        ..phase("Running")
    };
    outbox.pod_status("a", status);
    let first = outbox.take().unwrap();
    let dropped = outbox.refused(first.sequence);
    assert_eq!(dropped, Some(Dropped::Messages("a".into())));
    assert!(outbox.acknowledge(first.sequence).is_empty());
    let again = outbox.take().unwrap();
    assert_eq!(phases(&again), ["Running"]);
    assert_eq!(again.pods[0].version, first.pods[0].version);
    let status = again.pods[0].status.as_ref().unwrap();
    let state = status.container_statuses[0].state.as_ref().unwrap();
    let waiting = state.waiting.as_ref().unwrap();
    assert_eq!(
        (&*status.message, &*waiting.message, &*waiting.reason),
        ("", "", "ErrImagePull")
    );
    let dropped = outbox.refused(again.sequence);
    assert_eq!(dropped, Some(Dropped::Pod("a".into())));
    assert!(!outbox.is_waiting());
}

#[test]
fn that_a_pod_is_gone_is_said_even_if_its_last_status_is_refused() {
    let outbox = Outbox::default();
    outbox.pod_gone("a", Some(phase("Failed")));
    let first = outbox.take().unwrap();
    assert_eq!(
        outbox.refused(first.sequence),
        Some(Dropped::Pod("a".into()))
    );
    assert!(outbox.acknowledge(first.sequence).is_empty());
    let again = outbox.take().unwrap();
    assert!(again.pods[0].gone && again.pods[0].status.is_none());
    assert_eq!(outbox.acknowledge(again.sequence), ["a"]);
}

#[test]
fn events_are_bounded_and_reports_in_flight_too() {
    let outbox = Outbox::default();
    for number in 0..EVENTS + 10 {
        outbox.event(EventReport {
            message: number.to_string(),
            ..Default::default()
        });
    }
    let mut last = 0;
    for _ in 0..IN_FLIGHT {
        last = outbox.take().unwrap().sequence;
    }
    assert!(outbox.take().is_none());
    outbox.acknowledge(last);
    let rest = outbox.take().unwrap();
    assert_eq!(
        rest.events.last().unwrap().message,
        (EVENTS + 9).to_string()
    );
    assert_eq!(rest.events.len(), EVENTS - IN_FLIGHT * EVENTS_PER_REPORT);
}
