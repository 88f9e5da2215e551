#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::netns::Space;

fn route(to: &str, via: &str) -> Route {
    Route {
        to: to.parse().unwrap(),
        via: Via::Gateway(via.parse().unwrap()),
    }
}

fn set(space: &Space, routes: &[Route]) -> Result<(), String> {
    let wanted = routes.iter().cloned().collect();
    space.block_on(async move { sync(&wanted).await.map_err(|error| error.to_string()) })
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
