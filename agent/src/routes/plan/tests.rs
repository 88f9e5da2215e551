#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use barge_proto::v1::{Node, NodeSpec, ObjectMeta, Peer, Welcome};
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// The node with 10.244.1.0/24, and these peers.
fn desired(peers: &[(&str, &str)]) -> Desired {
    let spec = NodeSpec {
        pod_cidr: "10.244.1.0/24".into(),
        ..Default::default()
    };
    let peers = peers.iter().map(|(range, address)| {
        let peer = Peer {
            address: (*address).into(),
            pod_cidr: (*range).into(),
            ..Default::default()
        };
        ((*range).to_owned(), Arc::new(peer))
    });
    Desired {
        peers: peers.collect(),
        welcome: Some(Arc::new(Welcome {
            service_cidr: "10.96.0.0/16".into(),
            node: Some(Node {
                spec: Some(spec),
                ..Default::default()
            }),
            ..Default::default()
        })),
        ..Default::default()
    }
}

const FAR: Way = Way {
    is_on_link: false,
    mtu: Some(1500),
    is_narrow: false,
};
const NEAR: Way = Way {
    is_on_link: true,
    ..FAR
};

fn sight(ways: &[(&str, Way)]) -> Sight {
    Sight {
        mtu: Some(1500),
        ways: ways.iter().map(|(to, way)| (ip(to), *way)).collect(),
    }
}

fn setting(mode: Mode) -> Setting {
    Setting {
        mode,
        address: Some(ip("192.0.2.1")),
    }
}

#[test]
fn each_peer_is_reached_in_its_way() {
    let desired = desired(&[
        ("10.244.2.0/24", "192.0.2.2"),
        ("10.244.3.0/24", "203.0.113.3"),
    ]);
    let sight = sight(&[("192.0.2.2", NEAR), ("203.0.113.3", FAR)]);
    let via = |mode, range| {
        let state = wanted(&desired, setting(mode), &sight);
        assert_eq!(state.device.is_none(), mode == Mode::Direct);
        assert_eq!(state.neighbours.len(), state.forwards.len());
        state.routes[&net(range)].via
    };
    let near = Via::Gateway(ip("192.0.2.2"));
    let far = Via::Gateway(ip("203.0.113.3"));
    assert_eq!(via(Mode::Auto, "10.244.2.0/24"), near);
    assert_eq!(via(Mode::Auto, "10.244.3.0/24"), Via::Vxlan);
    assert_eq!(via(Mode::Vxlan, "10.244.2.0/24"), Via::Vxlan);
    assert_eq!(via(Mode::Direct, "10.244.3.0/24"), far);
    let state = wanted(&desired, setting(Mode::Auto), &sight);
    let mac = mac(ip("10.244.3.0"));
    assert_eq!(Vec::from_iter(state.neighbours), [(ip("10.244.3.0"), mac)]);
    assert_eq!(Vec::from_iter(state.forwards), [(mac, ip("203.0.113.3"))]);
    let device = state.device.unwrap();
    assert_eq!(device.mtu, 1450);
    assert_eq!(device.mac, [0x02, 0xbb, 10, 244, 1, 0]);
    assert_eq!(Vec::from_iter(device.addresses), [ip("10.244.1.0")]);
}

#[test]
fn a_route_is_as_narrow_as_the_way_to_its_node() {
    let desired = desired(&[
        ("10.244.2.0/24", "192.0.2.2"),
        ("10.244.3.0/24", "203.0.113.3"),
    ]);
    let narrow = |way: Way, mtu| Way {
        mtu: Some(mtu),
        is_narrow: true,
        ..way
    };
    for (mtu, direct, through) in [(1400, 1400, 1350), (100, 576, 576)] {
        let sight = sight(&[
            ("192.0.2.2", narrow(NEAR, mtu)),
            ("203.0.113.3", narrow(FAR, mtu)),
        ]);
        let routes = wanted(&desired, setting(Mode::Auto), &sight).routes;
        assert_eq!(routes[&net("10.244.2.0/24")].mtu, Some(direct));
        assert_eq!(routes[&net("10.244.3.0/24")].mtu, Some(through));
    }
    let usual = sight(&[("192.0.2.2", NEAR), ("203.0.113.3", FAR)]);
    let routes = wanted(&desired, setting(Mode::Auto), &usual).routes;
    assert!(routes.values().all(|route| route.mtu.is_none()));
}

#[test]
fn what_the_machine_was_before_is_no_peer() {
    let desired = desired(&[
        ("10.244.1.0/24", "192.0.2.9"),
        ("10.244.7.0/24", "192.0.2.1"),
    ]);
    let state = wanted(&desired, setting(Mode::Vxlan), &Sight::default());
    assert!(state.neighbours.is_empty());
    assert_eq!(state.routes[&net("10.244.1.0/24")].via, Via::Nobody);
    assert!(!state.routes.contains_key(&net("10.244.7.0/24")));
}

/// What steps lead to, when the kernel takes each.
fn follow(mut found: Found, steps: &[Step]) -> Found {
    for step in steps {
        match *step {
            Step::PutNeighbour(at, mac) => {
                found.neighbours.retain(|it| it.0 != at);
                found.neighbours.push((at, mac));
            }
            Step::DropNeighbour(at, _) => found.neighbours.retain(|it| it.0 != at),
            Step::PutForward(mac, to) => {
                found.forwards.retain(|it| it.0 != mac);
                found.forwards.push((mac, to));
            }
            Step::DropForward(mac, to) => found.forwards.retain(|it| *it != (mac, to)),
            Step::AddRoute(to, route) => {
                let there = found
                    .routes
                    .iter()
                    .find(|it| it.0 == to && is_of(&it.1) == is_of(&route));
                assert_eq!(there, None, "the kernel has one");
                found.routes.push((to, route));
            }
            Step::ChangeRoute(to, route) => {
                let mut there = found.routes.iter_mut();
                let there = there.find(|it| it.0 == to && is_of(&it.1) == is_of(&route));
                there.unwrap().1 = route;
            }
            Step::DropRoute(to, route) => {
                let at = found.routes.iter().position(|it| *it == (to, route));
                found.routes.remove(at.unwrap());
            }
        }
    }
    found.routes.sort();
    found.neighbours.sort();
    found.forwards.sort();
    found
}

fn any_state() -> impl Strategy<Value = State> {
    let route = (0u8..4, proptest::option::of(0u32..2)).prop_map(|(via, mtu)| Route {
        via: match via {
            0 => Via::Vxlan,
            1 => Via::Gateway([192, 0, 2, 1].into()),
            2 => Via::Gateway([192, 0, 2, 2].into()),
            _ => Via::Nobody,
        },
        mtu,
    });
    let some = |range| proptest::collection::btree_map(range, 0u8..3, 0..4);
    let routes = proptest::collection::btree_map(0u8..4, route, 0..4);
    (routes, some(0u8..4), some(0u8..4)).prop_map(|(routes, neighbours, forwards)| State {
        device: None,
        routes: routes
            .into_iter()
            .map(|(to, route)| (Ipv4Net::new([10, 244, to, 0].into(), 24).unwrap(), route))
            .collect(),
        neighbours: neighbours
            .into_iter()
            .map(|(at, it)| ([10, 244, at, 0].into(), [it; 6]))
            .collect(),
        forwards: forwards
            .into_iter()
            .map(|(at, it)| ([at; 6], [192, 0, 2, it].into()))
            .collect(),
    })
}

proptest! {
    #[test]
    fn steps_lead_to_what_is_wanted(before in any_state(), wanted in any_state(), more in any_state()) {
        let mut found = Found::from(&before);
        // Second routes to the same ranges, with another metric, as only an agent of old could have left them.
        let doubles = more.routes.iter().map(|(to, route)| (*to, *route));
        let new: Vec<_> = doubles
            .filter(|(to, route)| before.routes.get(to).is_some_and(|it| is_of(it) != is_of(route)))
            .collect();
        found.routes.extend(new);
        let steps_now = steps(&found, &wanted);
        let reached = follow(found, &steps_now);
        prop_assert_eq!(&reached, &follow(Found::from(&wanted), &[]));
        prop_assert_eq!(steps(&reached, &wanted), []);
    }
}

#[test]
fn a_node_with_the_same_address_or_range_is_named_unless_it_is_this_one() {
    let told = |own: &str, name: &str, range: &str, address: &str| {
        let mut desired = desired(&[(range, address)]);
        let welcome = Arc::make_mut(desired.welcome.as_mut().unwrap());
        welcome.node.as_mut().unwrap().metadata = Some(ObjectMeta {
            name: own.into(),
            uid: "u1".into(),
            ..Default::default()
        });
        for peer in desired.peers.values_mut() {
            let peer = Arc::make_mut(peer);
            (peer.name, peer.node_uid) = (name.into(), "u2".into());
        }
        let told = twin(&desired, Some(ip("192.0.2.1")));
        let is_reached = !peers(&desired, Some(ip("192.0.2.1"))).is_empty();
        assert_eq!(is_reached, told.is_none() && own != name);
        told.unwrap_or_default()
    };
    let same_address = told("n1", "n2", "10.244.2.0/24", "192.0.2.1");
    assert!(
        same_address.contains("node n2") && same_address.contains("--node-ip"),
        "{same_address}"
    );
    let same_range = told("n1", "n2", "10.244.1.0/24", "192.0.2.2");
    assert!(same_range.contains("10.244.1.0/24"), "{same_range}");
    assert_eq!(told("n1", "n2", "10.244.2.0/24", "192.0.2.2"), "");
    // The machine joined again by its name.
    assert_eq!(told("n1", "n1", "10.244.2.0/24", "192.0.2.1"), "");
}
