//! Containers' logs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use barge_proto::v1::{AttachOptions, LogOptions, TunnelChunk};
use bytes::{BufMut, BytesMut};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

mod position;

use self::position::Position;
use super::{
    places,
    running::{self, container_name},
};
use crate::{
    carrier::{
        cri,
        logs::{self, LogEntry, Place},
    },
    clock::to_ms,
    desired::Desired,
    files,
    runtime::{ContainerState, Runtime, RuntimeEvent, names::container_id},
};

/// For the log of a container that has just been started to be there, and between two looks.
const BEGIN: Duration = Duration::from_secs(1);
/// See [`BEGIN`].
const LOOK: Duration = Duration::from_millis(20);
/// How long the end of a followed log waits for the last output of a container that has ended, where that does not come: a process
/// of another container may hold on to it, or the disk hangs.
const SETTLE: Duration = Duration::from_secs(30);
/// Between two questions whether it has come, and between two lists of containers when one failed.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes put together in a chunk, at least one line.
const CHUNK: usize = 64 * 1024;
/// Lines put together in a chunk, when they are there already.
const LINES: usize = 128;

/// Serves logs. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    runtime: Arc<dyn Runtime>,
    desired: watch::Receiver<Arc<Desired>>,
}

impl Logs {
    /// Of these pods.
    pub fn new(runtime: Arc<dyn Runtime>, desired: watch::Receiver<Arc<Desired>>) -> Self {
        Self { runtime, desired }
    }

    /// Sends the lines of the newest attempt's log, or with `previous` of the last one that has ended. The error is a sentence.
    pub async fn copy(
        &self,
        options: &LogOptions,
        previous: bool,
        chunks: &mpsc::Sender<TunnelChunk>,
        place: Arc<places::Place>,
    ) -> Result<(), String> {
        let pod = running::pod(&self.desired.borrow(), &options.pod_uid)?;
        let container = container_name(&pod, &options.container)?;
        let after = match options.after.as_slice() {
            [] => None,
            bytes => {
                Some(Position::decode(bytes).ok_or("the position makes no sense to this node")?)
            }
        };
        let (path, attempt) = match after {
            Some(Position { attempt, .. }) => {
                let path = self.runtime.log_path(&options.pod_uid, &container, attempt);
                (path, attempt)
            }
            None if previous => {
                let found = self.ended_log(&options.pod_uid, &container).await;
                found.ok_or_else(|| {
                    format!("container \"{container}\" has not ended yet: it has no earlier output, or none that is kept")
                })?
            }
            None => self
                .begun_log(&options.pod_uid, &container)
                .await
                .ok_or_else(|| format!("container \"{container}\" has not been started yet"))?,
        };
        let read_options = logs::LogOptions {
            tail: options.tail,
            since: options
                .since
                .as_ref()
                .and_then(|time| Timestamp::from_millisecond(to_ms(time)).ok()),
            follow: options.follow,
            after: after.map(|after| after.place),
        };
        let mut writer = Writer::new(attempt, options.timestamps);
        if let Some(after) = after {
            writer.inside = after.inside;
        }
        let source = Source {
            pod_uid: &options.pod_uid,
            container: &container,
            attempt,
            path,
        };
        let sent = self.send(source, read_options, writer, chunks, place);
        sent.await.map(drop)
    }

    /// Sends what a running container writes from now on, until it ends. Answers its exit code; the error is a sentence.
    pub async fn attach(
        &self,
        options: &AttachOptions,
        chunks: &mpsc::Sender<TunnelChunk>,
        place: Arc<places::Place>,
    ) -> Result<i32, String> {
        let uid = &options.pod_uid;
        let pod = running::pod(&self.desired.borrow(), uid)?;
        let running = running::container(&*self.runtime, &pod, uid, &options.container).await?;
        // The carrier makes it while the container begins to run.
        self.begun_log(uid, &running.name).await;
        let source = Source {
            pod_uid: uid,
            container: &running.name,
            attempt: running.attempt,
            path: self.runtime.log_path(uid, &running.name, running.attempt),
        };
        let from_now_on = logs::LogOptions {
            tail: Some(0),
            follow: true,
            ..logs::LogOptions::default()
        };
        let writer = Writer::new(running.attempt, false);
        let sent = self.send(source, from_now_on, writer, chunks, place);
        let code = sent.await?;
        code.ok_or_else(|| {
            format!(
                "container {} of pod {} ended, and its exit code is not known",
                running.name,
                running::name_of(&pod)
            )
        })
    }

    /// Sends a log. One that is followed ends with its container: then this answers the exit code, if that is known.
    async fn send(
        &self,
        source: Source<'_>,
        options: logs::LogOptions,
        writer: Writer,
        chunks: &mpsc::Sender<TunnelChunk>,
        place: Arc<places::Place>,
    ) -> Result<Option<i32>, String> {
        let finished = CancellationToken::new();
        let follow = options.follow;
        let entries = logs::read_holding(source.path, options, finished.clone(), place);
        let copy = send_all(entries, writer, chunks);
        if !follow {
            return copy.await.map(|()| None);
        }
        let settled = self.until_settled(source.pod_uid, source.container, source.attempt);
        tokio::pin!(copy);
        let code = tokio::select! {
            result = &mut copy => return result.map(|()| None),
            code = settled => code,
        };
        finished.cancel();
        copy.await.map(|()| code)
    }

    /// As [`Self::newest_log`], but waits a moment for the first one: the carrier makes it while the container begins to run.
    async fn begun_log(&self, pod_uid: &str, container: &str) -> Option<(PathBuf, u32)> {
        let deadline = Instant::now() + BEGIN;
        loop {
            match self.newest_log(pod_uid, container).await {
                None if Instant::now() < deadline => sleep(LOOK).await,
                found => return found,
            }
        }
    }

    /// Where the newest attempt's log is, which may be of a container that was removed since.
    async fn newest_log(&self, pod_uid: &str, container: &str) -> Option<(PathBuf, u32)> {
        let newest = self.attempts(pod_uid, container).await.pop()?;
        Some((self.runtime.log_path(pod_uid, container, newest), newest))
    }

    /// Where the log of the last attempt is that has ended: of the newest one, unless that runs.
    async fn ended_log(&self, pod_uid: &str, container: &str) -> Option<(PathBuf, u32)> {
        let mut attempts = self.attempts(pod_uid, container).await;
        let inventory = self.runtime.list().await.ok()?;
        let runs = |attempt: &u32| {
            inventory.containers.iter().any(|it| {
                let same = it.pod_uid == pod_uid && it.name == container && it.attempt == *attempt;
                let running = matches!(
                    it.state,
                    ContainerState::Running { .. } | ContainerState::Created
                );
                same && running
            })
        };
        attempts.retain(|attempt| !runs(attempt));
        let ended = attempts.pop()?;
        Some((self.runtime.log_path(pod_uid, container, ended), ended))
    }

    /// The attempts whose logs are kept, in order.
    async fn attempts(&self, pod_uid: &str, container: &str) -> Vec<u32> {
        let mut attempts = Vec::new();
        let any = self.runtime.log_path(pod_uid, container, 0);
        let Some(folder) = any.parent() else {
            return attempts;
        };
        let folder = folder.to_owned();
        let names = files::reading(move || {
            let entries = std::fs::read_dir(folder)?;
            let names = entries.map(|entry| Ok(entry?.file_name()));
            names.collect::<std::io::Result<Vec<_>>>()
        });
        for name in names.await.unwrap_or_default() {
            let attempt = name.to_str().and_then(|name| name.strip_suffix(".log"));
            attempts.extend(attempt.and_then(|attempt| attempt.parse::<u32>().ok()));
        }
        attempts.sort_unstable();
        attempts
    }

    /// Returns once this attempt does not run (any more) and all that it wrote is in its log; after [`SETTLE`] in any case. Answers its exit code,
    /// if that is known.
    async fn until_settled(&self, pod_uid: &str, container: &str, attempt: u32) -> Option<i32> {
        // Removed, its pipes were emptied before.
        let ended = self.until_ended(pod_uid, container, attempt).await?;
        let code = match ended.state {
            ContainerState::Exited { code, .. } => i32::try_from(code).ok(),
            _ => None,
        };
        let deadline = Instant::now() + SETTLE;
        while let Err(error) = self.runtime.settle_log(&ended.id).await {
            if Instant::now() >= deadline {
                tracing::warn!(container = ended.id, %error, "a log that is followed may end too early");
                break;
            }
            sleep(PAUSE).await;
        }
        code
    }

    /// Returns once this attempt does not run (any more), or `None` when it was removed.
    async fn until_ended(
        &self,
        pod_uid: &str,
        container: &str,
        attempt: u32,
    ) -> Option<crate::runtime::Container> {
        let id = container_id(pod_uid, container, attempt);
        let mut events = self.runtime.events();
        loop {
            match events.next().await {
                // Of another one: each of those who follow would list the node's containers for each container that ends.
                Some(RuntimeEvent::Changed { id: changed }) if changed != id => continue,
                Some(RuntimeEvent::Resync | RuntimeEvent::Changed { .. }) => {}
                None => {
                    events = self.runtime.events();
                    continue;
                }
            }
            let inventory = loop {
                match self.runtime.list().await {
                    Ok(inventory) => break inventory,
                    // No other event may come.
                    Err(_) => sleep(PAUSE).await,
                }
            };
            let found = inventory
                .containers
                .into_iter()
                .find(|c| c.pod_uid == pod_uid && c.name == container && c.attempt == attempt)?;
            match found.state {
                ContainerState::Running { .. } | ContainerState::Created => {}
                ContainerState::Exited { .. } | ContainerState::Lost => return Some(found),
            }
        }
    }
}

/// Which log is sent.
struct Source<'a> {
    pod_uid: &'a str,
    container: &'a str,
    attempt: u32,
    path: PathBuf,
}

async fn send_all(
    entries: impl Stream<Item = std::io::Result<LogEntry>> + Unpin,
    mut writer: Writer,
    chunks: &mpsc::Sender<TunnelChunk>,
) -> Result<(), String> {
    let mut batches = entries.ready_chunks(LINES);
    while let Some(batch) = batches.next().await {
        for entry in batch {
            let entry = entry.map_err(|error| format!("cannot read the log: {error}"))?;
            if let Some(chunk) = writer.add(&entry)
                && chunks.send(chunk).await.is_err()
            {
                return Ok(());
            }
        }
        if let Some(chunk) = writer.flush()
            && chunks.send(chunk).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Puts lines of one channel together.
struct Writer {
    attempt: u32,
    timestamps: bool,
    channel: u32,
    buffer: BytesMut,
    /// By channel: the next piece goes on with a line.
    inside: [bool; 3],
    /// Behind what was added last.
    place: Option<Place>,
}

impl Writer {
    fn new(attempt: u32, timestamps: bool) -> Self {
        Self {
            attempt,
            place: None,
            timestamps,
            channel: 1,
            buffer: BytesMut::new(),
            inside: [false; 3],
        }
    }

    /// Adds an entry; a chunk when that had to make room for it.
    fn add(&mut self, entry: &LogEntry) -> Option<TunnelChunk> {
        let channel = match entry.channel {
            cri::Channel::Stdout => 1,
            cri::Channel::Stderr => 2,
        };
        let fits = self.buffer.len() + entry.bytes.len() <= CHUNK;
        let full = if channel == self.channel && fits {
            None
        } else {
            self.flush()
        };
        self.channel = channel;
        let inside = &mut self.inside[channel as usize];
        if self.timestamps && !*inside {
            self.buffer.put(format!("{:.9} ", entry.time).as_bytes());
        }
        *inside = !entry.bytes.ends_with(b"\n");
        self.buffer.put(entry.bytes.clone());
        self.place = Some(entry.end);
        full
    }

    fn flush(&mut self) -> Option<TunnelChunk> {
        (!self.buffer.is_empty()).then(|| TunnelChunk {
            data: self.buffer.split().to_vec(),
            channel: self.channel,
            position: self.position(),
            ..Default::default()
        })
    }

    fn position(&self) -> Vec<u8> {
        let position = self.place.map(|place| Position {
            attempt: self.attempt,
            place,
            inside: self.inside,
        });
        position.map_or_else(Vec::new, |position| position.encode())
    }
}

#[cfg(test)]
mod tests;
