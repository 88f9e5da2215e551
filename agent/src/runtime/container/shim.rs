//! Speaking to a pod's shim directly, about containers that containerd has forgotten.
//!
//! When the client of a creation dies, containerd cancels it, and may lose a shim whose container comes to be a moment
//! later: no task is listed, but a process waits to be started, and the id is unusable. Only the shim can undo that.
//! Its protocol is ttrpc: a header of ten bytes, then a protobuf message.

use std::{
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use prost::Message;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

/// Where all shims have their sockets, whatever containerd they belong to.
const SOCKETS: &str = "/run/containerd/s";
/// The service of version 2 shims.
const SERVICE: &str = "containerd.task.v2.Task";
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
/// containerd's own bound on messages.
const LARGEST: u32 = 4 * 1024 * 1024;
/// Shims answer at once, but for the time that runc takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// gRPC's code for what is not there.
const NOT_FOUND: i32 = 5;

/// A connection to a shim.
pub struct Shim {
    stream: UnixStream,
    namespace: String,
    last: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    metadata: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Failure>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// What kill takes; the others take its beginning.
#[derive(Clone, PartialEq, Message)]
struct About {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint32, tag = "3")]
    signal: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Identity {
    #[prost(uint32, tag = "1")]
    shim_pid: u32,
}

/// Where the shim of a pod listens: by the name of its group, below that of its containerd.
fn socket(containerd: &Path, namespace: &str, pod_uid: &str) -> PathBuf {
    let name = containerd.join(namespace).join(pod_uid);
    let digest = Sha256::digest(name.as_os_str().as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(SOCKETS).join(hex)
}

impl Shim {
    /// Connects to the shim of a pod; `None` when there is none.
    pub async fn connect(
        containerd: &Path,
        namespace: &str,
        pod_uid: &str,
    ) -> io::Result<Option<Self>> {
        match UnixStream::connect(socket(containerd, namespace, pod_uid)).await {
            Ok(stream) => Ok(Some(Self {
                stream,
                namespace: namespace.to_owned(),
                last: 0,
            })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// The folder in which its containers' bundles lie, by container id.
    pub async fn bundles(&mut self, id: &str) -> io::Result<PathBuf> {
        let answer = self.call("Connect", id, 0).await?;
        let identity =
            Identity::decode(answer.unwrap_or_default().as_slice()).map_err(io::Error::other)?;
        // It was started in the bundle of its first container.
        let first = std::fs::read_link(format!("/proc/{}/cwd", identity.shim_pid))?;
        // The kernel marks a folder that is gone; its place among the others is the same.
        let parent = first.parent().map(Path::to_owned);
        parent.ok_or_else(|| io::Error::other("the shim runs in no folder"))
    }

    /// Kills and removes a container; answers whether there was one.
    pub async fn remove(&mut self, id: &str) -> io::Result<bool> {
        const SIGKILL: u32 = 9;
        // Fails for what has ended, and for what runc does not know any more.
        let _ = self.call("Kill", id, SIGKILL).await;
        Ok(self.call("Delete", id, 0).await?.is_some())
    }

    /// Asks it to end, which it does once it has no containers.
    pub async fn shut_down(&mut self, id: &str) -> io::Result<()> {
        self.call("Shutdown", id, 0).await.map(drop)
    }

    /// `None` when there is no such container.
    async fn call(&mut self, method: &str, id: &str, signal: u32) -> io::Result<Option<Vec<u8>>> {
        let about = About {
            id: id.to_owned(),
            signal,
        };
        let answered = timeout(PATIENCE, self.exchange(method, &about)).await;
        let response = answered.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match response.status {
            Some(status) if status.code == NOT_FOUND => Ok(None),
            Some(status) if status.code != 0 => Err(io::Error::other(format!(
                "the shim cannot {method} {id}: {}",
                status.message
            ))),
            _ => Ok(Some(response.payload)),
        }
    }

    async fn exchange(&mut self, method: &str, about: &About) -> io::Result<Response> {
        let request = Request {
            service: SERVICE.to_owned(),
            method: method.to_owned(),
            payload: about.encode_to_vec(),
            metadata: vec![Pair {
                key: "containerd-namespace-ttrpc".to_owned(),
                value: self.namespace.clone(),
            }],
        };
        let body = request.encode_to_vec();
        // Clients use odd numbers.
        let stream = self.last + 1;
        self.last += 2;
        let mut frame = u32::try_from(body.len())
            .map_err(io::Error::other)?
            .to_be_bytes()
            .to_vec();
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&[REQUEST, 0]);
        frame.extend_from_slice(&body);
        self.stream.write_all(&frame).await?;

        let length = self.stream.read_u32().await?;
        let answered = self.stream.read_u32().await?;
        let kind = self.stream.read_u16().await?.to_be_bytes()[0];
        if length > LARGEST || answered != stream || kind != RESPONSE {
            return Err(io::Error::other(
                "the shim does not speak ttrpc as we know it",
            ));
        }
        let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.stream.read_exact(&mut body).await?;
        Response::decode(body.as_slice()).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_socket_is_where_containerd_1_6_made_it() {
        let path = socket(Path::new("/run/containerd/containerd.sock"), "barge", "u");
        let digest = Sha256::digest(b"/run/containerd/containerd.sock/barge/u");
        assert!(
            path.to_str()
                .unwrap()
                .ends_with(&format!("{:02x}", digest[31]))
        );
        assert_eq!(path.file_name().unwrap().len(), 64);
    }

    #[tokio::test]
    async fn no_shim_is_no_error() {
        let found = Shim::connect(Path::new("/none"), "barge", "no-such-pod")
            .await
            .unwrap();
        assert!(found.is_none());
    }
}
