//! Who is sent where.

use super::*;

/// Pods of this node and of the other one.
const HERE: &str = "10.244.1.2";
const HERE_TOO: &str = "10.244.1.3";
const THERE: &str = "10.244.2.2";

fn served_by(pods: &[&str]) -> Endpoints {
    let addresses: Vec<_> = pods.iter().map(|pod| (*pod, 8080)).collect();
    let mut endpoints = endpoints("web", "p80", &addresses);
    let subsets = endpoints.subsets.iter_mut();
    for address in subsets.flat_map(|subset| &mut subset.addresses) {
        let here = address.ip.starts_with("10.244.1.");
        address.node_name = if here { NAME } else { "other" }.into();
    }
    endpoints
}

fn with(change: impl FnOnce(&mut barge_proto::v1::ServiceSpec)) -> Service {
    let mut service = web();
    change(service.spec.as_mut().unwrap());
    service
}

fn all(who: &Space, address: &str) -> Vec<String> {
    let mut names: Vec<_> = (0..6).map(|_| who.ask(address).unwrap().0).collect();
    names.sort();
    names.dedup();
    names
}

fn refused(who: &Space, address: &str) {
    let refused = who.connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
}

#[test]
fn who_comes_from_outside_is_sent_to_pods_of_this_node() {
    let net = Net::new();
    let local = with(|spec| spec.external_traffic_policy = "Local".into());
    let both = served_by(&[HERE, THERE]);
    net.assign(std::slice::from_ref(&local), &[both]);
    for address in ["192.0.2.1:30080", "192.0.2.1:80"] {
        assert_eq!(all(&net.outside, address), ["pod0"]);
        let (_, client) = net.outside.ask(address).unwrap();
        assert_eq!(client, ip("192.0.2.2"), "its own address");
        // These are not from outside.
        assert_eq!(all(&net.node, address), ["pod0", "remote"]);
        assert_eq!(all(&net.pods[1], address), ["pod0", "remote"]);
    }
    assert_eq!(all(&net.node, "10.96.0.10:80"), ["pod0", "remote"]);
    net.assign(&[local], &[served_by(&[THERE])]);
    refused(&net.outside, "192.0.2.1:30080");
    refused(&net.outside, "192.0.2.1:80");
    assert_eq!(all(&net.node, "192.0.2.1:80"), ["remote"]);
}

#[test]
fn who_asks_the_cluster_address_is_sent_to_pods_of_its_node() {
    let net = Net::new();
    let local = with(|spec| spec.internal_traffic_policy = "Local".into());
    net.assign(std::slice::from_ref(&local), &[served_by(&[HERE, THERE])]);
    for who in [&net.node, &net.pods[0], &net.pods[1]] {
        assert_eq!(all(who, "10.96.0.10:80"), ["pod0"]);
    }
    assert_eq!(all(&net.outside, "192.0.2.1:80"), ["pod0", "remote"]);
    net.assign(&[local], &[served_by(&[THERE])]);
    refused(&net.node, "10.96.0.10:80");
    refused(&net.pods[0], "10.96.0.10:80");
    assert_eq!(all(&net.outside, "192.0.2.1:80"), ["remote"]);
}

#[test]
fn a_load_balancer_lets_in_whom_it_names() {
    let net = Net::new();
    let ranges = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| (*range).to_owned()).collect();
        with(|spec| spec.load_balancer_source_ranges = ranges)
    };
    let pods = served_by(&[HERE]);
    let some = ranges(&["192.0.2.2/32", "192.0.2.0/31", "192.0.2.0/32"]);
    net.assign(&[some], std::slice::from_ref(&pods));
    assert_eq!(all(&net.outside, "192.0.2.1:80"), ["pod0"]);
    refused(&net.other, "192.0.2.1:80");
    refused(&net.pods[1], "192.0.2.1:80");
    // Other ways are not a load balancer's.
    assert_eq!(all(&net.other, "192.0.2.1:30080"), ["pod0"]);
    assert_eq!(all(&net.pods[1], "10.96.0.10:80"), ["pod0"]);
    assert_eq!(all(&net.node, "192.0.2.1:80"), ["pod0"]);
    net.assign(&[ranges(&["192.0.2.9/32"])], std::slice::from_ref(&pods));
    refused(&net.outside, "192.0.2.1:80");
    net.assign(&[ranges(&["0.0.0.0/0"])], std::slice::from_ref(&pods));
    assert_eq!(all(&net.other, "192.0.2.1:80"), ["pod0"]);
}

#[test]
fn a_client_stays_with_its_pod() {
    let net = Net::new();
    let sticky = with(|spec| spec.session_affinity = "ClientIP".into());
    let assign = |pods: &[&str]| net.assign(std::slice::from_ref(&sticky), &[served_by(pods)]);
    assign(&[HERE_TOO]);
    for who in [&net.outside, &net.other] {
        assert_eq!(all(who, "192.0.2.1:80"), ["pod1"]);
    }
    // More pods come; its own stays.
    assign(&[HERE, HERE_TOO, THERE]);
    assert_eq!(all(&net.outside, "192.0.2.1:80"), ["pod1"]);
    assert_eq!(all(&net.other, "192.0.2.1:30080"), ["pod1"]);
    let first = all(&net.node, "10.96.0.10:80");
    assert_eq!(first.len(), 1, "also from within: {first:?}");
    // A new agent writes the whole table; who was remembered goes by a hash from then on.
    let recorder = Recorder::new(Arc::new(Outbox::default()), Arc::new(SystemClock));
    let fresh = ServiceRules::new(Network::default(), recorder, net.published.subscribe());
    *net.rules.lock().unwrap() = Some(fresh);
    assign(&[HERE, HERE_TOO, THERE]);
    assert_eq!(all(&net.node, "10.96.0.10:80"), first);
    let by_hash = all(&net.outside, "192.0.2.1:80");
    assert_eq!(by_hash.len(), 1);
    // Its pod goes.
    assign(&[HERE]);
    assert_eq!(all(&net.outside, "192.0.2.1:80"), ["pod0"]);
    assign(&[]);
    refused(&net.outside, "192.0.2.1:80");
    net.assign(&[], &[]);
}

#[test]
fn policies_come_and_go_while_a_service_is_used() {
    let net = Net::new();
    let pods = served_by(&[HERE, HERE_TOO]);
    let everything = with(|spec| {
        spec.session_affinity = "ClientIP".into();
        spec.external_traffic_policy = "Local".into();
        spec.internal_traffic_policy = "Local".into();
        spec.load_balancer_source_ranges = vec!["192.0.2.0/24".into()];
    });
    let shorter = with(|spec| {
        spec.session_affinity = "ClientIP".into();
        spec.session_affinity_config = Some(SessionAffinityConfig {
            client_ip: Some(ClientIpConfig {
                timeout_seconds: Some(60),
            }),
        });
    });
    for service in [web(), everything.clone(), shorter, everything, web()] {
        net.assign(&[service], std::slice::from_ref(&pods));
        assert!(all(&net.outside, "192.0.2.1:80").len() <= 2);
        all(&net.pods[0], "10.96.0.10:80");
        all(&net.outside, "192.0.2.1:30080");
    }
    assert_eq!(all(&net.outside, "192.0.2.1:80"), ["pod0", "pod1"]);
}

#[test]
fn a_named_port_has_another_number_in_each_pod() {
    let net = Net::new();
    net.pods[1].serve(9090, "pod1 at 9090");
    let both = endpoints("web", "p80", &[(HERE, 8080), (HERE_TOO, 9090)]);
    net.assign(&[web()], &[both]);
    let mut lines: Vec<_> = (0..4)
        .map(|_| net.node.connect("10.96.0.10:80").unwrap().line())
        .collect();
    lines.sort();
    lines.dedup();
    let of = |line: &String| line.rsplit_once(' ').unwrap().0.to_owned();
    let names: Vec<_> = lines.iter().map(of).collect();
    assert_eq!(names, ["pod0", "pod1 at 9090"]);
}
