//! Packing loses nothing, and questions answered without unpacking have the record's answers.

use barge_proto::v1::{
    Condition, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ObjectMeta, OwnerReference, PodIp, PodRecord,
    PodStatus, StatusVersion, Time,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{PackedPod, Pool};
use crate::kind::Kind;

/// What could be taken for something else.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        select(vec![
            "",
            "0",
            "00",
            "a",
            "abc",
            "ABCD",
            "0a1b",
            "10.1.2.3",
            "010.1.2.3",
            "::1",
            "://",
            "a://",
            "containerd://0a1b",
            "containerd://u-main-0",
            "Http://x",
            "u",
            "uu",
            "u://u",
            "uid",
            "é",
            "Ready",
            "True",
            "Running",
            "Back-off pulling \"docker://image\"",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
        "[0-9a-f]{0,12}",
    ]
    .boxed()
}

fn time() -> BoxedStrategy<Option<Time>> {
    let seconds = prop_oneof![any::<i64>(), 1_790_000_000..1_790_000_100_i64];
    let time = (seconds, any::<i32>()).prop_map(|(seconds, nanos)| Time { seconds, nanos });
    option::of(prop_oneof![Just(Time::default()), time]).boxed()
}

fn version() -> impl Strategy<Value = String> {
    let odd = select(vec!["", "0", "007", "+7", "x", "18446744073709551616"]);
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        odd.prop_map(str::to_owned)
    ]
}

prop_compose! {
    fn meta()(
        (name, namespace, uid) in (text(), text(), text()),
        resource_version in version(),
        generation in any::<i64>(),
        (creation_timestamp, deletion_timestamp) in (time(), time()),
        deletion_grace_period_seconds in option::of(any::<i64>()),
        label in text(),
        owners in vec(text(), 0..3),
    ) -> ObjectMeta {
        ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            deletion_grace_period_seconds,
            labels: [("a".to_owned(), label)].into(),
            owner_references: owners
                .into_iter()
                .map(|uid| OwnerReference { uid, ..OwnerReference::default() })
                .collect(),
            ..ObjectMeta::default()
        }
    }
}

prop_compose! {
    fn condition()(
        (kind, status, message) in (text(), text(), text()),
        (one, two, three) in (time(), time(), time()),
    ) -> Condition {
        Condition {
            r#type: kind,
            status,
            message,
            last_transition_time: one,
            last_update_time: two,
            last_heartbeat_time: three,
            ..Condition::default()
        }
    }
}

fn state() -> BoxedStrategy<Option<ContainerState>> {
    let waiting =
        (text(), text()).prop_map(|(reason, message)| ContainerStateWaiting { reason, message });
    let running = time().prop_map(|started_at| ContainerStateRunning { started_at });
    let terminated = (time(), time(), text(), text()).prop_map(|(started, finished, text, id)| {
        ContainerStateTerminated {
            exit_code: 1,
            message: text,
            started_at: started,
            finished_at: finished,
            container_id: id,
            ..ContainerStateTerminated::default()
        }
    });
    let state = (
        option::of(waiting),
        option::of(running),
        option::of(terminated),
    )
        .prop_map(|(waiting, running, terminated)| ContainerState {
            waiting,
            running,
            terminated,
        });
    option::of(state).boxed()
}

prop_compose! {
    fn container()(
        (name, image_id, container_id) in (text(), text(), text()),
        (state, last_state) in (state(), state()),
        restart_count in any::<i32>(),
    ) -> ContainerStatus {
        ContainerStatus {
            name,
            image_id,
            container_id,
            state,
            last_state,
            restart_count,
            ..ContainerStatus::default()
        }
    }
}

prop_compose! {
    fn status()(
        (phase, message, reason, pod_ip, other_ip) in (text(), text(), text(), text(), text()),
        conditions in vec(condition().boxed(), 0..4),
        start_time in time(),
        container_statuses in vec(container().boxed(), 0..3),
    ) -> PodStatus {
        PodStatus {
            phase,
            message,
            reason,
            pod_ip,
            pod_ips: vec![PodIp { ip: other_ip }],
            conditions,
            start_time,
            container_statuses,
            ..PodStatus::default()
        }
    }
}

prop_compose! {
    fn record()(
        metadata in option::of(meta().boxed()),
        (template_uid, node_uid) in (text(), text()),
        status in option::of(status().boxed()),
        (bound, lost) in (time(), time()),
        reported in option::of((any::<u64>(), any::<u64>())),
        (removed_labels, removed_annotations) in (vec(text(), 0..2), vec(text(), 0..2)),
    ) -> PodRecord {
        let reported = reported.map(|(incarnation, counter)| StatusVersion { incarnation, counter });
        PodRecord {
            metadata, template_uid, node_uid, status, bound, lost, reported, removed_labels,
            removed_annotations,
        }
    }
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was(record in record().boxed()) {
        prop_assert_eq!(&PackedPod::new(record.clone()).record(), &record);
    }

    #[test]
    fn sharing_changes_nothing(records in vec(record().boxed(), 0..8)) {
        let mut pool = Pool::default();
        let shared: Vec<_> =
            records.iter().map(|record| pool.share(PackedPod::new(record.clone()))).collect();
        for (shared, record) in shared.iter().zip(&records) {
            prop_assert_eq!(&shared.record(), record);
            prop_assert_eq!(shared, &PackedPod::new(record.clone()));
        }
    }

    #[test]
    fn pods_are_equal_when_their_records_are(one in record().boxed(), other in record().boxed()) {
        let packed = (PackedPod::new(one.clone()), PackedPod::new(other.clone()));
        prop_assert_eq!(packed.0 == packed.1, one == other);
        prop_assert_eq!(&packed.0, &PackedPod::new(one));
    }

    #[test]
    fn what_is_asked_is_what_the_record_says(record in record().boxed()) {
        let pod = PackedPod::new(record.clone());
        let meta = record.meta();
        prop_assert_eq!(pod.uid(), &meta.uid);
        prop_assert_eq!(pod.name(), &meta.name);
        prop_assert_eq!(pod.namespace(), &meta.namespace);
        prop_assert_eq!(pod.owners(), &meta.owner_references);
        prop_assert_eq!(pod.node_uid(), &record.node_uid);
        prop_assert_eq!(pod.template_uid(), &record.template_uid);
        prop_assert_eq!(pod.created(), meta.creation_timestamp);
        prop_assert_eq!(pod.is_lost(), record.lost.is_some());
        let grace = meta.deletion_grace_period_seconds;
        prop_assert_eq!(pod.deletion(), meta.deletion_timestamp.map(|time| (time, grace)));
        prop_assert_eq!(&pod.meta(), meta);
        let status = record.status.unwrap_or_default();
        prop_assert_eq!(pod.phase(), &status.phase);
        prop_assert_eq!(&pod.pod_ip(), &status.pod_ip);
        let ready = status.conditions.iter().find(|condition| condition.r#type == "Ready");
        let transition = ready.and_then(|ready| ready.last_transition_time);
        prop_assert_eq!(pod.ready_transition(), transition);
        prop_assert_eq!(pod.has_condition("Ready"), ready.is_some_and(|c| c.status == "True"));
        prop_assert_eq!(&pod.status(), &status);
    }
}

#[test]
fn a_running_pod_is_small() {
    let uid = "6f1c1f6e-9a53-4c0e-8d0b-2f1f4a0e7f11".to_owned();
    let at = |nanos| {
        let seconds = 1_790_000_000;
        Some(Time { seconds, nanos })
    };
    let condition = |kind: &str| Condition {
        r#type: kind.to_owned(),
        last_transition_time: at(123_000_000),
        ..Condition::default()
    };
    let running = ContainerStateRunning {
        started_at: at(100_000_000),
    };
    let container = ContainerStatus {
        image: "registry.example.com/team/web:1.0".to_owned(),
        container_id: format!("containerd://{uid}-main-0"),
        state: Some(ContainerState {
            running: Some(running),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    };
    let pod = PackedPod::new(PodRecord {
        metadata: Some(ObjectMeta {
            name: "web-6d4cf56db6-x7k2p".to_owned(),
            uid,
            resource_version: "123456789".to_owned(),
            creation_timestamp: at(987_654_321),
            ..ObjectMeta::default()
        }),
        bound: at(998_765_432),
        reported: Some(StatusVersion {
            incarnation: 1_790_000_000_123,
            counter: 40_000,
        }),
        status: Some(PodStatus {
            pod_ip: "10.244.3.7".to_owned(),
            start_time: at(0),
            conditions: ["Initialized", "Ready", "ContainersReady"]
                .map(condition)
                .to_vec(),
            container_statuses: vec![container],
            ..PodStatus::default()
        }),
        ..PodRecord::default()
    });
    assert!(pod.size() <= 233, "{}", pod.size());
}

#[test]
fn shapes_that_nobody_uses_go() {
    let mut pool = Pool::default();
    let pod = |name: String| PodRecord {
        template_uid: name,
        ..PodRecord::default()
    };
    let kept = pool.share(PackedPod::new(pod("kept".to_owned())));
    for number in 0..10_000 {
        pool.share(PackedPod::new(pod(number.to_string())));
        assert!(pool.len() <= super::pool::FEW + 1);
    }
    let again = pool.share(PackedPod::new(pod("kept".to_owned())));
    assert!(std::sync::Arc::ptr_eq(&kept.shape, &again.shape));
}
