//! Real connections through real rules: a node with two pods, another node with one, and somebody outside.
#![allow(clippy::unwrap_used)]

use std::{io::ErrorKind, net::IpAddr, sync::Mutex};

use barge_proto::v1::{
    ClientIpConfig, Endpoints, Node, NodeSpec, ObjectMeta, Peer, Service, SessionAffinityConfig,
    Welcome,
};

use super::{
    model::tests::{endpoints, service},
    *,
};
use crate::{clock::SystemClock, outbox::Outbox, routes, testing::netns::Space};

struct Net {
    node: Space,
    pods: [Space; 2],
    other: Space,
    outside: Space,
    rules: Arc<Mutex<Option<ServiceRules>>>,
    /// Ports of the node that its pods have.
    published: watch::Sender<Option<Arc<HostPorts>>>,
    outbox: Arc<Outbox>,
}

const NODE: &str = "192.0.2.1";
const NAME: &str = "node";

impl Net {
    fn new() -> Self {
        let (node, other, outside) = (Space::new(), Space::new(), Space::new());
        let pods = [Space::new(), Space::new()];
        node.bridge("out0", "192.0.2.1/24");
        node.wire(&pods[0], "10.244.1.2");
        node.wire(&pods[1], "10.244.1.3");
        node.plug("out0", &outside, "outside", "192.0.2.2/24");
        node.plug("out0", &other, "other", "192.0.2.3/24");
        // The other node's pod lives on its loopback link; the way back leads over this node.
        other.ip("address add 10.244.2.2/32 dev lo");
        other.ip("route add 10.244.1.0/24 via 192.0.2.1");
        pods[0].serve(8080, "pod0");
        pods[1].serve(8080, "pod1");
        other.serve(8080, "remote");
        outside.serve(8080, "outside");
        outside.ip("route add 10.244.0.0/16 via 192.0.2.99");
        node.run(|| sysctl::prepare("/proc/sys".as_ref()).unwrap());
        let outbox = Arc::new(Outbox::default());
        let recorder = Recorder::new(outbox.clone(), Arc::new(SystemClock));
        let (published, of_pods) = watch::channel(Some(Arc::default()));
        let rules = ServiceRules::new(Network::default(), recorder, of_pods);
        Self {
            outbox,
            node,
            pods,
            other,
            outside,
            rules: Arc::new(Mutex::new(Some(rules))),
            published,
        }
    }

    /// What the agent does with an assignment.
    fn assign(&self, services: &[Service], endpoints: &[Endpoints]) {
        let desired = Self::desired(services, endpoints);
        let shared = self.rules.clone();
        let setting = routes::Setting {
            address: NODE.parse().ok(),
            ..Default::default()
        };
        self.node.block_on(async move {
            let mut rules = shared.lock().unwrap().take().unwrap();
            let guards = rules.guards();
            rules.sync(&desired).await.unwrap();
            assert!(*guards.borrow(), "the VXLAN interface waits for this");
            let outcome = routes::Wires::new(setting).bring(&desired, true);
            assert_eq!(outcome, routes::Outcome::default());
            shared.lock().unwrap().replace(rules);
        });
    }

    fn desired(services: &[Service], endpoints: &[Endpoints]) -> Desired {
        let uid = |meta: &Option<barge_proto::v1::ObjectMeta>| meta.clone().unwrap().uid;
        let keyed = |service: &Service| (uid(&service.metadata), Arc::new(service.clone()));
        let peer = Peer {
            node_uid: "other".into(),
            address: "192.0.2.3".into(),
            pod_cidr: "10.244.2.0/24".into(),
            ..Default::default()
        };
        Desired {
            epoch: 1,
            services: services.iter().map(keyed).collect(),
            endpoints: endpoints
                .iter()
                .map(|e| (uid(&e.metadata), Arc::new(e.clone())))
                .collect(),
            peers: [("other".to_owned(), Arc::new(peer))].into(),
            welcome: Some(Arc::new(Welcome {
                service_cidr: "10.96.0.0/16".into(),
                node: Some(Node {
                    metadata: Some(ObjectMeta {
                        name: NAME.into(),
                        ..Default::default()
                    }),
                    spec: Some(NodeSpec {
                        pod_cidr: "10.244.1.0/24".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            })),
            ..Default::default()
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn web() -> Service {
    service("web", 1, "LoadBalancer", "10.96.0.10", &[(80, 30080)])
}

#[test]
fn services_are_reached_from_everywhere() {
    let net = Net::new();
    let both = endpoints("web", "p80", &[("10.244.1.2", 8080), ("10.244.1.3", 8080)]);
    net.assign(&[web()], &[both]);
    let mut served: Vec<_> = (0..4)
        .map(|_| net.node.ask("10.96.0.10:80").unwrap().0)
        .collect();
    served.sort();
    assert_eq!(served, ["pod0", "pod0", "pod1", "pod1"], "they take turns");
    for address in ["192.0.2.1:30080", "192.0.2.1:80"] {
        let (_, client) = net.outside.ask(address).unwrap();
        assert_eq!(
            client,
            ip("192.0.2.2"),
            "{address} keeps the client's address"
        );
        net.node.ask(address).unwrap();
        net.pods[0].ask(address).unwrap();
    }
    // The other node's pods come by their own address.
    let refused = net.node.ask("10.96.0.10:81").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_pod_reaches_itself_and_its_neighbour_through_a_service() {
    let net = Net::new();
    let one = |address| endpoints("web", "p80", &[(address, 8080)]);
    net.assign(&[web()], &[one("10.244.1.2")]);
    let (name, client) = net.pods[0].ask("10.96.0.10:80").unwrap();
    assert_eq!(name, "pod0");
    assert_eq!(client, ip(NODE), "itself, by way of the node");
    let (name, client) = net.pods[1].ask("10.96.0.10:80").unwrap();
    assert_eq!(name, "pod0");
    assert_eq!(
        client,
        ip("10.244.1.3"),
        "nobody else is in somebody's name"
    );
}

#[test]
fn pods_on_other_nodes_serve_too() {
    let net = Net::new();
    let remote = endpoints("web", "p80", &[("10.244.2.2", 8080)]);
    net.assign(&[web()], &[remote]);
    let (name, client) = net.pods[0].ask("10.96.0.10:80").unwrap();
    assert_eq!((name.as_str(), client), ("remote", ip("10.244.1.2")));
    let (name, client) = net.outside.ask("192.0.2.1:80").unwrap();
    assert_eq!((name.as_str(), client), ("remote", ip(NODE)));
    assert_eq!(net.node.ask("10.96.0.10:80").unwrap().0, "remote");
    // Pods keep their address among pods, and have the node's for everybody else.
    assert_eq!(
        net.pods[1].ask("10.244.2.2:8080").unwrap().1,
        ip("10.244.1.3")
    );
    assert_eq!(net.pods[1].ask("192.0.2.2:8080").unwrap().1, ip(NODE));
    net.other.ask("10.244.1.2:8080").unwrap();
}

#[test]
fn nobody_there_is_an_immediate_refusal() {
    let net = Net::new();
    net.assign(&[web()], &[endpoints("web", "p80", &[])]);
    for (who, address) in [
        (&net.node, "10.96.0.10:80"),
        (&net.pods[0], "10.96.0.10:80"),
        (&net.outside, "192.0.2.1:80"),
        (&net.outside, "192.0.2.1:30080"),
    ] {
        let refused = who.connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
}

#[test]
fn open_connections_outlive_changes_and_restarts() {
    let net = Net::new();
    let first = endpoints("web", "p80", &[("10.244.1.2", 8080)]);
    net.assign(&[web()], std::slice::from_ref(&first));
    let mut connection = net.outside.connect("192.0.2.1:80").unwrap();
    assert_eq!(connection.line(), "pod0 192.0.2.2");
    let other = service("other", 2, "ClusterIP", "10.96.0.11", &[(80, 0)]);
    let second = endpoints("other", "p80", &[("10.244.1.3", 8080)]);
    net.assign(&[web(), other.clone()], &[first.clone(), second.clone()]);
    assert!(connection.echoes());
    // A new agent knows nothing and writes the whole table.
    let recorder = Recorder::new(Arc::new(Outbox::default()), Arc::new(SystemClock));
    let pods = net.published.subscribe();
    let fresh = ServiceRules::new(Network::default(), recorder, pods);
    *net.rules.lock().unwrap() = Some(fresh);
    net.assign(&[web(), other], &[first, second]);
    assert!(connection.echoes());
    net.assign(&[], &[]);
    assert!(connection.echoes());
    let refused = net.outside.connect("192.0.2.1:80").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_port_on_which_the_node_listens_stays_the_node_s() {
    let net = Net::new();
    net.node.serve(80, "host");
    net.assign(
        &[web()],
        &[endpoints("web", "p80", &[("10.244.1.2", 8080)])],
    );
    assert_eq!(net.outside.ask("192.0.2.1:80").unwrap().0, "host");
    assert_eq!(net.outside.ask("192.0.2.1:30080").unwrap().0, "pod0");
    assert_eq!(net.node.ask("10.96.0.10:80").unwrap().0, "pod0");
}

mod names;
mod others;
mod pods;
mod policies;
mod udp;
mod wires;
