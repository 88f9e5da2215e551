//! Where the images of a host are: its mirrors and itself.

use crate::runtime::{
    keyring::Login,
    options::{ConfigurationError, Registry},
};

/// A place that has the images of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) plain_http: bool,
    pub(super) host: String,
    /// Before the repository: nothing, or a path and a slash.
    pub(super) prefix: String,
    /// As whom it is asked.
    pub(super) login: Option<Login>,
}

/// Where to ask for images of a host: its mirrors in order, then itself.
pub fn endpoints(host: &str, all: &[Registry]) -> Result<Vec<Endpoint>, ConfigurationError> {
    let Some(settings) = all.iter().find(|registry| registry.host == host) else {
        return Ok(vec![Endpoint::itself(host, &Registry::default())]);
    };
    let mirrors = settings.mirrors.iter().map(|url| {
        Endpoint::mirror(url, all).ok_or_else(|| ConfigurationError::Mirror {
            host: host.to_owned(),
            url: url.clone(),
        })
    });
    mirrors
        .chain([Ok(Endpoint::itself(host, settings))])
        .collect()
}

impl Endpoint {
    fn itself(host: &str, settings: &Registry) -> Self {
        Self {
            plain_http: settings.plain_http,
            host: host.to_owned(),
            prefix: String::new(),
            login: login(settings),
        }
    }

    /// A mirror is asked with the password of its own host's settings, never with that of the host it stands in for.
    fn mirror(url: &str, all: &[Registry]) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let plain_http = match scheme {
            "http" => true,
            "https" => false,
            _ => return None,
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || rest.contains(['?', '#', '@', ' ']) {
            return None;
        }
        let path = path.trim_matches('/');
        Some(Self {
            plain_http,
            host: host.to_owned(),
            prefix: if path.is_empty() {
                String::new()
            } else {
                format!("{path}/")
            },
            login: all
                .iter()
                .find(|registry| registry.host == host)
                .and_then(login),
        })
    }

    /// Where its requests go; Docker's registry is at another host than its images' names say.
    pub fn base(&self) -> String {
        let host = match self.host.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if self.plain_http { "http" } else { "https" };
        format!("{scheme}://{host}/v2")
    }

    /// Whom it shares permits with.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is asked without TLS.
    pub fn plain_http(&self) -> bool {
        self.plain_http
    }

    /// As whom it is asked.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// As people write it.
    pub fn url(&self) -> String {
        let scheme = if self.plain_http { "http" } else { "https" };
        format!("{scheme}://{}/{}", self.host, self.prefix)
            .trim_end_matches('/')
            .to_owned()
    }
}

/// The settings' own credentials.
fn login(settings: &Registry) -> Option<Login> {
    let (user, password) = settings.credentials.clone()?;
    Some(Login::Password(user, password))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mirrors_come_first() {
        let settings = [Registry {
            host: "docker.io".into(),
            mirrors: vec![
                "http://10.0.0.1:5000".into(),
                "https://m.example/cache/".into(),
            ],
            ..Registry::default()
        }];
        let urls = |host| -> Vec<_> {
            endpoints(host, &settings)
                .unwrap()
                .iter()
                .map(Endpoint::url)
                .collect()
        };
        assert_eq!(
            urls("docker.io"),
            [
                "http://10.0.0.1:5000",
                "https://m.example/cache",
                "https://docker.io"
            ]
        );
        assert_eq!(urls("quay.io"), ["https://quay.io"]);
    }

    #[test]
    fn a_password_is_for_its_own_host() {
        let credentials = |user: &str| Some((user.to_owned(), "secret".to_owned()));
        let settings = [
            Registry {
                host: "docker.io".into(),
                mirrors: vec!["http://10.0.0.1:5000".into(), "https://m.example".into()],
                credentials: credentials("me"),
                ..Registry::default()
            },
            Registry {
                host: "m.example".into(),
                credentials: credentials("you"),
                ..Registry::default()
            },
        ];
        let endpoints = endpoints("docker.io", &settings).unwrap();
        let users: Vec<_> = endpoints
            .iter()
            .map(|endpoint| endpoint.login().cloned())
            .collect();
        let login = |user: &str| Some(Login::Password(user.to_owned(), "secret".to_owned()));
        assert_eq!(users, [None, login("you"), login("me")]);
    }

    #[test]
    fn nonsense_is_no_mirror() {
        for url in [
            "",
            "10.0.0.1:5000",
            "ftp://x",
            "http://",
            "http://a b",
            "http://u:p@x",
        ] {
            let settings = [Registry {
                host: "docker.io".into(),
                mirrors: vec![url.into()],
                ..Registry::default()
            }];
            assert!(endpoints("docker.io", &settings).is_err(), "{url}");
        }
    }
}
