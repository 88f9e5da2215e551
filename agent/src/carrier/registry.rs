//! What a carrier drains, in memory and on disk.

use std::{collections::BTreeMap, fs, io, time::Duration};

use super::{
    drain::Spares,
    protocol::Attachment,
    signal::Wanted,
    worker::{Asked, RECORD, Worker},
};
use crate::{files, runtime::Paths};

/// How long threads have for their last batch. One that waits for a disk that hangs is left behind.
const LEAVE: Duration = Duration::from_secs(1);

/// All attached containers, by id. Never waits for a container's files.
#[derive(Debug)]
pub struct Registry {
    paths: Paths,
    spares: Spares,
    workers: BTreeMap<String, Worker>,
}

impl Registry {
    /// Takes over whatever the carrier before drained.
    pub fn recover(paths: Paths) -> io::Result<Self> {
        let mut registry = Self {
            spares: Spares::default(),
            workers: BTreeMap::new(),
            paths,
        };
        fs::create_dir_all(registry.paths.io())?;
        for entry in fs::read_dir(registry.paths.io())? {
            let record = entry?.path().join(RECORD);
            // One that cannot be read stops its container's output, and no other's.
            let attachment = match files::read_if_there(&record) {
                Ok(None) => continue,
                Ok(Some(bytes)) => {
                    serde_json::from_slice::<Attachment>(&bytes).map_err(io::Error::from)
                }
                Err(error) => Err(error),
            };
            match attachment {
                Ok(attachment) => registry.drain(attachment, Asked::Before).map(drop)?,
                Err(error) => {
                    tracing::error!(record = %record.display(), %error, "unreadable record")
                }
            }
        }
        Ok(registry)
    }

    /// How many containers are attached.
    pub fn len(&self) -> usize {
        let carried = |worker: &&Worker| !worker.has_ended();
        self.workers.values().filter(carried).count()
    }

    /// Makes a container's pipes and begins to drain them; [`Worker::opened`] says when.
    pub fn attach(&mut self, attachment: Attachment) -> io::Result<Worker> {
        self.forget_ended();
        match self.workers.get(&attachment.id) {
            Some(worker) if worker.is_ending() => {
                Err(io::Error::other("it is being detached: try again"))
            }
            Some(worker) => Ok(worker.clone()),
            None => self.drain(attachment, Asked::Now),
        }
    }

    /// The thread of a container; `None` when it is not attached (any more).
    pub fn worker(&self, id: &str) -> Option<Worker> {
        self.workers.get(id).cloned()
    }

    /// Ends the draining of a container. At [`Worker::ended`] the pipes are empty and gone.
    pub fn detach(&mut self, id: &str) -> io::Result<Worker> {
        self.forget_ended();
        let worker = match self.workers.get(id) {
            Some(worker) => worker.clone(),
            None => {
                let worker = Worker::remove(self.paths.clone(), id.to_owned())?;
                self.workers.insert(id.to_owned(), worker.clone());
                worker
            }
        };
        worker.tell(Wanted::Finish);
        Ok(worker)
    }

    /// Ends all draining between two batches: the pipes are for another carrier.
    pub fn leave(&mut self) -> impl Future<Output = ()> + use<> {
        let workers = std::mem::take(&mut self.workers);
        for worker in workers.values() {
            worker.tell(Wanted::Leave);
        }
        let ended = async move {
            for (id, worker) in workers {
                if let Err(error) = worker.ended().await {
                    tracing::warn!(id, error, "a container's thread ended badly");
                }
            }
        };
        async {
            if tokio::time::timeout(LEAVE, ended).await.is_err() {
                tracing::warn!("the disk hangs: a last batch may be written twice");
            }
        }
    }

    fn drain(&mut self, attachment: Attachment, asked: Asked) -> io::Result<Worker> {
        let id = attachment.id.clone();
        let worker = Worker::drain(self.paths.clone(), attachment, asked, self.spares.clone())?;
        self.workers.insert(id, worker.clone());
        Ok(worker)
    }

    fn forget_ended(&mut self) {
        self.workers.retain(|_, worker| !worker.has_ended());
    }
}
