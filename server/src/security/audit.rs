//! The audit log: one line of JSON for each change, with the caller, its address and the outcome.
//!
//! Requests hand their entries to a writer thread through a bounded queue, and never wait for the disk. Entries that cannot be
//! written are dropped and counted in the manager's log; the manager goes on.

use std::{
    borrow::Cow,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use serde::Serialize;

mod file;

use file::{Rotated, Rotation};

/// Entries on their way to the file; beyond, they are lost and counted.
const QUEUE: usize = 4096;
/// How long the first entry waits for others.
const GATHER: Duration = Duration::from_millis(1);
/// Objects that an entry names; beyond, they are counted.
const NAMED: usize = 100;
/// Of a refusal's message, in bytes.
const MESSAGE: usize = 512;

/// The caller and the RPC of mutations: the same for all requests of one message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asker {
    /// The caller: "admin/<uid>", "agent/<uid>", "manager/<uid>", "anyone".
    pub who: String,
    /// The name of the credential or node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The user whose the credential is, when it has not the credential's name: a service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The address that the request came from.
    pub from: String,
    /// apply, delete, create, …
    pub verb: String,
    /// The resource, "*" for the kinds of `objects`.
    pub resource: String,
    /// The RPC.
    pub rpc: String,
}

/// One entry. Its fields and the asker's are the documented format: they are added to, and never change.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it was answered.
    pub time: SystemTime,
    /// Who asked for what.
    pub asker: Arc<Asker>,
    /// What it concerns: "deployment.apps default/web".
    pub objects: Vec<String>,
    /// Objects beyond those named.
    pub more_objects: usize,
    /// "OK", or the gRPC code ("PERMISSION_DENIED").
    pub outcome: Cow<'static, str>,
    /// Why it was refused.
    pub message: String,
}

/// An entry as it is written.
#[derive(Serialize)]
struct Line<'a> {
    /// RFC 3339, UTC.
    time: String,
    #[serde(flatten)]
    asker: &'a Asker,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    objects: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    more_objects: usize,
    outcome: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

impl<'a> Line<'a> {
    fn of(entry: &'a Entry) -> Self {
        let time = jiff::Timestamp::try_from(entry.time);
        Self {
            time: time.map(|time| format!("{time:.3}")).unwrap_or_default(),
            asker: &entry.asker,
            objects: &entry.objects,
            more_objects: entry.more_objects,
            outcome: &entry.outcome,
            message: &entry.message,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference.
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Entry {
    /// The first part of a refusal's message.
    #[must_use]
    pub fn shortened(message: &str) -> String {
        let mut end = message.len().min(MESSAGE);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message[..end].to_owned()
    }
}

/// What a request turns out to concern, noted by its handler. Cheap to clone: all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Concerns(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    objects: Vec<String>,
    more: usize,
    only_asks: bool,
}

impl Concerns {
    /// Notes an object.
    pub fn note(&self, object: impl FnOnce() -> String) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.objects.len() < NAMED {
            true => noted.objects.push(object()),
            false => noted.more += 1,
        }
    }

    /// Notes that the request changes nothing (a dry run): it is not written down.
    pub fn only_asks(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .only_asks = true;
    }

    /// The objects that were noted, and how many more there are; absent when the request only asked.
    #[must_use]
    pub fn taken(&self) -> Option<(Vec<String>, usize)> {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (!noted.only_asks).then_some((noted.objects, noted.more))
    }
}

enum Message {
    Entry(Box<Entry>),
    /// Everything before it is in the file when the thread ends.
    Close,
}

/// The way to the audit log. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    queue: Option<SyncSender<Message>>,
    lost: Arc<AtomicU64>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl AuditLog {
    /// Writes to `audit.log` in `folder`.
    ///
    /// # Errors
    /// The thread cannot be started. A file that cannot be opened is reported, and tried again.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        Self::start(Rotated::new(folder, Rotation::default()))
    }

    fn start(file: Rotated) -> std::io::Result<Self> {
        let (queue, entries) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        let writer = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write(file, &entries, &counted))?;
        Ok(Self {
            queue: Some(queue),
            lost,
            writer: Arc::new(Mutex::new(Some(writer))),
        })
    }

    /// Writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self {
            queue: None,
            lost: Arc::default(),
            writer: Arc::default(),
        }
    }

    /// Hands over an entry; never waits.
    pub fn record(&self, entry: impl FnOnce() -> Entry) {
        let Some(queue) = &self.queue else {
            return;
        };
        if let Err(TrySendError::Full(_)) = queue.try_send(Message::Entry(Box::new(entry()))) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was recorded is in the file, and ends. Blocks.
    pub fn close(&self) {
        if let Some(queue) = &self.queue
            && queue.send(Message::Close).is_ok()
            && let Some(writer) = self
                .writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        {
            // A panic of the thread has been printed.
            let _ = writer.join();
        }
    }
}

/// Writes what comes, flushed whenever nothing more waits.
fn write(mut file: Rotated, entries: &Receiver<Message>, lost: &AtomicU64) {
    let mut failing = false;
    let mut missing = 0;
    while let Ok(first) = entries.recv() {
        // Time is the point: to wake this thread costs a request more than its entry does.
        std::thread::sleep(GATHER);
        let mut open = true;
        let mut batch = Vec::new();
        for message in std::iter::once(first).chain(entries.try_iter().take(QUEUE)) {
            match message {
                Message::Entry(entry) => batch.push(entry),
                Message::Close => open = false,
            }
        }
        let overflowed = lost.swap(0, Ordering::Relaxed);
        if overflowed > 0 {
            tracing::error!(
                lost = overflowed,
                "the audit log cannot keep up: entries were lost"
            );
        }
        match file.append(&lines(&batch)) {
            Ok(()) if failing => {
                tracing::info!(lost = missing, path = %file.path().display(), "the audit log is written again");
                (failing, missing) = (false, 0);
            }
            Ok(()) => {}
            Err(error) => {
                missing += batch.len();
                if !failing {
                    tracing::error!(%error, path = %file.path().display(), "the audit log cannot be written: entries are lost until it can");
                }
                failing = true;
            }
        }
        if !open {
            return;
        }
    }
}

fn lines(batch: &[Box<Entry>]) -> Vec<u8> {
    let mut lines = Vec::new();
    for entry in batch {
        // Strings and numbers always have a JSON form.
        if serde_json::to_writer(&mut lines, &Line::of(entry)).is_ok() {
            lines.push(b'\n');
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn entry(number: usize) -> Entry {
        Entry {
            time: SystemTime::UNIX_EPOCH,
            asker: Arc::new(Asker {
                who: "admin/a".to_owned(),
                name: Some("admin".to_owned()),
                user: None,
                from: "10.0.0.9:4000".to_owned(),
                verb: "apply".to_owned(),
                resource: "*".to_owned(),
                rpc: "/barge.v1.Api/Apply".to_owned(),
            }),
            objects: vec![format!("namespace n-{number}")],
            more_objects: 0,
            outcome: "OK".into(),
            message: String::new(),
        }
    }

    #[test]
    fn every_entry_is_a_line_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path()).unwrap();
        for number in 0..1000 {
            log.record(|| entry(number));
        }
        log.close();
        let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 1000);
        assert_eq!(lines[7]["objects"][0], "namespace n-7");
        assert_eq!(lines[7]["outcome"], "OK");
        assert!(lines[7].get("message").is_none());
        assert_eq!(lines[7]["who"], "admin/a");
        assert_eq!(lines[7]["time"], "1970-01-01T00:00:00.000Z");
        // A log that is closed takes no more, and harms nobody.
        log.record(|| entry(0));
        log.close();
    }

    #[test]
    fn a_log_that_cannot_be_written_goes_on_when_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("later");
        let log = AuditLog::open(&folder).unwrap();
        log.record(|| entry(1));
        // The first entry is lost when the folder is not there in time; none that follows is.
        std::fs::create_dir(&folder).unwrap();
        log.record(|| entry(2));
        log.close();
        let text = std::fs::read_to_string(folder.join("audit.log")).unwrap();
        assert!(text.contains("n-2"), "{text}");
    }

    #[test]
    fn objects_are_named_up_to_a_bound() {
        let concerns = Concerns::default();
        for number in 0..NAMED + 5 {
            concerns.note(|| number.to_string());
        }
        let (named, more) = concerns.taken().unwrap();
        assert_eq!((named.len(), more), (NAMED, 5));
        concerns.only_asks();
        assert_eq!(concerns.taken(), None);
        assert_eq!(Entry::shortened(&"é".repeat(400)).len(), MESSAGE);
    }
}
