#![allow(clippy::unwrap_used)]

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant as Moment},
};

use barge_proto::v1::{EventReport, Node, NodeSpec, ObjectMeta, Peer, Welcome};

use super::*;
use crate::{
    clock::SystemClock,
    outbox::Outbox,
    testing::{Scripted, netns::Running, netns::Space},
};

mod between;
mod guarded;
mod many;

/// Ten times the promise, and less than the period.
const SOON: Duration = Duration::from_secs(10);

/// What a node of a cluster is told: its range, and the others' ranges and addresses.
fn assigned(own: &str, peers: &[(&str, &str)]) -> Desired {
    let peers = peers.iter().map(|(range, address)| {
        let peer = Peer {
            node_uid: (*range).into(),
            address: (*address).into(),
            pod_cidr: (*range).into(),
            ..Default::default()
        };
        ((*range).to_owned(), Arc::new(peer))
    });
    let node = Node {
        metadata: Some(ObjectMeta {
            name: "n1".into(),
            ..Default::default()
        }),
        spec: Some(NodeSpec {
            pod_cidr: own.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    Desired {
        peers: peers.collect(),
        welcome: Some(Arc::new(Welcome {
            service_cidr: "10.96.0.0/16".into(),
            node: Some(node),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn setting(mode: Mode, address: &str) -> Setting {
    Setting {
        mode,
        address: Some(address.parse().unwrap()),
    }
}

/// An agent that has just started.
fn bring(space: &Space, setting: Setting, desired: &Desired) -> Outcome {
    let desired = desired.clone();
    space.run(move || Wires::new(setting).bring(&desired, true))
}

/// The agent's routes, without what only the kernel adds.
fn ours(space: &Space) -> Vec<String> {
    let text = space.ip("route show proto 98");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Moment::now();
    while !is_so() {
        assert!(begin.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The agent's loop in a space.
struct Kept {
    outbox: Arc<Outbox>,
    assigned: watch::Sender<Arc<Desired>>,
    found: watch::Sender<Found>,
    guards: watch::Sender<bool>,
    _running: Running,
}

impl Kept {
    fn keep(space: &Space, setting: Setting, desired: Desired) -> Self {
        Self::begin(space, setting, desired, true, Some(false))
    }

    fn begin(
        space: &Space,
        setting: Setting,
        desired: Desired,
        is_guarded: bool,
        plugins: Option<bool>,
    ) -> Self {
        let (assigned, desired) = watch::channel(Arc::new(desired));
        let outbox = Arc::new(Outbox::default());
        let recorder = Recorder::new(outbox.clone(), Arc::new(SystemClock));
        let runtime = Scripted::new(Arc::new(SystemClock));
        let network = Found {
            plugins,
            ..Found::default()
        };
        let (found, network) = watch::channel(network);
        let (guards, guarded) = watch::channel(is_guarded);
        let _running = space
            .spawn(move |stop| run(desired, network, guarded, setting, runtime, recorder, stop));
        Self {
            outbox,
            assigned,
            found,
            guards,
            _running,
        }
    }

    fn until_event(&self, what: &str, is_it: impl Fn(&EventReport) -> bool) {
        until(what, || {
            let events = self.outbox.take().unwrap_or_default().events;
            events.iter().any(&is_it)
        });
    }
}

#[test]
fn ours_come_and_go_and_others_stay() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space.ip("route add 10.99.0.0/24 via 192.0.2.50");
    let auto = setting(Mode::Auto, "192.0.2.1");
    let one = assigned("", &[("10.244.2.0/24", "192.0.2.2")]);
    for _ in 0..2 {
        assert_eq!(bring(&space, auto, &one), Outcome::default());
        assert_eq!(ours(&space).len(), 2, "{:?}", ours(&space));
    }
    // A node got another address, another is new.
    let two = assigned(
        "",
        &[
            ("10.244.2.0/24", "192.0.2.22"),
            ("10.244.3.0/24", "192.0.2.3"),
        ],
    );
    bring(&space, auto, &two);
    let now = ours(&space).join("\n");
    assert!(now.contains("10.244.2.0/24 via 192.0.2.22"), "{now}");
    assert!(now.contains("10.244.3.0/24 via 192.0.2.3"), "{now}");
    assert!(now.contains("10.96.0.0/16 dev lo"), "{now}");
    space.block_on(async { clear().await.unwrap() });
    assert_eq!(ours(&space), Vec::<String>::new());
    assert!(space.ip("route show 10.99.0.0/24").contains("192.0.2.50"));
}

#[test]
fn one_that_cannot_be_set_does_not_keep_the_others_and_is_named_with_the_way_out() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    let desired = assigned(
        "10.244.1.0/24",
        &[
            ("10.244.2.0/24", "198.51.100.2"),
            ("10.244.3.0/24", "192.0.2.3"),
        ],
    );
    let direct = setting(Mode::Direct, "192.0.2.1");
    let failure = bring(&space, direct, &desired).failure;
    assert!(
        failure.contains("198.51.100.2") && failure.contains("--pod-network auto"),
        "{failure}"
    );
    assert!(ours(&space).join("\n").contains("10.244.3.0/24"));
    // By VXLAN there is a way as soon as the machine has one.
    let auto = setting(Mode::Auto, "192.0.2.1");
    assert_eq!(bring(&space, auto, &desired), Outcome::default());
    // What somebody else has set stays, and is named.
    space.ip("route add 10.244.4.0/24 via 192.0.2.50");
    let more = assigned("10.244.1.0/24", &[("10.244.4.0/24", "192.0.2.4")]);
    let failure = bring(&space, auto, &more).failure;
    assert!(failure.contains("ip route show 10.244.4.0/24"), "{failure}");
    assert!(space.ip("route show 10.244.4.0/24").contains("192.0.2.50"));
}

#[test]
fn a_route_that_somebody_removes_is_back_within_a_second() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    let desired = assigned("10.244.1.0/24", &[("10.244.2.0/24", "192.0.2.3")]);
    let kept = Kept::keep(&space, setting(Mode::Auto, "192.0.2.1"), desired);
    let is_there = || space.ip("route show 10.244.2.0/24").contains("192.0.2.3");
    until("the route is not there", is_there);
    space.ip("route del 10.244.2.0/24");
    until("the route is not back", is_there);
    kept.until_event("no event", |event| event.reason == "PodNetworkRestored");
}

#[test]
fn what_no_pod_has_is_unreachable_and_does_not_leave_the_machine() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space.ip("route add default via 192.0.2.254");
    let desired = assigned("10.244.1.0/24", &[]);
    let auto = setting(Mode::Auto, "192.0.2.1");
    for _ in 0..2 {
        assert_eq!(bring(&space, auto, &desired), Outcome::default());
    }
    let all = ours(&space).join("\n");
    assert_eq!(all.matches("unreachable 10.244.1.0/24").count(), 1, "{all}");
    // An address that a pod has, and a bridge, come first.
    space.bridge("pods", "10.244.1.1/24");
    let to = space.ip("route get 10.244.1.7");
    assert!(to.contains("dev pods"), "{to}");
    space.block_on(async { clear().await.unwrap() });
    assert!(!space.ip("route show").contains("unreachable"));
}

#[test]
fn the_vxlan_interface_is_mended_and_an_event_says_so() {
    // Few in each space: what is mended again and again is mended ever more slowly.
    let groups: [&[(&str, &str)]; 3] = [
        &[
            ("ip", "link del barge-vx"),
            ("ip", "link set barge-vx down"),
            ("ip", "link set barge-vx mtu 1300"),
        ],
        &[
            ("ip", "link set barge-vx address 02:00:00:00:00:01"),
            ("ip", "link set barge-vx type vxlan learning"),
            ("ip", "address flush dev barge-vx"),
        ],
        &[
            ("ip", "neigh del 10.244.2.0 dev barge-vx"),
            (
                "bridge",
                "fdb del 02:bb:0a:f4:02:00 dev barge-vx dst 203.0.113.2",
            ),
            (
                "bridge",
                "fdb replace 02:bb:0a:f4:02:00 dev barge-vx dst 203.0.113.9",
            ),
        ],
    ];
    thread::scope(|scope| {
        for group in groups {
            scope.spawn(|| disturb(group));
        }
    });
}

fn disturb(commands: &[(&str, &str)]) {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    let desired = assigned("10.244.1.0/24", &[("10.244.2.0/24", "203.0.113.2")]);
    let kept = Kept::keep(&space, setting(Mode::Auto, "192.0.2.1"), desired);
    let is_whole = || is_whole(&space);
    until("the interface does not come", is_whole);
    for (program, what) in commands {
        space.sh(program, what);
        until(what, is_whole);
        kept.until_event(what, |event| event.reason == "PodNetworkRestored");
    }
}

fn is_whole(space: &Space) -> bool {
    let shows = |what: &str, part: &str| space.try_ip(what).contains(part);
    let link = space.try_ip("-d link show barge-vx");
    let mut parts = [
        "vxlan id 7102 local 192.0.2.1",
        "dstport 7102",
        "nolearning",
        "mtu 1450",
        "02:bb:0a:f4:01:00",
        ",UP",
    ]
    .iter();
    let forwards = || space.sh("bridge", "fdb show dev barge-vx");
    parts.all(|part| link.contains(part))
        && shows("address show dev barge-vx", "10.244.1.0/32")
        && shows(
            "route show proto 98",
            "10.244.2.0/24 via 10.244.2.0 dev barge-vx onlink",
        )
        && shows(
            "neigh show dev barge-vx",
            "10.244.2.0 lladdr 02:bb:0a:f4:02:00 PERMANENT",
        )
        && forwards().trim() == "02:bb:0a:f4:02:00 dst 203.0.113.2 self permanent"
}

#[test]
fn stale_entries_of_an_earlier_agent_go() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    let auto = setting(Mode::Auto, "192.0.2.1");
    let before = assigned(
        "10.244.1.0/24",
        &[
            ("10.244.2.0/24", "203.0.113.2"),
            ("10.244.3.0/24", "203.0.113.3"),
        ],
    );
    assert_eq!(bring(&space, auto, &before), Outcome::default());
    space.ip("route add 10.99.0.0/24 dev barge-vx");
    // The machine has joined anew, with another range; a node is gone, another is on the link now.
    space.ip("address add 203.0.113.1/24 dev net0");
    let after = assigned("10.244.9.0/24", &[("10.244.3.0/24", "203.0.113.3")]);
    assert_eq!(bring(&space, auto, &after), Outcome::default());
    let routes = ours(&space).join("\n");
    assert!(
        !routes.contains("10.244.2.0") && !routes.contains("10.244.1.0"),
        "{routes}"
    );
    assert!(
        routes.contains("10.244.3.0/24 via 203.0.113.3 dev net0"),
        "{routes}"
    );
    assert_eq!(space.ip("-4 neigh show dev barge-vx nud permanent"), "");
    assert_eq!(space.sh("bridge", "fdb show dev barge-vx"), "");
    let addresses = space.ip("-4 address show dev barge-vx");
    assert!(
        addresses.contains("10.244.9.0/32") && !addresses.contains("10.244.1.0"),
        "{addresses}"
    );
    assert!(
        space.ip("route show").contains("10.99.0.0/24"),
        "it is somebody else's"
    );
    // Without VXLAN the interface goes.
    bring(&space, setting(Mode::Direct, "192.0.2.1"), &after);
    assert!(!space.ip("link").contains("barge-vx"));
}

#[test]
fn somebody_else_s_interface_of_that_name_is_named_and_left_alone() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space.ip("link add barge-vx type bridge");
    let desired = assigned(
        "10.244.1.0/24",
        &[
            ("10.244.2.0/24", "203.0.113.2"),
            ("10.244.3.0/24", "192.0.2.3"),
        ],
    );
    let kept = Kept::keep(&space, setting(Mode::Auto, "192.0.2.1"), desired);
    kept.until_event("no event", |event| {
        event.reason == "FailedPodNetwork" && event.message.contains("ip link del barge-vx")
    });
    assert!(
        ours(&space)
            .join("\n")
            .contains("10.244.3.0/24 via 192.0.2.3")
    );
    assert!(space.ip("-d link show barge-vx").contains("bridge"));
    // It is taken away, and there is no need to tell the agent.
    space.ip("link del barge-vx");
    until("the interface does not come", || {
        ours(&space)
            .join("\n")
            .contains("10.244.2.0/24 via 10.244.2.0 dev barge-vx")
    });
}

#[test]
fn ways_that_change_are_followed() {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space.ip("link set net0 mtu 1400");
    let desired = assigned("10.244.1.0/24", &[("10.244.2.0/24", "203.0.113.2")]);
    let kept = Kept::keep(&space, setting(Mode::Auto, "192.0.2.1"), desired);
    let way = |part: &'static str| {
        let space = &space;
        until(part, || {
            space.try_ip("route show 10.244.2.0/24").contains(part)
        });
    };
    way("dev barge-vx");
    until("1350", || {
        space.try_ip("link show barge-vx").contains("mtu 1350")
    });
    // The route to the node has an MTU of its own.
    space.ip("route add 203.0.113.2/32 via 192.0.2.254 mtu 1280");
    way("mtu 1230");
    space.ip("route del 203.0.113.2/32");
    // The machine gets a link that it shares with the node.
    space.ip("address add 203.0.113.1/24 dev net0");
    way("via 203.0.113.2 dev net0");
    space.ip("address del 203.0.113.1/24 dev net0");
    way("dev barge-vx");
    // A node gets another address.
    let moved = assigned("10.244.1.0/24", &[("10.244.2.0/24", "192.0.2.2")]);
    kept.assigned.send_replace(Arc::new(moved));
    way("via 192.0.2.2 dev net0");
    let events = kept.outbox.take().unwrap_or_default().events;
    assert!(
        events.is_empty(),
        "nothing was removed by others: {events:?}"
    );
}

#[test]
fn plugins_of_the_user_s_own_have_the_way_to_other_nodes_when_no_pod_needs_the_agent_s() {
    let (space, pod) = (Space::new(), Space::new());
    space.bridge("net0", "192.0.2.1/24");
    space.wire(&pod, "10.244.1.2");
    let desired = assigned("10.244.1.0/24", &[("10.244.2.0/24", "192.0.2.2")]);
    let kept = Kept::keep(&space, setting(Mode::Auto, "192.0.2.1"), desired);
    until("no route", || ours(&space).len() == 3);
    let plugins = |plugins| {
        let found = Found {
            plugins: Some(plugins),
            ..Found::default()
        };
        kept.found.send_replace(found);
    };
    plugins(true);
    space.ip("route del 10.244.2.0/24");
    until("a pod of the agent's is cut off", || {
        ours(&space).len() == 3
    });
    space.ip("link del bp-0af40102");
    until("routes and interface stay", || {
        ours(&space).len() == 1 && !space.ip("link").contains("barge-vx")
    });
    plugins(false);
    until("they are not back", || ours(&space).len() == 3);
}
