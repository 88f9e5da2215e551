#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::netns::Space;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mend_in(space: &Space, addresses: &[&str]) -> Missing {
    let addresses = addresses.iter().map(|it| ip(it)).collect();
    space.run(move || mend(addresses)).unwrap()
}

#[test]
fn names_fit_and_differ() {
    assert_eq!(name(ip("10.244.1.5")), "bp-0af40105");
    let of_v6 = name(ip("fd00::5"));
    assert!(of_v6.len() <= 15 && of_v6 != name(ip("fd00::6")), "{of_v6}");
}

#[test]
fn a_cable_comes_and_goes_and_can_be_made_again() {
    let (node, pod) = (Space::new(), Space::new());
    node.wire(&pod, "10.244.1.5");
    let route = node.ip("route show 10.244.1.5");
    assert!(route.contains("dev bp-0af40105 proto 97"), "{route}");
    let link = node.ip("link show bp-0af40105");
    assert!(
        link.contains("mtu 1450") && link.contains("ee:ee:ee:ee:ee:ee"),
        "{link}"
    );
    let detached = || node.run(|| detach(vec![ip("10.244.1.5")]));
    detached().unwrap();
    detached().unwrap();
    assert_eq!(node.ip("route show 10.244.1.5"), "");
    assert!(!pod.ip("link").contains("eth0"));
    node.wire(&pod, "10.244.1.5");
    // Left by one that died: a new pod gets the address.
    let other = Space::new();
    node.wire(&other, "10.244.1.5");
    assert!(!pod.ip("link").contains("eth0"));
    assert!(other.ip("address").contains("10.244.1.5/32"));
}

#[test]
fn what_others_remove_is_mended_and_the_rest_is_left_alone() {
    let (node, pods) = (Space::new(), [Space::new(), Space::new(), Space::new()]);
    let addresses = ["10.244.1.5", "10.244.1.6", "10.244.1.7"];
    for (pod, address) in pods.iter().zip(addresses) {
        node.wire(pod, address);
    }
    assert_eq!(mend_in(&node, &addresses), Missing::default());
    node.ip("route del 10.244.1.5");
    node.ip("link set bp-0af40106 down");
    node.ip("link del bp-0af40107");
    node.ip("route add 10.244.1.99 dev lo");
    let found = mend_in(&node, &addresses);
    assert_eq!(
        Vec::from_iter(found.mended),
        [ip("10.244.1.5"), ip("10.244.1.6")]
    );
    assert_eq!(Vec::from_iter(found.cables), [ip("10.244.1.7")]);
    node.wire(&pods[2], "10.244.1.7");
    assert_eq!(mend_in(&node, &addresses), Missing::default());
    for address in addresses {
        assert!(
            node.ip(&format!("route show {address}"))
                .contains("dev bp-")
        );
    }
    assert!(node.ip("route show 10.244.1.99").contains("dev lo"));
}

#[test]
fn only_a_bridge_without_ports_goes() {
    let (node, pod) = (Space::new(), Space::new());
    node.bridge("barge0", "10.244.1.1/24");
    node.plug("barge0", &pod, "pod0", "10.244.1.9/24");
    node.run(|| remove_empty_bridge("barge0")).unwrap();
    assert!(node.ip("link").contains("barge0"));
    node.ip("link del pod0");
    node.run(|| remove_empty_bridge("barge0")).unwrap();
    assert!(!node.ip("link").contains("barge0"));
    node.run(|| remove_empty_bridge("barge0")).unwrap();
}
