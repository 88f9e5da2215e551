//! When the VXLAN interface is opened, and what stays when it cannot be mended.

use super::*;

const PEERS: [(&str, &str); 2] = [
    ("10.244.2.0/24", "203.0.113.2"),
    ("10.244.3.0/24", "192.0.2.3"),
];
const OVER_VXLAN: &str = "10.244.2.0/24 via 10.244.2.0 dev barge-vx";

fn space() -> Space {
    let space = Space::new();
    space.bridge("net0", "192.0.2.1/24");
    space
}

fn auto() -> Setting {
    setting(Mode::Auto, "192.0.2.1")
}

fn routes(space: &Space) -> String {
    ours(space).join("\n")
}

#[test]
fn the_vxlan_interface_is_opened_when_the_rules_are_there_and_direct_routes_do_not_wait() {
    let space = space();
    let desired = assigned("10.244.1.0/24", &PEERS);
    let kept = Kept::begin(&space, auto(), desired.clone(), false, Some(false));
    until("no direct route", || {
        routes(&space).contains("10.244.3.0/24 via 192.0.2.3")
    });
    assert!(!space.ip("link").contains("barge-vx"));
    kept.guards.send_replace(true);
    until("it is not opened", || routes(&space).contains(OVER_VXLAN));
    drop(kept);
    // No IPv6 over it.
    let off = space.run(|| {
        let path = "/proc/sys/net/ipv6/conf/barge-vx/disable_ipv6";
        std::fs::read_to_string(path)
    });
    assert!(off.is_err() || off.unwrap().trim() == "1");
    // An agent that starts again keeps what is open, before it has written its rules.
    let outcome = space.run(move || {
        let mut wires = Wires::new(auto());
        wires.waits(true);
        wires.bring(&desired, true)
    });
    assert_eq!(outcome, Outcome::default());
    assert!(routes(&space).contains(OVER_VXLAN));
}

#[test]
fn a_folder_of_plugins_that_does_not_answer_keeps_no_route_from_being_made() {
    let space = space();
    let desired = assigned("10.244.1.0/24", &PEERS);
    let _kept = Kept::begin(&space, auto(), desired, true, None);
    until("no route", || routes(&space).contains(OVER_VXLAN));
}

#[test]
fn what_cannot_be_mended_of_an_open_interface_costs_no_route() {
    let space = space();
    let desired = assigned("10.244.1.0/24", &PEERS);
    // The kernel does not exchange a local address of IPv6 for one of IPv4.
    space.ip("link add barge-vx type vxlan id 7102 dstport 7102 local 2001:db8::1");
    space.ip("link set barge-vx up");
    let outcomes = space.run(move || {
        let mut wires = Wires::new(auto());
        [true, false, true].map(|looks| wires.bring(&desired, looks))
    });
    for outcome in outcomes {
        assert!(
            outcome.device_failure.contains("barge-vx"),
            "{:?}",
            outcome.device_failure
        );
        assert_eq!(outcome.failure, "");
        assert!(outcome.restored.is_empty(), "{:?}", outcome.restored);
    }
    assert!(routes(&space).contains(OVER_VXLAN), "{}", routes(&space));
}
