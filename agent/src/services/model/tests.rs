#![allow(clippy::unwrap_used)]

use barge_proto::v1::{EndpointAddress, EndpointPort, EndpointSubset, ServiceSpec, Time};

use super::*;

pub(in crate::services) fn service(
    name: &str,
    created: i64,
    kind: &str,
    address: &str,
    ports: &[(i32, i32)],
) -> Service {
    Service {
        metadata: Some(ObjectMeta {
            name: name.into(),
            namespace: "default".into(),
            uid: format!("uid-{name}"),
            creation_timestamp: Some(Time {
                seconds: created,
                nanos: 0,
            }),
            ..Default::default()
        }),
        spec: Some(ServiceSpec {
            r#type: kind.into(),
            cluster_ip: address.into(),
            ports: ports
                .iter()
                .map(|(port, node_port)| ServicePort {
                    name: format!("p{port}"),
                    port: *port,
                    node_port: *node_port,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(in crate::services) fn endpoints(
    name: &str,
    port: &str,
    addresses: &[(&str, i32)],
) -> Endpoints {
    Endpoints {
        metadata: Some(ObjectMeta {
            name: name.into(),
            namespace: "default".into(),
            uid: format!("uid-{name}"),
            ..Default::default()
        }),
        subsets: addresses
            .iter()
            .map(|(ip, number)| EndpointSubset {
                addresses: vec![EndpointAddress {
                    ip: (*ip).into(),
                    ..Default::default()
                }],
                ports: vec![EndpointPort {
                    name: port.into(),
                    port: *number,
                    protocol: "TCP".into(),
                }],
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn of(services: &[Service], endpoints: &[Endpoints]) -> (Rules, BTreeSet<Conflict>) {
    rules(&Inputs {
        services: services.iter().collect(),
        endpoints: endpoints.iter().collect(),
        ..Default::default()
    })
}

#[test]
fn a_load_balancer_answers_on_all_its_addresses() {
    let service = service("web", 1, "LoadBalancer", "10.96.0.10", &[(80, 30080)]);
    let endpoints = endpoints("web", "p80", &[("10.244.1.2", 8080), ("10.244.1.3", 8080)]);
    let (rules, conflicts) = of(&[service], &[endpoints]);
    assert!(conflicts.is_empty());
    let chain = "svc/default/web/tcp/80".to_owned();
    let address = ([10, 96, 0, 10].into(), Protocol::Tcp, 80);
    assert_eq!(rules.cluster, [(address, chain.clone())].into());
    let node = |port| ((Protocol::Tcp, port), chain.clone());
    assert_eq!(rules.node, [node(80), node(30080)].into());
    assert_eq!(rules.chains[&chain].endpoints.len(), 2);
}

#[test]
fn without_endpoints_nothing_is_translated() {
    let services = [
        service("none", 1, "NodePort", "10.96.0.10", &[(80, 30080)]),
        service("empty", 1, "NodePort", "10.96.0.11", &[(80, 30081)]),
        service("other", 1, "NodePort", "10.96.0.12", &[(80, 30082)]),
    ];
    let endpoints = [
        endpoints("empty", "p80", &[]),
        endpoints("other", "another-port", &[("10.244.1.2", 80)]),
    ];
    let (rules, _) = of(&services, &endpoints);
    assert_eq!(rules, Rules::default());
}

#[test]
fn a_headless_service_has_no_address_and_a_cluster_one_no_node_port() {
    let services = [
        service("headless", 1, "ClusterIP", "None", &[(80, 0)]),
        service("inner", 1, "ClusterIP", "10.96.0.11", &[(80, 0)]),
    ];
    let endpoints = [
        endpoints("headless", "p80", &[("10.244.1.2", 80)]),
        endpoints("inner", "p80", &[("10.244.1.3", 80)]),
    ];
    let (rules, _) = of(&services, &endpoints);
    assert_eq!(rules.cluster.len(), 1);
    assert!(rules.node.is_empty());
}

#[test]
fn the_oldest_service_has_the_port() {
    let services = [
        service("young", 9, "LoadBalancer", "10.96.0.10", &[(80, 30080)]),
        service("old", 1, "LoadBalancer", "10.96.0.11", &[(80, 30081)]),
    ];
    let endpoints = [
        endpoints("young", "p80", &[("10.244.1.2", 80)]),
        endpoints("old", "p80", &[("10.244.1.3", 80)]),
    ];
    let (rules, conflicts) = of(&services, &endpoints);
    assert_eq!(rules.node[&(Protocol::Tcp, 80)], "svc/default/old/tcp/80");
    assert_eq!(
        rules.node[&(Protocol::Tcp, 30080)],
        "svc/default/young/tcp/80"
    );
    let conflict = conflicts.first().unwrap();
    assert_eq!(conflict.who, Wanting::Service("uid-young".into()));
    let old = Holder::Service("default/old".to_owned());
    assert_eq!((conflict.port, &conflict.holder), (80, &old));
}

#[test]
fn the_node_keeps_its_own_ports() {
    let services = [service(
        "web",
        1,
        "LoadBalancer",
        "10.96.0.10",
        &[(22, 30080)],
    )];
    let endpoints = [endpoints("web", "p22", &[("10.244.1.2", 80)])];
    let (rules, conflicts) = rules(&Inputs {
        services: services.iter().collect(),
        endpoints: endpoints.iter().collect(),
        host_ports: [((Protocol::Tcp, 22), "SSH"), ((Protocol::Udp, 30080), "x")].into(),
        ..Default::default()
    });
    assert_eq!(rules.cluster.len(), 1, "its own address has all its ports");
    let node: Vec<_> = rules.node.keys().collect();
    assert_eq!(node, [&(Protocol::Tcp, 30080)]);
    let conflict = conflicts.first().unwrap();
    assert_eq!(
        (conflict.port, &conflict.holder),
        (22, &Holder::Node("SSH"))
    );
    assert_eq!(conflicts.len(), 1);
}

#[test]
fn host_ports_of_pods_come_after_the_node_and_its_services() {
    let services = [service("web", 1, "NodePort", "10.96.0.10", &[(80, 30080)])];
    let port = |port, ip: Option<[u8; 4]>| HostPort {
        port,
        protocol: Protocol::Tcp,
        ip: ip.map(Ipv4Addr::from),
        container_port: 8080,
    };
    let held = |ports: &[HostPort], to: Option<[u8; 4]>| runtime::Held {
        pod: "default/a".into(),
        ports: ports.to_vec(),
        to: to.map(Ipv4Addr::from),
    };
    let address = [192, 0, 2, 1];
    let a = [port(80, None), port(81, Some(address)), port(82, None)];
    let b = [port(22, None), port(30080, Some(address))];
    let pods = [
        ("a".to_owned(), held(&a, Some([10, 244, 1, 2]))),
        ("b".to_owned(), held(&b, Some([10, 244, 1, 3]))),
        ("c".to_owned(), held(&[port(22, None)], None)),
    ];
    let pods = pods.into();
    let (rules, conflicts) = rules(&Inputs {
        services: services.iter().collect(),
        host_ports: [((Protocol::Tcp, 22), "SSH")].into(),
        loopback: [(Protocol::Tcp, 82)].into(),
        pods: Some(&pods),
        ..Default::default()
    });
    let chain = |name: &str| name.to_owned();
    let node: BTreeMap<_, _> = [
        ((Protocol::Tcp, 80), chain("pod/a/tcp/80")),
        ((Protocol::Tcp, 82), chain("pod/a/tcp/82")),
    ]
    .into();
    assert_eq!(rules.node, node);
    let at = |ip: [u8; 4], port| (Ipv4Addr::from(ip), Protocol::Tcp, port);
    let addresses: BTreeMap<_, _> = [
        (at([127, 0, 0, 1], 80), chain("pod/a/tcp/80")),
        (at(address, 81), chain("pod/a/tcp/81/192.0.2.1")),
    ]
    .into();
    assert_eq!(rules.address, addresses);
    let to = "10.244.1.2:8080".parse().unwrap();
    assert_eq!(rules.chains["pod/a/tcp/80"].endpoints, [to].into());
    assert_eq!(rules.endpoints, [[10, 244, 1, 2].into()].into());
    let told: Vec<_> = conflicts
        .iter()
        .map(|it| (&it.who, it.port, &it.holder))
        .collect();
    let b = Wanting::Pod("b".into());
    let web = Holder::Service("default/web".into());
    assert_eq!(told, [(&b, 22, &Holder::Node("SSH")), (&b, 30080, &web)]);
}

#[test]
fn long_names_become_short_ones_that_differ() {
    let port = ServicePort {
        port: 80,
        ..Default::default()
    };
    let name = |last: char| ("n".repeat(63), format!("{}{last}", "s".repeat(62)));
    let a = chain_name(&name('a'), Protocol::Tcp, &port);
    let b = chain_name(&name('b'), Protocol::Tcp, &port);
    assert!(a.len() <= 127 && a != b);
}
