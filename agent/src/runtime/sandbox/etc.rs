//! The files in `/etc` that a pod's containers share.

use std::{fmt::Write, fs, io, net::IpAddr, path::Path};

/// Where systemd-resolved lists the real name servers, when `/etc/resolv.conf` has only its own.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Names of the files, as they are in `/etc`.
pub const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Writes the files into a folder.
pub fn write(folder: &Path, pod: &str, ips: &[IpAddr], resolv_conf: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let name = hostname(pod);
    fs::write(folder.join("hostname"), format!("{name}\n"))?;
    fs::write(folder.join("hosts"), hosts(name, ips))?;
    let read = |path: &Path| crate::files::read_if_there(path).map(Option::unwrap_or_default);
    let mut resolvers = reachable(&String::from_utf8_lossy(&read(resolv_conf)?));
    if !resolvers.contains("nameserver") {
        resolvers = reachable(&String::from_utf8_lossy(&read(Path::new(RESOLVED))?));
    }
    fs::write(folder.join("resolv.conf"), resolvers)
}

/// A pod's host name: as much of its name as the kernel takes.
pub fn hostname(pod: &str) -> &str {
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

fn hosts(name: &str, ips: &[IpAddr]) -> String {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for ip in ips {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{ip}\t{name}");
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
        assert_eq!(hostname("web-0"), "web-0");
        assert_eq!(hostname(&"a".repeat(70)), "a".repeat(63));
        assert_eq!(hostname(&format!("{}-b", "a".repeat(62))), "a".repeat(62));
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
            &["10.244.1.7".parse().unwrap()],
            Path::new("/nonexistent"),
        )
        .unwrap();
        let hosts = fs::read_to_string(etc.join("hosts")).unwrap();
        assert!(hosts.contains("10.244.1.7\tweb-0\n"));
        for file in FILES {
            assert!(etc.join(file).exists());
        }
    }
}
