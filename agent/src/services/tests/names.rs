//! The addresses at which the node answers for names.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::*;
use crate::dns::{LINK_LOCAL, addresses};

#[test]
fn what_is_sent_to_the_name_server_comes_to_it() {
    let net = Net::new();
    let own: BTreeSet<_> = [Ipv4Addr::new(10, 96, 0, 10), LINK_LOCAL].into();
    let (wanted, none) = (own.clone(), BTreeSet::new());
    net.node.block_on(async move {
        for _ in 0..2 {
            addresses::set(&wanted, &none).await.unwrap();
        }
    });
    let listed = net.node.ip("-4 address show dev lo");
    assert!(listed.contains("10.96.0.10/32 scope host lo"), "{listed}");
    net.node.serve_at("10.96.0.10:53", "names");
    net.node.serve_at("169.254.20.10:53", "names");
    // Without endpoints, and somebody's own name server on the same port of the node.
    let names = service("kube-dns", 1, "ClusterIP", "10.96.0.10", &[(53, 0)]);
    let other = service("other", 2, "LoadBalancer", "10.96.0.11", &[(53, 30053)]);
    let behind = endpoints("other", "p53", &[("10.244.1.2", 8080)]);
    net.assign(&[names, other], &[behind]);
    for address in ["10.96.0.10:53", "169.254.20.10:53"] {
        for who in [&net.node, &net.pods[0], &net.pods[1]] {
            assert_eq!(who.ask(address).unwrap().0, "names", "{address}");
        }
    }
    let (_, client) = net.pods[0].ask("10.96.0.10:53").unwrap();
    assert_eq!(client, ip("10.244.1.2"));
    for (who, address) in [
        (&net.outside, "192.0.2.1:53"),
        (&net.pods[1], "10.96.0.11:53"),
    ] {
        assert_eq!(who.ask(address).unwrap().0, "pod0", "{address}");
    }
    let refused = net.pods[0].ask("10.96.0.10:80").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // The node is none any more: the address is nobody's.
    net.node.block_on(async move {
        addresses::set(&BTreeSet::new(), &own).await.unwrap();
    });
    let refused = net.pods[0].ask("10.96.0.10:53").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
