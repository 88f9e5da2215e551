#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use barge_proto::v1::{Container, Node, ObjectMeta, Pod, PodSpec, Welcome};

use super::*;
use crate::{
    clock::TokioClock,
    outbox::Outbox,
    runtime::{Image, SandboxSpec},
    testing::Scripted,
};

fn name(short: &str) -> String {
    format!("docker.io/library/{short}:1")
}

fn pod_with(images: &[&str]) -> Pod {
    let containers = images.iter().map(|image| Container {
        name: "main".into(),
        image: format!("{image}:1"),
        ..Container::default()
    });
    Pod {
        spec: Some(PodSpec {
            containers: containers.collect(),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// A collector over images of 100 bytes each, on a disk of 1,000, and what it told.
fn collector(
    images: &[&str],
    desired: &[&str],
    pulled: &[&str],
) -> (Collector, Arc<Scripted>, Arc<Outbox>) {
    let clock = Arc::new(TokioClock::starting_at(3_600_000));
    let runtime = Scripted::new(clock.clone());
    let images = images.iter().map(|image| (name(image), 100));
    runtime.fill_disk(1000, images.collect());
    for image in pulled {
        runtime.stall_pulls_of(&name(image));
    }
    let outbox = Arc::new(Outbox::default());
    let node = Node {
        metadata: Some(ObjectMeta {
            name: "n1".into(),
            uid: "n-uid".into(),
            ..ObjectMeta::default()
        }),
        ..Node::default()
    };
    let welcome = Welcome {
        node: Some(node),
        ..Welcome::default()
    };
    let desired = Desired {
        pods: BTreeMap::from([("uid".to_owned(), Arc::new(pod_with(desired)))]),
        welcome: Some(Arc::new(welcome)),
        ..Desired::default()
    };
    let options = Options {
        runtime: runtime.clone(),
        clock: clock.clone(),
        recorder: Recorder::new(outbox.clone(), clock),
        desired: watch::channel(Arc::new(desired)).1,
        thresholds: Thresholds::default(),
    };
    (Collector::new(options), runtime, outbox)
}

#[tokio::test(start_paused = true)]
async fn a_disk_with_room_keeps_all_images() {
    let (mut collector, runtime, _) = collector(&["a", "b", "c"], &[], &[]);
    collector.look().await.unwrap();
    assert_eq!(runtime.stored().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_as_many_unused_images_as_it_has_to() {
    let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let (mut collector, runtime, outbox) = collector(&all, &["a", "b"], &["c"]);
    collector.look().await.unwrap();
    // From 90 to 80 %: one; the images of the pod and the one that is being pulled come before it, and stay.
    let left = runtime.stored();
    assert_eq!(left.len(), 8);
    for kept in ["a", "b", "c"] {
        assert!(left.contains(&name(kept)), "{kept}");
    }
    assert!(outbox.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn images_of_containers_that_are_there_stay() {
    let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let (mut collector, runtime, _) = collector(&all, &[], &[]);
    let sandbox = SandboxSpec {
        pod_uid: "gone".into(),
        namespace: "default".into(),
        name: "gone".into(),
        ..Default::default()
    };
    runtime.create_sandbox(&sandbox).await.unwrap();
    let image = Image {
        name: name("a"),
        id: "a@sha256:00".into(),
    };
    let spec = pod_with(&["a"]);
    let container = &spec.spec.as_ref().unwrap().containers[0];
    let mut made =
        crate::pods::spec::container_spec(&spec, container, 0, image, Default::default()).unwrap();
    made.pod_uid = "gone".into();
    runtime.start_container(&made).await.unwrap();
    collector.look().await.unwrap();
    assert!(runtime.stored().contains(&name("a")));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_nothing_helps_is_told_once() {
    let all = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let (mut collector, runtime, outbox) = collector(&all, &all, &[]);
    for _ in 0..3 {
        let looked = collector.look().await;
        collector.tell(looked);
    }
    assert_eq!(runtime.stored().len(), 9);
    let events = outbox.take().unwrap().events;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].reason, "FreeDiskSpaceFailed");
    assert!(
        events[0].message.contains("90 % full"),
        "{}",
        events[0].message
    );
    assert!(outbox.take().is_none());
}
