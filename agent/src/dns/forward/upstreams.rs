//! The node's own name servers, as its `/etc/resolv.conf` has them.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::SystemTime,
};

use hickory_proto::rr::Name;

use crate::files;

/// Where systemd-resolved lists the real name servers, when `/etc/resolv.conf` has only its own.
pub const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// Programs read no more (resolv.conf(5)).
const MOST_SERVERS: usize = 3;
/// No file of the kind has as many bytes.
const LARGEST: u64 = 64 << 10;

/// Whom to ask, and where the node's programs search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// In order.
    pub servers: Vec<SocketAddr>,
    /// Domains.
    pub searches: Vec<Name>,
}

/// What tells whether a file is another one.
pub type Seen = Option<(SystemTime, u64)>;

/// The time of a file's last change, and its length. Blocks.
pub fn seen(path: &Path) -> Seen {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The files that [`read`] looks at.
pub fn files_of(path: &Path) -> [PathBuf; 2] {
    [path.to_owned(), RESOLVED.into()]
}

/// Reads a file and leaves out `own`, at which this process listens itself. A server on loopback (systemd-resolved's, 127.0.0.53) may lead back here: those that it
/// asks itself are taken instead, where they are known. Blocks.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path, own: &[IpAddr]) -> io::Result<Upstreams> {
    let text = text(path)?;
    let mut upstreams = parse(&text, own);
    let is_near = |server: &SocketAddr| server.ip().is_loopback();
    if upstreams.servers.iter().all(is_near)
        && let Ok(text) = self::text(Path::new(RESOLVED))
    {
        let real = parse(&text, own).servers;
        if real.iter().any(|server| !is_near(server)) {
            upstreams.servers = real;
        }
    }
    Ok(upstreams)
}

fn text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is too large",
        ));
    }
    let bytes = files::read_if_there(path)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(text: &str, own: &[IpAddr]) -> Upstreams {
    let mut upstreams = Upstreams::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                let address = address.filter(|it| !own.contains(it) && !it.is_unspecified());
                let server = address.map(|address| SocketAddr::new(address, 53));
                let server = server.filter(|it| !upstreams.servers.contains(it));
                upstreams.servers.extend(server);
            }
            // The last one counts.
            Some("search" | "domain") => {
                let names = words.filter_map(|word| Name::from_ascii(word).ok());
                let names = names.filter(|name| !name.is_root()).map(|mut name| {
                    name.set_fqdn(true);
                    name
                });
                upstreams.searches = names.take(32).collect();
            }
            _ => {}
        }
    }
    upstreams.servers.truncate(MOST_SERVERS);
    upstreams
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_node_s_servers_but_not_this_one() {
        let own: IpAddr = "10.96.0.10".parse().unwrap();
        let text = "search . corp.example\nnameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver x\nnameserver 2001:db8::1\n";
        let upstreams = parse(text, &[own]);
        let servers: Vec<_> = upstreams
            .servers
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(upstreams.searches.len(), 1);
        assert!(upstreams.searches[0].is_fqdn());
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("none"), &[]).is_err());
    }
}
