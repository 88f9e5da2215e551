//! The HTTP clients of all conversations with registries.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{
    Certificate, Client, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION},
    redirect::Policy,
};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::registry::{FetchError, chain};
use crate::runtime::options::Registry;

/// For a connection to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// For how long an HTTP client is used for new requests.
const CLIENT_AGE: Duration = Duration::from_secs(60);
/// For the machine's root certificates to be read.
const READING: Duration = Duration::from_secs(10);
/// Redirections followed for one request.
const REDIRECTIONS: usize = 5;

/// Sends requests. Keeps a client, with its connections, for each host that has certificates of its own, and one for all others: each is made when it is
/// needed, and anew after a minute, because it knows the root certificates that the machine had then. While these cannot be read the old one stays. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Http {
    /// Certificates that are trusted besides the machine's, by host and port.
    trusted: Arc<BTreeMap<String, Vec<Certificate>>>,
    /// Of the hosts that are in `trusted`, and one for all others.
    clients: Arc<Mutex<Clients>>,
    /// One client is made at a time: a disk that hangs takes one thread.
    reading: Arc<Semaphore>,
}

impl Default for Http {
    fn default() -> Self {
        Self::new(&[])
    }
}

/// By host and port, with the time when each was made.
type Clients = HashMap<Option<String>, (Instant, Client)>;

/// Why no answer came.
#[derive(Debug)]
pub enum HttpError {
    /// This machine trusts nobody.
    NoRoots,
    /// In words.
    Other(String),
}

impl HttpError {
    /// As an error of the registry that was asked.
    pub fn at(self, url: String) -> FetchError {
        match self {
            Self::NoRoots => FetchError::NoRoots(url),
            Self::Other(why) => FetchError::Unreachable(url, why),
        }
    }
}

impl Http {
    /// Trusts the certificates of registries' settings, each for its host alone.
    pub fn new(settings: &[Registry]) -> Self {
        let own = settings.iter().filter(|it| !it.ca.is_empty());
        let trusted = own.filter_map(|it| {
            let host = match it.host.as_str() {
                "docker.io" => "registry-1.docker.io",
                host => host,
            };
            let url = Url::parse(&format!("https://{host}")).ok()?;
            Some((authority(&url), it.ca.clone()))
        });
        Self {
            trusted: Arc::new(trusted.collect()),
            clients: Arc::default(),
            reading: Arc::new(Semaphore::new(1)),
        }
    }

    /// Makes the client for a place, if there is none: that takes time, which is not the registry's.
    pub async fn prepare(&self, url: &Url) -> Result<(), HttpError> {
        self.client(url).await.map(drop)
    }

    /// Asks for something. Redirections are followed, but not to a place without TLS from one with it. `authorization` is sent to the first place only.
    pub async fn get(
        &self,
        url: &Url,
        accept: Option<&str>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, HttpError> {
        let mut next = url.clone();
        for _ in 0..=REDIRECTIONS {
            let mut request = self.client(&next).await?.get(next.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(header) = authorization.filter(|_| same_place(url, &next)) {
                request = request.header(AUTHORIZATION, header);
            }
            let answer = request.send().await.map_err(failed)?;
            let Some(target) = redirection(&answer) else {
                return Ok(answer);
            };
            let target = next.join(&target).ok();
            let target = target.filter(|it| matches!(it.scheme(), "http" | "https"));
            let target =
                target.ok_or_else(|| HttpError::Other("redirected to no place".to_owned()))?;
            if next.scheme() == "https" && target.scheme() != "https" {
                let why = "redirected to a place without TLS";
                return Err(HttpError::Other(why.to_owned()));
            }
            next = target;
        }
        Err(HttpError::Other("too many redirections".to_owned()))
    }

    /// Sends a form. Redirections are not followed: what is in it is for nobody else.
    pub async fn post(&self, url: &Url, form: String) -> Result<Response, HttpError> {
        let request = self.client(url).await?.post(url.clone());
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.body(form).send().await.map_err(failed)
    }

    async fn client(&self, url: &Url) -> Result<Client, HttpError> {
        let authority = authority(url);
        let own = self.trusted.get(&authority).cloned();
        let key = own.as_ref().map(|_| authority);
        if let Some(client) = self.fresh(&key) {
            return Ok(client);
        }
        let built = timeout(READING, self.built(&key, own.unwrap_or_default())).await;
        let old = self.clients().get(&key).map(|(_, client)| client.clone());
        let client = match (built, old) {
            (Ok(Ok(client)), _) => client,
            // It knows the certificates of a minute ago.
            (_, Some(old)) => old,
            (Ok(Err(error)), None) => return Err(error),
            (Err(_), None) => {
                let why = "this machine's root certificates cannot be read within 10 s: the disk that they are on does not answer";
                return Err(HttpError::Other(why.to_owned()));
            }
        };
        let made = (Instant::now(), client.clone());
        self.clients().insert(key, made);
        Ok(client)
    }

    /// The client, unless there is none or it is too old.
    fn fresh(&self, key: &Option<String>) -> Option<Client> {
        let clients = self.clients();
        let (made, client) = clients.get(key)?;
        (made.elapsed() < CLIENT_AGE).then(|| client.clone())
    }

    /// A new client, or the one that another caller made meanwhile.
    async fn built(
        &self,
        key: &Option<String>,
        own: Vec<Certificate>,
    ) -> Result<Client, HttpError> {
        let failed = |error: &dyn std::fmt::Display| HttpError::Other(error.to_string());
        let turn = self.reading.clone().acquire_owned().await;
        let turn = turn.map_err(|error| failed(&error))?;
        if let Some(client) = self.fresh(key) {
            return Ok(client);
        }
        let built = spawn_blocking(move || {
            // Until it is done, not until nobody waits for it.
            let _turn = turn;
            build(own)
        });
        built.await.map_err(|error| failed(&error))?
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a client. Reads the machine's root certificates from disk. Blocks.
fn build(own: Vec<Certificate>) -> Result<Client, HttpError> {
    // The HTTP client takes its cryptography from the process; that it has been chosen already is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built = Client::builder()
        .connect_timeout(CONNECT)
        .redirect(Policy::none())
        .pool_max_idle_per_host(2)
        .tls_certs_merge(own)
        .user_agent(concat!("barge-agent/", env!("CARGO_PKG_VERSION")))
        .build();
    built.map_err(|error| match chain(&error) {
        why if why.contains("No CA certificates") => HttpError::NoRoots,
        why => HttpError::Other(why),
    })
}

/// Whether two URLs are of one server, so that what is for one may be told to the other.
pub fn same_place(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && authority(one) == authority(other)
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{host}:{port}")
}

fn redirection(answer: &Response) -> Option<String> {
    let followed = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !followed.contains(&answer.status()) {
        return None;
    }
    let target = answer.headers().get(LOCATION)?.to_str().ok()?;
    Some(target.to_owned())
}

fn failed(error: reqwest::Error) -> HttpError {
    HttpError::Other(chain(&error.without_url()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn certificates_that_cannot_be_read_hold_up_no_client_that_is_there() {
        let url = Url::parse("https://registry.example").unwrap();
        let http = Http::default();
        // Whoever reads them now does not come back.
        let reads = http.reading.clone().acquire_owned().await.unwrap();
        let begin = tokio::time::Instant::now();
        let none = http.prepare(&url).await.unwrap_err();
        assert!(matches!(none, HttpError::Other(why) if why.contains("certificates")));
        assert!(begin.elapsed() >= READING);
        drop(reads);
        http.prepare(&url).await.unwrap();
        let reads = http.reading.clone().acquire_owned().await.unwrap();
        let old = Instant::now().checked_sub(CLIENT_AGE).unwrap();
        http.clients().get_mut(&None).unwrap().0 = old;
        http.prepare(&url).await.unwrap();
        // Not every request waits, either.
        let begin = tokio::time::Instant::now();
        http.prepare(&url).await.unwrap();
        assert_eq!(begin.elapsed(), Duration::ZERO);
        drop(reads);
    }
}
