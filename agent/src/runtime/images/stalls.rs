//! A containerd that takes calls and never answers.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::HashMap, convert::Infallible, path::Path, time::Duration};

use bytes::Bytes;
use containerd_client::tonic::{Code, Status};
use futures::stream;
use tokio::{net::UnixListener, time::timeout};

use super::{
    lease::Lease,
    manifest::Descriptor,
    store::{self, WriteError},
    unpack,
};
use crate::runtime::client::Client;

/// Somebody who connects and waits. The sockets stay open while it lives.
struct Mute(tokio::task::JoinHandle<()>);

impl Mute {
    fn listen(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        Self(tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        }))
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The clock runs ahead whenever all wait.
#[tokio::test(start_paused = true)]
async fn no_call_waits_for_ever() {
    /// More than any of them may take.
    const LONG: Duration = Duration::from_secs(24 * 3600);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("c.sock");
    let _mute = Mute::listen(&socket);
    let client = Client::new(&socket, "test", LONG).unwrap();
    let ended = |what: &str, result: Result<Result<(), Status>, _>| {
        let result: Result<(), Status> =
            result.unwrap_or_else(|_: tokio::time::error::Elapsed| panic!("{what} has no end"));
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{what}: {status}");
    };
    let take = async { Lease::take(&client).await.map(drop) };
    ended("a lease", timeout(LONG, take).await);
    let lease = Lease::named("l").unwrap();
    let keep = lease.keep(&client, "content", "sha256:0");
    ended("keeping", timeout(LONG, keep).await);
    let blob = Descriptor {
        media_type: "m".into(),
        digest: "sha256:0".into(),
        size: 1,
        platform: None,
    };
    let write = async {
        let body = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
        let written = store::write(&client, &lease, &blob, HashMap::new(), body).await;
        written.map_err(|error| match error {
            WriteError::Store(status) => status,
            WriteError::Source(never) => match never {},
        })
    };
    ended("writing", timeout(LONG, write).await);
    let read = async { store::read(&client, "sha256:0").await.map(drop) };
    ended("reading", timeout(LONG, read).await);
    let stat = async { unpack::exists(&client, "overlayfs", "s").await.map(drop) };
    ended("a look", timeout(LONG, stat).await);
    let unpacker = unpack::Unpacker {
        client: &client,
        snapshotter: "overlayfs",
        lease: &lease,
    };
    let layer = unpack::Layer {
        blob: &blob,
        diff_id: "sha256:0",
        below: "",
        chain_id: "sha256:0",
    };
    ended("unpacking", timeout(LONG, unpacker.unpack(&layer)).await);
}
