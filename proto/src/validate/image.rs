//! References to images: `[host[:port]/]path[:tag][@digest]`, as the distribution project defines them.

/// The parts of a reference that rules depend on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// The error is a rule, to be read after the text.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is a port's.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let path = match name.split_once('/') {
            Some((host, path)) if is_host(host) => {
                if !is_valid_host(host) {
                    return Err(format!("is no image: {host:?} is not a host"));
                }
                path
            }
            _ => name,
        };
        if name.len() > 255 {
            return Err("is no image: its name is longer than 255 characters".to_owned());
        }
        if !path.split('/').all(is_component) {
            return Err(format!(
                "is no image: {path:?} must be lower-case letters and digits, separated by '.', '_', '-' or '/'"
            ));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!(
                "is no image: the tag {tag:?} must be at most 128 letters, digits, '_', '.' and '-'"
            ));
        }
        if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
            return Err(format!(
                "is no image: the digest {digest:?} must be sha256: and 64 hexadecimal digits"
            ));
        }
        Ok(Self { tag, digest })
    }

    /// Whether it may name another image tomorrow: Kubernetes then pulls always by default.
    pub fn is_latest(&self) -> bool {
        matches!((self.tag, self.digest), (None | Some("latest"), None))
    }
}

/// Whether the part before the first slash is a host, not a part of the path.
fn is_host(part: &str) -> bool {
    part == "localhost"
        || part.contains(['.', ':'])
        || part.contains(|c: char| c.is_ascii_uppercase())
}

fn is_valid_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let valid_name = match name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_label),
    };
    valid_name && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn is_component(component: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(is_edge)
        && component.ends_with(is_edge)
        && component.split(is_edge).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn images_are_told_from_nonsense() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for image in [
            "nginx",
            "nginx:latest",
            "my-app:1.0",
            "library/nginx",
            "docker.io/library/nginx:1.27-alpine",
            "localhost/a",
            "localhost:5000/a/b:c",
            "10.0.0.1:5000/a",
            "[fd00::1]:5000/a",
            "a__b/c--d.e",
            &format!("nginx@{digest}"),
            &format!("registry.example.com/nginx:1@{digest}"),
        ] {
            assert!(Reference::parse(image).is_ok(), "{image}");
        }
        for image in [
            "",
            "Nginx",
            "nginx:",
            "nginx:a b",
            "nginx latest",
            "/nginx",
            "nginx/",
            "a//b",
            "a___b",
            "a..b",
            "-a",
            "nginx:-1",
            "nginx@sha256:abc",
            "nginx@",
            "https://example.com/nginx",
            "example.com:99999/nginx",
            "example.com:/nginx",
            &"a".repeat(256),
            &format!("nginx:{}", "a".repeat(129)),
        ] {
            assert!(Reference::parse(image).is_err(), "{image}");
        }
    }

    #[test]
    fn what_moves_is_latest() {
        let digest = format!("nginx:latest@sha256:{}", "0".repeat(64));
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("localhost:5000/nginx", true),
            ("nginx:1", false),
            (&digest, false),
        ] {
            assert_eq!(
                Reference::parse(image).unwrap().is_latest(),
                latest,
                "{image}"
            );
        }
    }
}
