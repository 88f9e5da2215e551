//! The files in `/etc` that a pod's containers share.

use std::{fmt::Write, fs, io, net::IpAddr, path::Path};

use crate::{
    dns::{DOMAIN, RESOLVED},
    runtime::{ClusterNames, PodNames},
};

/// Programs read no more (resolv.conf(5)).
const MOST_SERVERS: usize = 3;
/// As many domains, and bytes of all of them, does Kubernetes allow in a search list …
const MOST_DOMAINS: usize = 32;
const LONGEST_SEARCH: usize = 2048;
/// … and as many bytes has a name.
const LONGEST_DOMAIN: usize = 253;

/// Names of the files, as they are in `/etc`.
pub const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Of a pod in the machine's network: what the machine has itself.
#[derive(Debug, Clone, Copy)]
pub struct OfMachine<'a> {
    /// The machine's `/etc/hosts`.
    pub hosts: &'a Path,
    /// The machine's host name.
    pub name: &'a str,
}

/// Writes the files into a folder.
pub fn write(
    folder: &Path,
    pod: &str,
    names: &PodNames,
    ips: &[IpAddr],
    resolv_conf: &Path,
    machine: Option<OfMachine<'_>>,
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let read = |path: &Path| crate::files::read_if_there(path).map(Option::unwrap_or_default);
    let (name, mut hosts) = match machine {
        None => {
            let hosts = hosts(hostname(&names.hostname, pod), names, ips);
            (names.kernel_name(pod), hosts)
        }
        Some(machine) => {
            let hosts = String::from_utf8_lossy(&read(machine.hosts)?).into_owned();
            (machine.name.to_owned(), hosts)
        }
    };
    if !hosts.is_empty() && !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    for (ip, aliases) in &names.aliases {
        // Writing to a string cannot fail.
        let _ = writeln!(hosts, "{ip}\t{}", aliases.join("\t"));
    }
    fs::write(folder.join("hostname"), format!("{name}\n"))?;
    fs::write(folder.join("hosts"), hosts)?;
    let mut resolvers = String::new();
    if let (false, Some(cluster)) = (names.without_nodes, &names.cluster) {
        let nodes = String::from_utf8_lossy(&read(resolv_conf)?).into_owned();
        resolvers = of_cluster(cluster, &nodes);
    } else if !names.without_nodes && machine.is_some() {
        // The machine's loopback is the pod's, too.
        resolvers = String::from_utf8_lossy(&read(resolv_conf)?).into_owned();
    } else if !names.without_nodes {
        resolvers = reachable(&String::from_utf8_lossy(&read(resolv_conf)?));
        if !resolvers.contains("nameserver") {
            resolvers = reachable(&String::from_utf8_lossy(&read(Path::new(RESOLVED))?));
        }
    }
    fs::write(folder.join("resolv.conf"), with_own(resolvers, names))
}

/// A pod's host name: the one that it asks for, or as much of its name as the kernel takes.
pub fn hostname<'a>(asked: &'a str, pod: &'a str) -> &'a str {
    if !asked.is_empty() {
        return asked;
    }
    let cut = pod
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at <= 63)
        .last();
    let cut = if pod.len() <= 63 {
        pod.len()
    } else {
        cut.unwrap_or(0)
    };
    pod[..cut].trim_end_matches(['-', '.'])
}

fn hosts(name: &str, names: &PodNames, ips: &[IpAddr]) -> String {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for ip in ips {
        // Writing to a string cannot fail.
        let _ = match names.domain.as_str() {
            "" => writeln!(text, "{ip}\t{name}"),
            domain => writeln!(text, "{ip}\t{name}.{domain}\t{name}"),
        };
    }
    text
}

/// As Kubernetes has it: names are the cluster's first, and those with fewer than five dots are searched for.
fn of_cluster(cluster: &ClusterNames, nodes: &str) -> String {
    let ClusterNames { server, namespace } = cluster;
    let mut domains: Vec<_> = [
        format!("{namespace}.svc."),
        "svc.".to_owned(),
        String::new(),
    ]
    .map(|below| format!("{below}{DOMAIN}"))
    .into();
    let mut bytes: usize = domains.iter().map(|domain| domain.len() + 1).sum();
    for domain in searched(nodes) {
        bytes += domain.len() + 1;
        if domains.len() == MOST_DOMAINS || bytes > LONGEST_SEARCH {
            break;
        }
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let domains = domains.join(" ");
    format!("nameserver {server}\nsearch {domains}\noptions ndots:5\n")
}

/// The domains in which the node's programs search, but those that would do harm: the root (`search .`), and what is no name.
fn searched(nodes: &str) -> Vec<String> {
    let mut lists = nodes.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_list = matches!(words.next(), Some("search" | "domain"));
        is_list.then_some(words)
    });
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
    };
    // The last one counts.
    let words = lists.next_back().into_iter().flatten();
    let words = words.map(|word| word.strip_suffix('.').unwrap_or(word));
    let is_name = |word: &&str| word.len() <= LONGEST_DOMAIN && word.split('.').all(is_label);
    words.filter(is_name).map(str::to_lowercase).collect()
}

/// What the pod says, added to what the node says.
fn with_own(nodes: String, names: &PodNames) -> String {
    let PodNames {
        nameservers,
        searches,
        options,
        ..
    } = names;
    if nameservers.is_empty() && searches.is_empty() && options.is_empty() {
        return nodes;
    }
    let name = |option: &str| option.split(':').next().unwrap_or(option).to_owned();
    let own: Vec<_> = options.iter().map(|option| name(option)).collect();
    let (mut servers, mut domains, mut settings) = (Vec::new(), Vec::new(), Vec::new());
    for line in nodes.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => servers.extend(words),
            // The last one counts.
            Some("search" | "domain") => domains = words.collect(),
            Some("options") => settings.extend(words.filter(|it| !own.contains(&name(it)))),
            _ => {}
        }
    }
    let mut text = String::new();
    servers.extend(nameservers.iter().cloned());
    for server in servers.iter().take(MOST_SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    domains.extend(searches.iter().cloned());
    settings.extend(options.iter().cloned());
    for (word, list) in [("search", domains), ("options", settings)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{word} {}", list.join(" "));
        }
    }
    text
}

/// Without the name servers that listen on the machine's loopback: a pod has its own.
fn reachable(resolv_conf: &str) -> String {
    let loopback = |line: &&str| {
        let mut words = line.split_whitespace();
        let server = words.next() == Some("nameserver");
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        !(server && address.is_some_and(|address| address.is_loopback()))
    };
    resolv_conf
        .lines()
        .filter(loopback)
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_fit_the_kernel() {
        assert_eq!(hostname("", "web-0"), "web-0");
        assert_eq!(hostname("", &"a".repeat(70)), "a".repeat(63));
        assert_eq!(
            hostname("", &format!("{}-b", "a".repeat(62))),
            "a".repeat(62)
        );
    }

    #[test]
    fn loopback_name_servers_are_of_no_use() {
        let text =
            "search x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\noptions edns0\n";
        assert_eq!(
            reachable(text),
            "search x\nnameserver 10.0.0.2\noptions edns0\n"
        );
    }

    #[test]
    fn the_pod_finds_itself() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc");
        write(
            &etc,
            "web-0",
            &PodNames::default(),
            &["10.244.1.7".parse().unwrap()],
            Path::new("/nonexistent"),
            None,
        )
        .unwrap();
        let hosts = fs::read_to_string(etc.join("hosts")).unwrap();
        assert!(hosts.contains("10.244.1.7\tweb-0\n"));
        for file in FILES {
            assert!(etc.join(file).exists());
        }
    }

    #[test]
    fn a_pod_has_the_names_that_it_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, nodes) = (folder.path().join("etc"), folder.path().join("resolv.conf"));
        fs::write(
            &nodes,
            "search x\nnameserver 10.0.0.2\noptions ndots:5 edns0\n",
        )
        .unwrap();
        let mut names = PodNames {
            hostname: "web".into(),
            domain: "shop.default.svc.cluster.local".into(),
            aliases: vec![(
                "10.0.0.9".into(),
                vec!["db".into(), "db.example.com".into()],
            )],
            nameservers: vec!["10.0.0.3".into()],
            searches: vec!["y".into()],
            options: vec!["ndots:2".into()],
            ..PodNames::default()
        };
        let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap();
        let ips = ["10.244.1.7".parse().unwrap()];
        write(&etc, "web-0", &names, &ips, &nodes, None).unwrap();
        assert_eq!(read("hostname"), "web\n");
        assert!(read("hosts").contains("10.244.1.7\tweb.shop.default.svc.cluster.local\tweb\n"));
        assert!(read("hosts").ends_with("10.0.0.9\tdb\tdb.example.com\n"));
        let both = "nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch x y\noptions edns0 ndots:2\n";
        assert_eq!(read("resolv.conf"), both);
        names.without_nodes = true;
        write(&etc, "web-0", &names, &ips, &nodes, None).unwrap();
        assert_eq!(
            read("resolv.conf"),
            "nameserver 10.0.0.3\nsearch y\noptions ndots:2\n"
        );
        names.is_full = true;
        write(&etc, "web-0", &names, &ips, &nodes, None).unwrap();
        assert_eq!(read("hostname"), "web.shop.default.svc.cluster.local\n");
        assert!(read("hosts").contains("10.244.1.7\tweb.shop.default.svc.cluster.local\tweb\n"));
    }

    #[test]
    fn a_pod_asks_the_cluster_first() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, nodes) = (folder.path().join("etc"), folder.path().join("resolv.conf"));
        let ips = ["10.244.1.7".parse().unwrap()];
        let mut names = PodNames {
            cluster: Some(ClusterNames {
                server: "10.96.0.10".parse().unwrap(),
                namespace: "shop".into(),
            }),
            ..PodNames::default()
        };
        let written = |node: &str, names: &PodNames, machine: bool| {
            fs::write(&nodes, node).unwrap();
            let hosts = folder.path().join("hosts");
            fs::write(&hosts, "").unwrap();
            let machine = machine.then_some(OfMachine {
                hosts: &hosts,
                name: "node-1",
            });
            write(&etc, "web-0", names, &ips, &nodes, machine).unwrap();
            fs::read_to_string(etc.join("resolv.conf")).unwrap()
        };
        let plain =
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local";
        let rest = "\noptions ndots:5\n";
        for (node, more) in [
            ("nameserver 127.0.0.53\noptions edns0 ndots:1\n", ""),
            ("search .\n", ""),
            (
                "domain old.example\nsearch corp.example. . a..b Corp.example cluster.local x\u{fc}\n",
                " corp.example",
            ),
        ] {
            for machine in [false, true] {
                let wanted = format!("{plain}{more}{rest}");
                assert_eq!(written(node, &names, machine), wanted, "{node}");
            }
        }
        let many: Vec<_> = (0..40).map(|number| format!("d{number}.example")).collect();
        let text = written(&format!("search {}\n", many.join(" ")), &names, false);
        assert_eq!(text.lines().nth(1).unwrap().split(' ').count(), 33);
        let long: Vec<_> = (0..12)
            .map(|number| format!("d{number}.{}", vec!["x".repeat(60); 4].join(".")))
            .collect();
        let text = written(&format!("search {}\n", long.join(" ")), &names, false);
        assert!(text.lines().nth(1).unwrap().len() <= 2048 + "search".len());
        names.nameservers = vec!["10.0.0.3".into()];
        names.options = vec!["ndots:2".into()];
        let own = written("search y\n", &names, false);
        assert_eq!(
            own,
            "nameserver 10.96.0.10\nnameserver 10.0.0.3\nsearch shop.svc.cluster.local svc.cluster.local cluster.local y\noptions ndots:2\n"
        );
        names.without_nodes = true;
        assert_eq!(
            written("search y\n", &names, false),
            "nameserver 10.0.0.3\noptions ndots:2\n"
        );
    }

    #[test]
    fn in_the_machine_s_network_its_names_hold() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let etc = folder.path().join("etc");
        let hosts = file("hosts", "127.0.0.1 localhost\n192.0.2.9 gateway");
        let resolvers = "nameserver 127.0.0.53\nsearch x\n";
        let names = PodNames {
            hostname: "web".into(),
            aliases: vec![("10.0.0.9".into(), vec!["db".into()])],
            ..PodNames::default()
        };
        let machine = OfMachine {
            hosts: &hosts,
            name: "node-1",
        };
        let ips = ["192.0.2.1".parse().unwrap()];
        let resolv_conf = file("resolv.conf", resolvers);
        write(&etc, "web-0", &names, &ips, &resolv_conf, Some(machine)).unwrap();
        let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap();
        assert_eq!(read("hostname"), "node-1\n");
        assert_eq!(
            read("hosts"),
            "127.0.0.1 localhost\n192.0.2.9 gateway\n10.0.0.9\tdb\n"
        );
        assert_eq!(read("resolv.conf"), resolvers);
    }
}
