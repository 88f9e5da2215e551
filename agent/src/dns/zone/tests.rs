#![allow(clippy::unwrap_used)]
use super::*;
use crate::dns::names::{self, Group, Host};

fn port(name: &str, udp: bool, number: u32) -> names::Port {
    names::Port {
        name: name.to_owned(),
        udp,
        number,
    }
}

fn host(address: [u8; 4], name: &str) -> Host {
    Host {
        address: Ipv4Addr::from(address).into(),
        name: name.to_owned(),
    }
}

/// A Service with an address, a headless one with two pods, one of which has a name, and a headless one without pods.
pub fn example() -> Names {
    let named = |name: &str, address: u32, ports: Vec<names::Port>, groups| names::Named {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        address,
        ports,
        groups,
    };
    let http = vec![port("http", false, 80), port("dns", true, 53)];
    let pods = Group {
        hosts: vec![host([10, 244, 1, 7], ""), host([10, 244, 2, 8], "db-0")],
        ports: vec![port("sql", false, 5432)],
    };
    Names {
        address: "10.96.0.10".to_owned(),
        services: vec![
            named("web", Ipv4Addr::new(10, 96, 1, 1).into(), http, Vec::new()),
            named("db", 0, Vec::new(), vec![pods]),
            named("none", 0, Vec::new(), Vec::new()),
        ],
        ..Names::default()
    }
}

const ALL: Part = Part {
    turn: 0,
    most: usize::MAX,
};

fn look(name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
    let zone = Zone::new(&example(), 1);
    let found = zone.look(&Name::from_ascii(name).unwrap(), kind, ALL)?;
    let start = found.authorities.iter();
    let has_start = start.map(|it| it.record_type()).eq([RecordType::SOA]);
    assert_eq!(has_start, found.answers.is_empty(), "{name}");
    let answers = found.answers.iter();
    assert!(answers.clone().all(|it| it.ttl == TTL));
    let mut answers: Vec<_> = answers.map(|it| it.data.to_string()).collect();
    answers.sort();
    Some((found.code, answers))
}

fn there(name: &str, kind: RecordType) -> Vec<String> {
    let (code, answers) = look(name, kind).unwrap();
    assert_eq!(code, ResponseCode::NoError, "{name}");
    answers
}

#[test]
fn a_service_has_its_address_and_a_headless_one_its_ready_pods() {
    for name in ["web.shop.svc.cluster.local.", "WEB.Shop.svc.CLUSTER.local."] {
        assert_eq!(there(name, RecordType::A), ["10.96.1.1"]);
    }
    let pods = ["10.244.1.7", "10.244.2.8"];
    assert_eq!(there("db.shop.svc.cluster.local.", RecordType::A), pods);
    let named = "db-0.db.shop.svc.cluster.local.";
    assert_eq!(there(named, RecordType::A), ["10.244.2.8"]);
    let nameless = "10-244-1-7.db.shop.svc.cluster.local.";
    assert_eq!(there(nameless, RecordType::A), ["10.244.1.7"]);
    let pod = "10-244-9-9.shop.pod.cluster.local.";
    assert_eq!(there(pod, RecordType::A), ["10.244.9.9"]);
    let server = "ns.dns.cluster.local.";
    assert_eq!(there(server, RecordType::A), ["10.96.0.10"]);
}

#[test]
fn what_is_there_has_no_other_address_and_what_is_not_has_no_name() {
    for name in [
        "cluster.local.",
        "svc.cluster.local.",
        "shop.svc.cluster.local.",
        "web.shop.svc.cluster.local.",
        "db.shop.svc.cluster.local.",
        "db-0.db.shop.svc.cluster.local.",
        "_tcp.web.shop.svc.cluster.local.",
        "_http._tcp.web.shop.svc.cluster.local.",
    ] {
        assert!(there(name, RecordType::AAAA).is_empty(), "{name}");
    }
    for name in [
        "x.cluster.local.",
        "x.svc.cluster.local.",
        "web.x.svc.cluster.local.",
        "x.shop.svc.cluster.local.",
        "x.web.shop.svc.cluster.local.",
        "none.shop.svc.cluster.local.",
        "a.b.db-0.db.shop.svc.cluster.local.",
        "_http._udp.web.shop.svc.cluster.local.",
        "_x._tcp.web.shop.svc.cluster.local.",
        "_udp.db.shop.svc.cluster.local.",
        "010-244-9-9.shop.pod.cluster.local.",
        "example.com.shop.svc.cluster.local.",
    ] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
            let found = look(name, kind).unwrap();
            assert_eq!(found, (ResponseCode::NXDomain, Vec::new()), "{name}");
        }
    }
    for name in ["example.com.", "cluster.locals.", "local.", "."] {
        assert!(look(name, RecordType::A).is_none(), "{name}");
    }
}

#[test]
fn ports_lead_to_the_service_or_to_its_pods() {
    let http = "_http._tcp.web.shop.svc.cluster.local.";
    let web = "0 100 80 web.shop.svc.cluster.local.";
    assert_eq!(there(http, RecordType::SRV), [web]);
    let all = there("web.shop.svc.cluster.local.", RecordType::SRV);
    assert_eq!(all.len(), 2);
    let sql = there("_SQL._tcp.db.shop.svc.cluster.local.", RecordType::SRV);
    let pods = [
        "0 50 5432 10-244-1-7.db.shop.svc.cluster.local.",
        "0 50 5432 db-0.db.shop.svc.cluster.local.",
    ];
    assert_eq!(sql, pods);
    let zone = Zone::new(&example(), 1);
    let name = Name::from_ascii("_sql._tcp.db.shop.svc.cluster.local.").unwrap();
    let found = zone.look(&name, RecordType::SRV, ALL).unwrap();
    assert_eq!(found.additionals.len(), 2);
}

#[test]
fn addresses_have_names() {
    let of = |name: &str| there(name, RecordType::PTR);
    assert_eq!(
        of("1.1.96.10.in-addr.arpa."),
        ["web.shop.svc.cluster.local."]
    );
    assert_eq!(
        of("8.2.244.10.IN-ADDR.arpa."),
        ["db-0.db.shop.svc.cluster.local."]
    );
    assert!(look("9.9.9.9.in-addr.arpa.", RecordType::PTR).is_none());
    assert!(look("1.96.10.in-addr.arpa.", RecordType::PTR).is_none());
    let version = there("dns-version.cluster.local.", RecordType::TXT);
    assert_eq!(version, ["1.1.0"]);
}

#[test]
fn many_pods_cost_little() {
    let hosts = (0..20_000_u32).map(|number| Host {
        address: 0x0a00_0000 + number,
        name: format!("db-{number}"),
    });
    let mut names = example();
    names.services[1].groups[0].hosts = hosts.collect();
    let one = names.services[0].clone();
    names.services.extend((0..2_000).map(|number| names::Named {
        name: format!("web-{number}"),
        ..one.clone()
    }));
    let begin = std::time::Instant::now();
    let bytes = names.to_bytes();
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    let read = Names::from_bytes(&bytes).unwrap();
    let zone = Zone::new(&read, 1);
    let name = Name::from_ascii("db-19999.db.shop.svc.cluster.local.").unwrap();
    assert_eq!(
        zone.look(&name, RecordType::A, ALL).unwrap().answers.len(),
        1
    );
    let took = begin.elapsed();
    println!("{} bytes, {took:?}", bytes.len());
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

#[test]
fn of_many_addresses_each_question_gets_others() {
    let all: Vec<_> = (0..1000).collect();
    let part = |turn| Part { turn, most: 3 }.of(all.clone());
    assert_eq!(part(0), [0, 1, 2]);
    assert_eq!(part(999), [999, 0, 1]);
    assert_eq!(part(1001), [1, 2, 3]);
    assert!(Part { turn: 7, most: 3 }.of(Vec::<u8>::new()).is_empty());
}
