//! Names of images, as Docker made them: "nginx" is "docker.io/library/nginx:latest".

use std::fmt;

use super::{Image, RuntimeError, reason};

/// A complete name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The registry's host, perhaps with a port.
    pub host: String,
    /// The path below it.
    pub repository: String,
    /// The tag, unless there is only a digest.
    pub tag: Option<String>,
    /// The digest, if there is one; then the tag does not matter.
    pub digest: Option<String>,
}

impl Name {
    /// Completes a name.
    pub fn parse(text: &str) -> Result<Self, RuntimeError> {
        parse(text).map_err(|why| {
            RuntimeError::lasting(
                reason::INVALID_IMAGE_NAME,
                format!("\"{text}\" is not the name of an image: {why}"),
            )
        })
    }

    /// The image of this name, and of this digest: that is what really runs.
    pub fn image(&self, digest: &str) -> Image {
        Image {
            name: self.to_string(),
            id: format!("{}/{}@{digest}", self.host, self.repository),
        }
    }

    /// What a registry is asked for.
    pub fn reference(&self) -> &str {
        let tag = self.tag.as_deref().unwrap_or("latest");
        self.digest.as_deref().unwrap_or(tag)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Name, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("the digest must be sha256: and 64 hexadecimal digits");
    }
    // A colon before the last slash belongs to a port.
    let colon = rest
        .rfind(':')
        .filter(|colon| !rest[*colon..].contains('/'));
    let (path, tag) = match colon {
        Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("the tag may have letters, digits, underscores, dots and dashes, at most 128");
    }
    let (host, repository) = match path.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", path),
    };
    let host = if host == "index.docker.io" {
        "docker.io"
    } else {
        host
    };
    let host_bytes =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    if !host.bytes().all(host_bytes) {
        return Err("the registry's host has a character that no host has");
    }
    let repository = match (host, repository.contains('/')) {
        ("docker.io", false) => format!("library/{repository}"),
        _ => repository.to_owned(),
    };
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be in lower case");
    }
    if repository.len() > 255 || !repository.split('/').all(is_component) {
        return Err(
            "the repository must be of lower-case letters, digits and single separators, at most 255",
        );
    }
    Ok(Name {
        host: host.to_owned(),
        repository,
        tag: match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        },
        digest: digest.map(str::to_owned),
    })
}

fn is_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether it is a digest that can be verified.
pub fn is_digest(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
    match text.split_once(':') {
        Some(("sha256", digest)) => digest.len() == 64 && digest.bytes().all(hex),
        _ => false,
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Runs of letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators.filter(|s| !s.is_empty()).all(|separator| {
        matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn completes_as_docker_does() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (short, long) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("my-app:1.0", "docker.io/library/my-app:1.0"),
            ("grafana/loki", "docker.io/grafana/loki:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1"),
            ("quay.io/a/b__c-d.e", "quay.io/a/b__c-d.e:latest"),
            (
                &format!("nginx@{digest}"),
                &format!("docker.io/library/nginx@{digest}"),
            ),
            (&format!("a.b/c:d@{digest}"), &format!("a.b/c:d@{digest}")),
        ] {
            assert_eq!(Name::parse(short).unwrap().to_string(), long);
        }
    }

    #[test]
    fn refuses_in_words() {
        for bad in [
            "",
            "Nginx",
            "nginx:",
            "nginx:ä",
            "a//b",
            "-a",
            "a_",
            "a___b",
            "a..b",
            "nginx@sha256:12",
            "a/b/",
            "a b",
            "../../x",
            "a?b",
            "nginx@",
            "ho st.x/a",
        ] {
            let error = Name::parse(bad).unwrap_err();
            assert_eq!(
                (error.reason, error.retryable),
                ("InvalidImageName", false),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_complete_name_stays_as_it_is(text in "[a-z0-9./:_@-]{1,40}") {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(Name::parse(&name.to_string()).unwrap(), name);
            }
        }
    }
}
