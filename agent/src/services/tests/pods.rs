//! Host ports, and pods in the node's network.

use super::*;
use crate::{
    runtime::{Held, HostPort},
    services::ports::Protocol,
};

impl Net {
    /// What a pod has of the node's ports.
    fn publish(&self, pod: &str, to: &str, ports: &[(u16, Option<&str>)]) {
        let port = |(port, ip): &(u16, Option<&str>)| HostPort {
            port: *port,
            protocol: Protocol::Tcp,
            ip: ip.map(|ip| ip.parse().unwrap()),
            container_port: 8080,
        };
        let held = Held {
            pod: format!("default/{pod}"),
            ports: ports.iter().map(port).collect(),
            to: Some(to.parse().unwrap()),
        };
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published.get_or_insert_default());
            published.insert(pod.to_owned(), held);
        });
    }
}

#[test]
fn a_host_port_is_reached_from_everywhere() {
    let net = Net::new();
    net.publish("a", "10.244.1.2", &[(8000, None), (8001, Some(NODE))]);
    net.publish("b", "10.244.1.3", &[(8001, Some("127.0.0.1"))]);
    net.assign(&[], &[]);
    for port in [8000, 8001] {
        let address = format!("{NODE}:{port}");
        let (name, client) = net.outside.ask(&address).unwrap();
        assert_eq!(
            (name.as_str(), client),
            ("pod0", ip("192.0.2.2")),
            "{address}"
        );
        assert_eq!(net.node.ask(&address).unwrap().0, "pod0");
        assert_eq!(net.pods[1].ask(&address).unwrap().0, "pod0");
        assert_eq!(net.pods[0].ask(&address).unwrap().0, "pod0", "itself");
    }
    assert_eq!(net.node.ask("127.0.0.1:8000").unwrap().0, "pod0");
    assert_eq!(net.node.ask("127.0.0.1:8001").unwrap().0, "pod1");
    // It is the port of this node only, not of what lies beyond it.
    let refused = net.pods[1].connect("192.0.2.2:8000").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // The pod is gone.
    net.published.send_replace(Some(Arc::default()));
    net.assign(&[], &[]);
    let refused = net.outside.connect("192.0.2.1:8000").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_listens_on_loopback_keeps_that() {
    let net = Net::new();
    net.node.serve_at("127.0.0.1:8000", "host");
    net.publish("a", "10.244.1.2", &[(8000, None)]);
    net.assign(&[], &[]);
    assert_eq!(net.node.ask("127.0.0.1:8000").unwrap().0, "host");
    assert_eq!(net.outside.ask("192.0.2.1:8000").unwrap().0, "pod0");
}

#[test]
fn what_others_send_to_loopback_addresses_does_not_come_in() {
    let net = Net::new();
    net.node.serve_at("127.0.0.1:9000", "host");
    net.publish("a", "10.244.1.2", &[(8000, None)]);
    net.assign(&[], &[]);
    // The one over whose interface the kernel routes loopback addresses.
    let pod = &net.pods[0];
    // A pod with the right to all that sends to its gateway what is meant for loopback, and takes the answer.
    pod.ip("rule add pref 2 lookup local");
    pod.ip("rule add pref 1 to 127.0.0.1 lookup 99");
    pod.ip("rule del pref 0");
    pod.ip("route add 127.0.0.1/32 via 169.254.1.1 src 10.244.1.2 table 99");
    pod.run(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap());
    let reach = || {
        pod.run(|| {
            let address = "127.0.0.1:9000".parse().unwrap();
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(700)).is_ok()
        })
    };
    assert!(!reach());
    net.node.sh("nft", "flush chain inet barge input");
    assert!(reach(), "the rule was what kept it out");
}

#[test]
fn a_pod_in_the_network_of_its_node_serves() {
    let net = Net::new();
    net.node.serve(8080, "node");
    // On this node.
    net.assign(&[web()], &[endpoints("web", "p80", &[(NODE, 8080)])]);
    for who in [&net.node, &net.pods[0]] {
        assert_eq!(who.ask("10.96.0.10:80").unwrap().0, "node");
    }
    let (name, client) = net.outside.ask("192.0.2.1:80").unwrap();
    assert_eq!((name.as_str(), client), ("node", ip("192.0.2.2")));
    // On another one, at an address that is no pod's: answers come back this way.
    net.assign(&[web()], &[endpoints("web", "p80", &[("192.0.2.3", 8080)])]);
    for who in [&net.node, &net.pods[0], &net.outside] {
        let (name, client) = who
            .ask("10.96.0.10:80")
            .or_else(|_| who.ask("192.0.2.1:80"))
            .unwrap();
        assert_eq!((name.as_str(), client), ("remote", ip(NODE)));
    }
}
