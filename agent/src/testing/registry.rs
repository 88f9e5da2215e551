//! A registry that fails, stalls, truncates and lies on request. It needs nothing of the agent, so that integration tests
//! can include it as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the registry does instead of answering as it should.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status and a body of a few words.
    Status(u16),
    /// Headers, and then nothing.
    Stall,
    /// One byte each time.
    Trickle(Duration),
    /// As many bytes as this, and the connection's end.
    Truncate(usize),
    /// As many bytes as this, whatever it should be, without saying how many.
    Oversized(usize),
    /// The right number of bytes, the last one wrong.
    Corrupt,
    /// Look there.
    Redirect(String),
}

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    /// The value of the Authorization header.
    pub authorization: Option<String>,
    pub body: String,
}

#[derive(Default)]
struct State {
    /// By the path's end, as in "manifests/app:1" and "blobs/sha256:…".
    content: Mutex<HashMap<String, (String, Bytes)>>,
    /// By a part of the path; the first that fits counts.
    faults: Mutex<Vec<(String, Fault)>>,
    seen: Mutex<Vec<Seen>>,
    /// The value of the Authorization header that is asked for, and the challenge.
    guard: Mutex<Option<(String, String)>>,
    sent: AtomicU64,
    open: AtomicUsize,
}

/// A registry on a port of its own. It ends with its handle.
pub struct Registry {
    pub address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Registry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    state.open.fetch_add(1, Ordering::SeqCst);
                    // The other side may go at any time.
                    let _ = converse(&state, stream).await;
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            state,
            serving,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds a blob; answers its digest.
    pub fn blob(&self, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        let octets = "application/octet-stream".to_owned();
        let path = format!("blobs/{digest}");
        lock(&self.state.content).insert(path, (octets, bytes));
        digest
    }

    /// Holds a document under its digest; answers its descriptor.
    pub fn document(&self, document: &Value) -> Value {
        let bytes = Bytes::from(serde_json::to_vec(document).unwrap());
        let digest = digest(&bytes);
        let media_type = document["mediaType"].as_str().unwrap_or_default();
        let descriptor =
            serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        let path = format!("manifests/{digest}");
        lock(&self.state.content).insert(path, (media_type.to_owned(), bytes));
        descriptor
    }

    /// Gives this token to all who ask for one at "/token".
    pub fn token(&self, token: &str) {
        let body = Bytes::from(format!("{{\"token\":\"{token}\"}}"));
        let json = "application/json".to_owned();
        lock(&self.state.content).insert("token".to_owned(), (json, body));
    }

    /// Names a document that it holds.
    pub fn tag(&self, tag: &str, descriptor: &Value) {
        let mut content = lock(&self.state.content);
        let path = format!("manifests/{}", descriptor["digest"].as_str().unwrap());
        let held = content[&path].clone();
        content.insert(format!("manifests/{tag}"), held);
    }

    /// Behaves so where a part of the path is this.
    pub fn fault(&self, part: &str, fault: Fault) {
        lock(&self.state.faults).push((part.to_owned(), fault));
    }

    /// Behaves again.
    pub fn heal(&self) {
        lock(&self.state.faults).clear();
    }

    /// Answers only who sends this Authorization header, and challenges all others.
    pub fn guard(&self, authorization: &str, challenge: &str) {
        *lock(&self.state.guard) = Some((authorization.to_owned(), challenge.to_owned()));
    }

    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// Bytes of bodies sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn converse(state: &State, stream: TcpStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(request) = lines.next_line().await? {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut authorization, mut length) = (None, 0);
        while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                    authorization = Some(value.trim().to_owned());
                }
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap_or(0);
                }
                _ => {}
            }
        }
        let mut body = vec![0; length];
        lines.get_mut().read_exact(&mut body).await?;
        lock(&state.seen).push(Seen {
            path: path.clone(),
            authorization: authorization.clone(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let guard = lock(&state.guard).clone();
        if let Some((wanted, challenge)) = guard
            && authorization.as_deref() != Some(&wanted)
            && path.starts_with("/v2/")
        {
            let head = format!("WWW-Authenticate: {challenge}\r\n");
            answer(state, &mut write, 401, &head, b"{}").await?;
            continue;
        }
        let faults = lock(&state.faults).clone();
        let fault = faults.into_iter().find(|(part, _)| path.contains(part));
        // What goes wrong can be seen while it does: the client's end of a stalled answer ends it.
        let serve = serve(state, &mut write, &path, fault.map(|(_, fault)| fault));
        tokio::select! {
            served = serve => served?,
            _ = lines.next_line() => return Ok(()),
        }
    }
    Ok(())
}

async fn serve(
    state: &State,
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    path: &str,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let held = find(state, path);
    let ended = || std::io::Error::other("ended on purpose");
    let Some((media_type, body)) = held else {
        return match fault {
            Some(Fault::Status(code)) => answer(state, write, code, "", b"on purpose").await,
            _ => answer(state, write, 404, "", b"{\"errors\":[]}").await,
        };
    };
    let head = format!("Content-Type: {media_type}\r\n");
    match fault {
        None => answer(state, write, 200, &head, &body).await,
        Some(Fault::Status(code)) => answer(state, write, code, "", b"on purpose").await,
        Some(Fault::Redirect(url)) => {
            let head = format!("Location: {url}{path}\r\n");
            answer(state, write, 307, &head, b"").await
        }
        Some(Fault::Corrupt) => {
            let mut wrong = body.to_vec();
            let last = wrong.len() - 1;
            wrong[last] ^= 1;
            answer(state, write, 200, &head, &wrong).await
        }
        Some(Fault::Stall) => {
            begin(write, &head, Some(body.len())).await?;
            std::future::pending().await
        }
        Some(Fault::Trickle(pause)) => {
            begin(write, &head, Some(body.len())).await?;
            for byte in body {
                send(state, write, &[byte]).await?;
                tokio::time::sleep(pause).await;
            }
            Ok(())
        }
        Some(Fault::Truncate(length)) => {
            begin(write, &head, Some(body.len())).await?;
            send(state, write, &body[..length.min(body.len())]).await?;
            Err(ended())
        }
        Some(Fault::Oversized(length)) => {
            begin(write, &head, None).await?;
            let blanks = vec![b' '; 16 * 1024];
            for _ in 0..length / blanks.len() {
                send(state, write, &blanks).await?;
            }
            Err(ended())
        }
    }
}

fn find(state: &State, path: &str) -> Option<(String, Bytes)> {
    let content = lock(&state.content);
    if path.starts_with("/token") {
        return content.get("token").cloned();
    }
    let (rest, name) = path.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    if name.starts_with("sha256:") {
        return content.get(&format!("{kind}/{name}")).cloned();
    }
    let (_, repository) = repository.rsplit_once('/')?;
    let tagged = format!("{kind}/{repository}:{name}");
    content.get(&tagged).cloned()
}

async fn answer(
    state: &State,
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    code: u16,
    head: &str,
    body: &[u8],
) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {code} On-Purpose\r\n{head}Content-Length: {length}\r\n\r\n");
    write.write_all(head.as_bytes()).await?;
    send(state, write, body).await
}

async fn begin(
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    head: &str,
    length: Option<usize>,
) -> std::io::Result<()> {
    let length = length.map_or("Connection: close\r\n".to_owned(), |length| {
        format!("Content-Length: {length}\r\n")
    });
    let head = format!("HTTP/1.1 200 OK\r\n{head}{length}\r\n");
    write.write_all(head.as_bytes()).await
}

async fn send(
    state: &State,
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    bytes: &[u8],
) -> std::io::Result<()> {
    write.write_all(bytes).await?;
    state.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    Ok(())
}

pub fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
