//! Credentials for registries, and which of them an image is pulled with: Docker's configuration files, matched as Kubernetes' keyrings match.

use std::{cmp::Reverse, fmt, sync::Arc};

mod docker;

pub use docker::{docker_config, docker_config_of_node, dockercfg};

/// Entries of one file that are taken.
const MOST_ENTRIES: usize = 1024;

/// What a registry is told of who asks. No text of it is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user name and a password.
    Password(String, String),
    /// A refresh token of OAuth 2 (`identitytoken`), which only the registry's service for tokens is told.
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// Credentials by the place that they name, the most specific place first. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring(Arc<Vec<(Place, Login)>>);

/// Hosts, and a beginning of the paths there, that credentials are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Parts of the host's name between its dots; each may have `*` and `?`.
    labels: Vec<String>,
    /// Empty: none is named.
    port: String,
    /// As in "team/app", or empty.
    path: String,
}

impl Keyring {
    /// Sorts entries. Those of one place stay in their order.
    fn new(mut entries: Vec<(Place, Login)>) -> Self {
        entries.sort_by_key(|(place, _)| place.rank());
        Self(Arc::new(entries))
    }

    /// The credentials for a repository of a host ("example.com:5000", "team/app"), with the places that they are for.
    pub fn find(&self, host: &str, repository: &str) -> Vec<&(Place, Login)> {
        let (labels, port) = split(host);
        let entries = self.0.iter();
        entries
            .filter(|(place, _)| place.fits(&labels, &port, repository))
            .collect()
    }
}

impl Place {
    /// Reads the name of a place in a configuration file: a host, perhaps with a port and a path, or a URL. `None` for what is none.
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("https://");
        let rest = rest
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or(text);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || host.contains(['@', ' ', '\\']) {
            return None;
        }
        // Docker names its own registry by the URL of an API that has gone.
        let of_api = |version: &str| path.strip_prefix(version)?.strip_prefix('/');
        let bare = match path {
            "v1" | "v2" => "",
            path => of_api("v1").or_else(|| of_api("v2")).unwrap_or(path),
        };
        let (labels, port) = split(host);
        Some(Self {
            labels,
            port,
            path: bare.trim_end_matches('/').to_owned(),
        })
    }

    /// The port has to be the same, and each part of the host's name has to fit. The path is the beginning of the repository's.
    fn fits(&self, labels: &[String], port: &str, repository: &str) -> bool {
        self.port == port
            && self.labels.len() == labels.len()
            && repository.starts_with(&self.path)
            && self
                .labels
                .iter()
                .zip(labels)
                .all(|(pattern, label)| glob(pattern, label))
    }

    /// Which of two places that fit is more specific: it has the smaller rank.
    pub fn rank(&self) -> impl Ord + use<> {
        let label = |label: &String| label.bytes().filter(|b| !matches!(b, b'*' | b'?')).count();
        let exact: usize = self.labels.iter().map(label).sum();
        let open = self.labels.iter().any(|it| it.contains(['*', '?']));
        (open, Reverse(self.path.len()), Reverse(exact))
    }
}

/// Parts of a host's name, and its port. Docker's registry has several names, of which images use one.
fn split(host: &str) -> (Vec<String>, String) {
    let (name, port) = match host.rsplit_once(':') {
        // What ends with a bracket is an IPv6 address without a port.
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let name = match name {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        name => name,
    };
    let labels = name.split('.').map(str::to_ascii_lowercase).collect();
    (labels, port.to_owned())
}

/// `*` stands for any characters, `?` for one.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Where the last star is, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((star_at, reach)) => {
                    (at, read) = (star_at + 1, reach + 1);
                    star = Some((star_at, reach + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests;
