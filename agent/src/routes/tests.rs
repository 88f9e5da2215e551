#![allow(clippy::unwrap_used)]

use std::time::Instant as Moment;

use barge_proto::v1::{Node, NodeSpec, ObjectMeta, Peer, Welcome};

use super::*;
use crate::{
    clock::SystemClock,
    outbox::Outbox,
    testing::{Scripted, netns::Space},
};

fn route(to: &str, via: &str) -> Route {
    Route {
        to: to.parse().unwrap(),
        via: Via::Gateway(via.parse().unwrap()),
    }
}

fn set(space: &Space, routes: &[Route]) -> Result<(), String> {
    let wanted = routes.iter().cloned().collect();
    space.block_on(async move {
        sync(&wanted)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
}

fn listed(space: &Space) -> Vec<String> {
    let text = space.ip("route show");
    let lines = text.lines().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.contains("kernel")).collect()
}

#[test]
fn ours_come_and_go_and_others_stay() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space.ip("route add 10.99.0.0/24 via 192.0.2.50");
    let services = Route {
        to: "10.96.0.0/16".parse().unwrap(),
        via: Via::Loopback,
    };
    let both = [route("10.244.2.0/24", "192.0.2.2"), services.clone()];
    set(&space, &both).unwrap();
    set(&space, &both).unwrap();
    let ours = listed(&space);
    assert_eq!(ours.len(), 3, "{ours:?}");
    // A node got another address, another is new.
    let moved = [
        route("10.244.2.0/24", "192.0.2.22"),
        route("10.244.3.0/24", "192.0.2.3"),
    ];
    set(&space, &moved).unwrap();
    let now = listed(&space).join("\n");
    assert!(now.contains("10.244.2.0/24 via 192.0.2.22"), "{now}");
    assert!(now.contains("10.244.3.0/24 via 192.0.2.3"), "{now}");
    assert!(!now.contains("10.96.0.0"), "{now}");
    set(&space, &[]).unwrap();
    let left = listed(&space);
    assert_eq!(left, ["10.99.0.0/24 via 192.0.2.50 dev net0"]);
}

#[test]
fn one_unreachable_node_does_not_keep_the_others() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    let routes = [
        route("10.244.2.0/24", "198.51.100.2"),
        route("10.244.3.0/24", "192.0.2.3"),
    ];
    let error = set(&space, &routes).unwrap_err();
    assert!(error.contains("198.51.100.2"), "{error}");
    let now = listed(&space).join("\n");
    assert!(now.contains("10.244.3.0/24"), "{now}");
}

#[test]
fn a_route_that_somebody_removes_is_back_within_a_second() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    let peer = Peer {
        node_uid: "other".into(),
        address: "192.0.2.3".into(),
        pod_cidr: "10.244.2.0/24".into(),
        ..Default::default()
    };
    let node = Node {
        metadata: Some(ObjectMeta {
            name: "n1".into(),
            ..Default::default()
        }),
        spec: Some(NodeSpec::default()),
        ..Default::default()
    };
    let desired = Desired {
        peers: [("other".to_owned(), Arc::new(peer))].into(),
        welcome: Some(Arc::new(Welcome {
            service_cidr: "10.96.0.0/16".into(),
            node: Some(node),
            ..Default::default()
        })),
        ..Default::default()
    };
    let (_sender, desired) = watch::channel(Arc::new(desired));
    let outbox = Arc::new(Outbox::default());
    let recorder = Recorder::new(outbox.clone(), Arc::new(SystemClock));
    let runtime = Scripted::new(Arc::new(SystemClock));
    let _running = space.spawn(|stop| run(desired, runtime, recorder, stop));
    let is_there = || space.ip("route show 10.244.2.0/24").contains("192.0.2.3");
    let back = |limit: Duration| {
        let begin = Moment::now();
        while !is_there() {
            assert!(begin.elapsed() < limit, "the route is not there");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    back(Duration::from_secs(30));
    space.ip("route del 10.244.2.0/24");
    // Ten times the promise, and less than the period.
    back(Duration::from_secs(10));
    let told = || {
        let events = outbox.take().unwrap_or_default().events;
        events
            .iter()
            .any(|event| event.reason == "PodNetworkRestored")
    };
    let begin = Moment::now();
    while !told() {
        assert!(begin.elapsed() < Duration::from_secs(10), "no event");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_no_pod_has_is_unreachable_and_does_not_leave_the_machine() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space.ip("route add default via 192.0.2.254");
    let own = Route {
        to: "10.244.1.0/24".parse().unwrap(),
        via: Via::Nobody,
    };
    set(&space, std::slice::from_ref(&own)).unwrap();
    set(&space, std::slice::from_ref(&own)).unwrap();
    let ours = listed(&space).join("\n");
    assert_eq!(
        ours.matches("unreachable 10.244.1.0/24").count(),
        1,
        "{ours}"
    );
    // An address that a pod has, and a bridge, come first.
    space.bridge("pods", "10.244.1.1/24");
    let to = space.ip("route get 10.244.1.7");
    assert!(to.contains("dev pods"), "{to}");
    set(&space, &[]).unwrap();
    assert!(!listed(&space).join("\n").contains("unreachable"));
}
