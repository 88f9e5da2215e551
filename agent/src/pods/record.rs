//! What has to survive the agent's death and the removal of containers, on disk: a file per pod.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use barge_proto::v1::{ContainerStateTerminated, PodStatus};
use prost::Message;

use super::{
    backoff::CrashBackoff,
    memory::{ContainerMemory, Exit, Memory},
};
use crate::files::{self, Reserve};

/// The file of a pod.
#[derive(Debug, Clone)]
pub struct RecordFile {
    path: PathBuf,
    reserve: Reserve,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<ContainerRecord>,
    #[prost(message, optional, tag = "2")]
    finished: Option<PodStatus>,
    #[prost(int64, tag = "3")]
    started_ms: i64,
    #[prost(string, tag = "4")]
    evicted: String,
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
    /// The file of the pod with this uid.
    pub fn new(data_dir: &Path, uid: &str) -> Self {
        Self {
            path: data_dir.join("pods").join(uid).join("record"),
            reserve: Reserve::of(data_dir),
        }
    }

    /// What was recorded; nothing when there is no file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn load(&self) -> io::Result<Memory> {
        let path = self.path.clone();
        let bytes = files::reading(move || files::read_if_there(&path)).await?;
        let record = bytes.map(|bytes| Record::decode(bytes.as_slice()));
        let record = record.transpose().map_err(io::Error::other)?;
        Ok(record.map(Memory::from).unwrap_or_default())
    }

    /// Makes the record durable.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn save(&self, memory: &Memory) -> io::Result<()> {
        let (path, reserve) = (self.path.clone(), self.reserve.clone());
        let bytes = Record::from(memory).encode_to_vec();
        files::blocking(move || {
            if let Some(folder) = path.parent() {
                reserve.with(|| fs::create_dir_all(folder))?;
            }
            reserve.write_atomic(&path, &bytes)
        })
        .await
    }

    /// Removes the record, and its folder when nothing else is in it.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn remove(&self) -> io::Result<()> {
        let path = self.path.clone();
        files::blocking(move || remove(&path)).await
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn remove(path: &Path) -> io::Result<()> {
    files::remove_if_there(path)?;
    if let Some(folder) = path.parent() {
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
            evicted: memory.evicted.clone(),
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
            evicted: record.evicted,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_is_recorded_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::new(folder.path(), "uid");
        assert!(file.load().await.unwrap().containers.is_empty());
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
        file.save(&memory).await.unwrap();
        let loaded = file.load().await.unwrap();
        let web = &loaded.containers["web"];
        assert_eq!(web.next_attempt, 3);
        assert_eq!(web.crash.delay_ms, 20_000);
        assert_eq!(web.exits, memory.containers["web"].exits);
        assert_eq!(loaded.started_ms, 5);
        file.remove().await.unwrap();
        file.remove().await.unwrap();
        assert!(!folder.path().join("pods/uid").exists());
    }
}
