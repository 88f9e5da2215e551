//! Asking a registry, or a mirror of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use oci_client::{
    Reference,
    client::{Client, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};

use super::{
    manifest::{self, Descriptor},
    name::Name,
};
use crate::runtime::options::{ConfigurationError, Registry};

/// For a connection to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte from a registry.
const SILENCE: Duration = Duration::from_secs(60);

/// A place that has the images of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    plain_http: bool,
    host: String,
    prefix: String,
    credentials: Option<(String, String)>,
}

/// Where to ask for images of a host: its mirrors in order, then itself.
pub fn endpoints(host: &str, settings: &[Registry]) -> Result<Vec<Endpoint>, ConfigurationError> {
    let Some(settings) = settings.iter().find(|registry| registry.host == host) else {
        return Ok(vec![Endpoint::itself(host, &Registry::default())]);
    };
    let mirrors = settings.mirrors.iter().map(|url| {
        Endpoint::mirror(url, settings).ok_or_else(|| ConfigurationError::Mirror {
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
            credentials: settings.credentials.clone(),
        }
    }

    fn mirror(url: &str, settings: &Registry) -> Option<Self> {
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
            credentials: settings.credentials.clone(),
        })
    }

    /// As people write it.
    pub fn url(&self) -> String {
        let scheme = if self.plain_http { "http" } else { "https" };
        format!("{scheme}://{}/{}", self.host, self.prefix)
            .trim_end_matches('/')
            .to_owned()
    }
}

/// Why a registry did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// It has no such image.
    #[error("{0} has no such image")]
    NotFound(String),
    /// It wants to know who asks, or does not like who asks.
    #[error(
        "{0} demands credentials or refuses those it got; set username and password of the registry in the agent's configuration"
    )]
    Unauthorized(String),
    /// It could not be reached.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// It sent something else than it was asked for.
    #[error("{0} sent data with another digest than it was asked for: {1}")]
    Digest(String, String),
    /// It has an image, but not for this kind of machine.
    #[error("{0} has the image, but not for linux/{arch}", arch = manifest::architecture())]
    Platform(String),
    /// This machine trusts nobody.
    #[error(
        "{0} cannot be asked: this machine has no root certificates; install them (Debian: ca-certificates)"
    )]
    NoRoots(String),
    /// It answered something unexpected.
    #[error("{0} answered: {1}")]
    Other(String, String),
}

/// A conversation with one endpoint about one repository.
#[derive(Clone)]
pub struct Session {
    endpoint: Endpoint,
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
}

impl Session {
    /// Prepares to ask an endpoint; nothing is sent yet.
    pub fn new(endpoint: &Endpoint, name: &Name) -> Result<Self, FetchError> {
        // The HTTP client takes its cryptography from the process; that it has been chosen already is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig {
            protocol: match endpoint.plain_http {
                true => ClientProtocol::Http,
                false => ClientProtocol::Https,
            },
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("barge-agent/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| classify(&endpoint.url(), &error))?;
        let repository = format!("{}{}", endpoint.prefix, name.repository);
        let reference = match &name.digest {
            Some(digest) => {
                Reference::with_digest(endpoint.host.clone(), repository, digest.clone())
            }
            None => Reference::with_tag(
                endpoint.host.clone(),
                repository,
                name.reference().to_owned(),
            ),
        };
        let auth = match &endpoint.credentials {
            Some((user, password)) => RegistryAuth::Basic(user.clone(), password.clone()),
            None => RegistryAuth::Anonymous,
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            client,
            reference,
            auth,
        })
    }

    /// Who is asked, for messages.
    pub fn url(&self) -> String {
        self.endpoint.url()
    }

    /// The document of the name asked for, or of a digest below it, and its digest.
    pub async fn document(&self, digest: Option<&str>) -> Result<(Bytes, String), FetchError> {
        let reference = match digest {
            Some(digest) => self.reference.clone_with_digest(digest.to_owned()),
            None => self.reference.clone(),
        };
        let answer = self
            .client
            .pull_manifest_raw(&reference, &self.auth, &manifest::ACCEPTED)
            .await;
        let (bytes, _) = answer.map_err(|error| classify(&self.url(), &error))?;
        // Ours, not theirs: it becomes the name under which the bytes are stored.
        let actual = manifest::sha256(&bytes);
        match reference.digest() {
            Some(wanted) if wanted != actual => Err(FetchError::Digest(
                self.url(),
                format!("{actual} instead of {wanted}"),
            )),
            _ => Ok((bytes, actual)),
        }
    }

    /// The bytes of a blob, as they arrive; the last item is an error when their digest is wrong.
    pub async fn blob(
        &self,
        blob: &Descriptor,
    ) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
        let descriptor = OciDescriptor {
            digest: blob.digest.clone(),
            ..OciDescriptor::default()
        };
        let url: Arc<str> = self.url().into();
        let stream = self
            .client
            .pull_blob_stream(&self.reference, &descriptor)
            .await;
        let stream = stream.map_err(|error| classify(&url, &error))?;
        Ok(stream
            .map(move |chunk| chunk.map_err(|error| broken(&url, &error)))
            .boxed())
    }
}

/// What went wrong in the middle of a blob.
fn broken(url: &str, error: &std::io::Error) -> FetchError {
    let text = chain(error);
    if text.contains("Invalid digest") {
        return FetchError::Digest(url.to_owned(), text);
    }
    FetchError::Unreachable(url.to_owned(), text)
}

fn classify(url: &str, error: &OciDistributionError) -> FetchError {
    let url = url.to_owned();
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => FetchError::NotFound(url),
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_) => FetchError::Unauthorized(url),
        OciDistributionError::RegistryError { envelope, .. } => {
            let has =
                |codes: &[OciErrorCode]| envelope.errors.iter().any(|e| codes.contains(&e.code));
            use OciErrorCode::{
                BlobUnknown, Denied, ManifestUnknown, NameUnknown, NotFound, Unauthorized,
            };
            if has(&[ManifestUnknown, NameUnknown, NotFound, BlobUnknown]) {
                FetchError::NotFound(url)
            } else if has(&[Unauthorized, Denied]) {
                FetchError::Unauthorized(url)
            } else {
                FetchError::Other(url, envelope.to_string())
            }
        }
        OciDistributionError::ServerError { code: 404, .. } => FetchError::NotFound(url),
        OciDistributionError::ServerError {
            code: 401 | 403, ..
        } => FetchError::Unauthorized(url),
        OciDistributionError::ServerError { code, message, .. } => {
            FetchError::Other(url, format!("{code} {}", message.trim()))
        }
        OciDistributionError::RequestError(error) => match chain(error) {
            // Said while the client is built, before anything is sent.
            why if error.is_builder() && why.contains("No CA certificates") => {
                FetchError::NoRoots(url)
            }
            why => FetchError::Unreachable(url, why),
        },
        OciDistributionError::DigestError(error) => FetchError::Digest(url, error.to_string()),
        other => FetchError::Other(url, other.to_string()),
    }
}

/// An error and its causes; the last one is what helps ("Connection refused").
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
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
