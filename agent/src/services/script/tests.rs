#![allow(clippy::unwrap_used)]

use std::net::SocketAddrV4;

use proptest::prelude::*;

use super::{super::model::seats, *};
use crate::{services::nft::Nft, testing::netns::Space};

fn chain(endpoints: &[&str]) -> Chain {
    Chain {
        protocol: Protocol::Tcp,
        endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
        stays: None,
    }
}

fn two_services() -> Rules {
    let (a, b) = ("svc/default/a/tcp/80", "svc/default/b/tcp/80");
    let mut rules = Rules {
        own_range: Some("10.244.1.0/24".parse().unwrap()),
        service_range: Some("10.96.0.0/16".parse().unwrap()),
        ..Rules::default()
    };
    rules.pod_ranges = ["10.244.1.0/24", "10.244.2.0/24"]
        .map(|range| range.parse().unwrap())
        .into();
    rules.cluster = [
        (([10, 96, 0, 1].into(), Protocol::Tcp, 80), a.to_owned()),
        (([10, 96, 0, 2].into(), Protocol::Tcp, 80), b.to_owned()),
    ]
    .into();
    rules.node = [((Protocol::Tcp, 30080), a.to_owned())].into();
    rules.chains = [
        (a.to_owned(), chain(&["10.244.1.2:80", "10.244.2.2:80"])),
        (b.to_owned(), chain(&["10.244.1.3:80"])),
    ]
    .into();
    rules.endpoints = [[10, 244, 1, 2], [10, 244, 1, 3], [10, 244, 2, 2]]
        .map(Ipv4Addr::from)
        .into();
    rules
}

#[test]
fn a_change_names_only_what_differs() {
    let old = two_services();
    assert_eq!(change(&old, &old), "");
    let mut new = old.clone();
    let scaled = chain(&["10.244.1.2:80"]);
    new.chains.insert("svc/default/a/tcp/80".into(), scaled);
    new.endpoints.remove(&Ipv4Addr::new(10, 244, 2, 2));
    assert_eq!(
        change(&old, &new),
        "flush chain inet barge svc/default/a/tcp/80\n\
         add rule inet barge svc/default/a/tcp/80 meta l4proto tcp dnat ip to numgen inc mod 1 map { 0 : 10.244.1.2 . 80 }\n\
         delete element inet barge endpoints { 10.244.2.2 . 10.244.2.2 }\n"
    );
    let mut new = old.clone();
    new.chains.remove("svc/default/b/tcp/80");
    new.cluster
        .remove(&([10, 96, 0, 2].into(), Protocol::Tcp, 80));
    assert_eq!(
        change(&old, &new),
        "delete element inet barge cluster_ports { 10.96.0.2 . tcp . 80 }\n\
         flush chain inet barge svc/default/b/tcp/80\n\
         delete chain inet barge svc/default/b/tcp/80\n"
    );
}

fn any_rules() -> impl Strategy<Value = Rules> {
    // Few names and ports, so that old and new overlap.
    let endpoints = proptest::collection::btree_set((1u8..4, 1u16..3), 1..4);
    let chains = proptest::collection::btree_map(
        0u8..5,
        (
            any::<[bool; 3]>(),
            endpoints,
            proptest::option::of(60u32..62),
        ),
        0..5,
    );
    (chains, any::<[bool; 4]>()).prop_map(|(chains, [own, peers, services, nodes])| {
        let mut rules = Rules { ..Rules::default() };
        for (number, ([tcp, gated, ranges], endpoints, stays)) in chains {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            let name = format!("svc/default/s{number}/{protocol}/80");
            let to = |(ip, port)| SocketAddrV4::new([10, 244, 1, ip].into(), port);
            let endpoints: BTreeSet<_> = endpoints.into_iter().map(to).collect();
            rules.endpoints.extend(endpoints.iter().map(|e| *e.ip()));
            let key = ([10, 96, 0, number].into(), protocol, 80);
            rules.cluster.insert(key, name.clone());
            if nodes {
                let key = (protocol, 30000 + u16::from(number));
                let gate = format!("{name}/node");
                let door = if gated { gate.clone() } else { name.clone() };
                rules.node.insert(key, door);
                let range = "192.0.2.0/24".parse().unwrap();
                let gate_of = Gate {
                    sources: ranges.then_some(range).into_iter().collect(),
                    inside: Some(name.clone()),
                    outside: tcp.then(|| name.clone()),
                };
                if gated {
                    rules.gates.insert(gate, gate_of);
                }
            }
            rules.chains.insert(
                name,
                Chain {
                    protocol,
                    endpoints,
                    stays,
                },
            );
        }
        rules.seats = seats(&rules.chains);
        rules.own_range = own.then(|| "10.244.1.0/24".parse().unwrap());
        if peers {
            rules.pod_ranges.insert("10.244.2.0/24".parse().unwrap());
        }
        rules.service_range = services.then(|| "10.96.0.0/16".parse().unwrap());
        rules
    })
}

/// The kernel's table, without what only counts.
fn table(space: &Space) -> serde_json::Value {
    let text = space.sh("nft", "-j list table inet barge");
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    strip_handles(&mut json);
    let mut all: Vec<_> = json["nftables"].as_array().unwrap().clone();
    all.sort_by_key(ToString::to_string);
    all.into()
}

fn strip_handles(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(map) => {
            map.remove("handle");
            map.values_mut().for_each(strip_handles);
        }
        serde_json::Value::Array(list) => {
            list.iter_mut().for_each(strip_handles);
            // Elements of sets come in the order they went in.
            if list.iter().all(|item| !item.is_object()) {
                list.sort_by_key(ToString::to_string);
            }
        }
        _ => {}
    }
}

fn apply(space: &Space, script: String) {
    space
        .block_on(async move { Nft::default().apply(&script).await })
        .unwrap();
}

#[test]
fn the_kernel_takes_the_whole_table_again_and_again() {
    let space = Space::new();
    let rules = two_services();
    apply(&space, replace(&rules));
    let once = table(&space);
    apply(&space, replace(&rules));
    assert_eq!(table(&space), once);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn changes_lead_to_what_a_whole_table_would_be(steps in proptest::collection::vec(any_rules(), 2..5)) {
        let space = Space::new();
        let mut old = steps[0].clone();
        apply(&space, replace(&old));
        for new in &steps[1..] {
            let script = change(&old, new);
            if !script.is_empty() {
                apply(&space, script);
            }
            old = new.clone();
        }
        let changed = table(&space);
        apply(&space, replace(&old));
        prop_assert_eq!(changed, table(&space));
    }
}

#[test]
fn who_stays_and_who_comes_from_where_is_decided_in_chains_of_their_own() {
    let to: SocketAddrV4 = "10.244.1.2:8080".parse().unwrap();
    let web = "svc/default/web/tcp/80".to_owned();
    let gate = Gate {
        sources: ["192.0.2.0/24".parse().unwrap()].into(),
        inside: Some(web.clone()),
        outside: None,
    };
    let sticky = Chain {
        protocol: Protocol::Tcp,
        endpoints: [to].into(),
        stays: Some(60),
    };
    let new = Rules {
        seats: seats(&[(web.clone(), sticky.clone())].into()),
        chains: [(web.clone(), sticky)].into(),
        gates: [(format!("{web}/node"), gate)].into(),
        ..Rules::default()
    };
    let name = "svc/default/web/tcp/80/10.244.1.2/8080/60";
    let wanted = format!(
        "\
add set inet barge {name} {{ type ipv4_addr; flags dynamic,timeout; timeout 60s; }}
add chain inet barge {name}
add rule inet barge {name} update @{name} {{ ip saddr }}
add rule inet barge {name} meta l4proto tcp dnat ip to 10.244.1.2:8080
add chain inet barge {web}
add rule inet barge {web} ip saddr @{name} goto {name}
add rule inet barge {web} jhash ip saddr mod 1 seed 0x62617267 vmap {{ 0 : goto {name} }}
add chain inet barge {web}/node
add rule inet barge {web}/node fib saddr type local goto {web}
add rule inet barge {web}/node ip saddr != {{ 192.0.2.0/24 }} accept
add rule inet barge {web}/node ip saddr @pod_ranges goto {web}
add rule inet barge {web}/node ip saddr @peers goto {web}
"
    );
    assert_eq!(change(&Rules::default(), &new), wanted);
    assert_eq!(change(&new, &new), "");
    let gone = format!(
        "\
flush chain inet barge {web}/node
delete chain inet barge {web}/node
flush chain inet barge {web}
delete chain inet barge {web}
flush chain inet barge {name}
delete chain inet barge {name}
delete set inet barge {name}
"
    );
    assert_eq!(change(&new, &Rules::default()), gone);
}
