//! What has to survive the agent's death and the removal of containers, on disk: a file per pod.

use std::{fs, io, path::PathBuf};

use barge_proto::v1::{ContainerStateTerminated, PodStatus};
use prost::Message;

use super::{
    backoff::CrashBackoff,
    memory::{ContainerMemory, Exit, Memory},
};
use crate::files;

/// The file of a pod.
#[derive(Debug, Clone)]
pub struct RecordFile {
    path: PathBuf,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<ContainerRecord>,
    #[prost(message, optional, tag = "2")]
    finished: Option<PodStatus>,
    #[prost(int64, tag = "3")]
    started_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    next_attempt: u32,
    #[prost(message, repeated, tag = "3")]
    exits: Vec<ExitRecord>,
    #[prost(int64, tag = "4")]
    delay_ms: i64,
    #[prost(int64, tag = "5")]
    restarted_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ExitRecord {
    #[prost(uint32, tag = "1")]
    attempt: u32,
    #[prost(message, optional, tag = "2")]
    terminated: Option<ContainerStateTerminated>,
}

impl RecordFile {
    /// The file at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What was recorded; nothing when there is no file. A file that cannot be read is worth a warning, not the pod.
    pub fn load(&self) -> Memory {
        let read = files::read_if_there(&self.path).and_then(|bytes| {
            bytes
                .map(|bytes| Record::decode(bytes.as_slice()).map_err(io::Error::other))
                .transpose()
        });
        match read {
            Ok(record) => record.map(Memory::from).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot read a pod's record; its restarts count from what runs");
                Memory::default()
            }
        }
    }

    /// Makes the record durable.
    pub fn save(&self, memory: &Memory) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        files::write_atomic(&self.path, &Record::from(memory).encode_to_vec())
    }

    /// Removes the record, and its folder when nothing else is in it.
    pub fn remove(&self) -> io::Result<()> {
        files::remove_if_there(&self.path)?;
        if let Some(folder) = self.path.parent() {
            match fs::remove_dir(folder) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl From<&Memory> for Record {
    fn from(memory: &Memory) -> Self {
        let exit = |exit: &Exit| ExitRecord {
            attempt: exit.attempt,
            terminated: Some(exit.terminated.clone()),
        };
        let containers = memory
            .containers
            .iter()
            .map(|(name, container)| ContainerRecord {
                name: name.clone(),
                next_attempt: container.next_attempt,
                exits: container.exits.iter().map(exit).collect(),
                delay_ms: container.crash.delay_ms,
                restarted_ms: container.crash.restarted_ms,
            });
        Self {
            containers: containers.collect(),
            finished: memory.finished.clone(),
            started_ms: memory.started_ms,
        }
    }
}

impl From<Record> for Memory {
    fn from(record: Record) -> Self {
        let exit = |exit: ExitRecord| Exit {
            attempt: exit.attempt,
            terminated: exit.terminated.unwrap_or_default(),
        };
        let containers = record.containers.into_iter().map(|container| {
            let memory = ContainerMemory {
                next_attempt: container.next_attempt,
                exits: container.exits.into_iter().map(exit).collect(),
                crash: CrashBackoff {
                    delay_ms: container.delay_ms,
                    restarted_ms: container.restarted_ms,
                },
                ..Default::default()
            };
            (container.name, memory)
        });
        Self {
            containers: containers.collect(),
            started_ms: record.started_ms,
            finished: record.finished,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_recorded_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::new(folder.path().join("uid/record"));
        assert!(file.load().containers.is_empty());
        let mut memory = Memory::default();
        memory.container("web").next_attempt = 3;
        memory.container("web").crash.delay_ms = 20_000;
        memory.container("web").exits = vec![Exit {
            attempt: 2,
            terminated: ContainerStateTerminated {
                exit_code: 7,
                ..Default::default()
            },
        }];
        memory.started_ms = 5;
        file.save(&memory).unwrap();
        let loaded = file.load();
        let web = &loaded.containers["web"];
        assert_eq!(web.next_attempt, 3);
        assert_eq!(web.crash.delay_ms, 20_000);
        assert_eq!(web.exits, memory.containers["web"].exits);
        assert_eq!(loaded.started_ms, 5);
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(!folder.path().join("uid").exists());
    }
}
