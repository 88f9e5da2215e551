//! What a carrier drains, in memory and on disk.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    rc::Rc,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    cri::Channel,
    drain::{Drain, Scratch},
    logfile::{self, LogFile},
    protocol::Attachment,
};
use crate::{files, runtime::Paths};

/// Name of the record beside a container's pipes.
const RECORD: &str = "attachment.json";

/// All attached containers.
#[derive(Debug)]
pub struct Registry {
    paths: Paths,
    scratch: Rc<RefCell<Scratch>>,
    attached: BTreeMap<String, Attached>,
}

#[derive(Debug)]
struct Attached {
    stop: CancellationToken,
    last: Rc<Cell<bool>>,
    tasks: Vec<JoinHandle<io::Result<()>>>,
}

impl Registry {
    /// Takes over whatever the carrier before drained.
    pub fn recover(paths: Paths) -> io::Result<Self> {
        let mut registry = Self {
            scratch: Rc::new(RefCell::new(Scratch::new()?)),
            attached: BTreeMap::new(),
            paths,
        };
        fs::create_dir_all(registry.paths.io())?;
        for entry in fs::read_dir(registry.paths.io())? {
            let record = entry?.path().join(RECORD);
            let Some(bytes) = files::read_if_there(&record)? else {
                continue;
            };
            match serde_json::from_slice::<Attachment>(&bytes) {
                Ok(attachment) => registry.attach(&attachment)?,
                Err(error) => {
                    tracing::error!(record = %record.display(), %error, "unreadable record")
                }
            }
        }
        Ok(registry)
    }

    /// How many containers are attached.
    pub fn len(&self) -> usize {
        self.attached.len()
    }

    /// Makes a container's pipes and begins to drain them.
    pub fn attach(&mut self, attachment: &Attachment) -> io::Result<()> {
        if self.attached.contains_key(&attachment.id) {
            return Ok(());
        }
        let folder = self.paths.container_io(&attachment.id);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        for channel in [Channel::Stdout, Channel::Stderr] {
            make_pipe(&folder.join(channel.name()))?;
        }
        let path = self.paths.log(
            &attachment.pod_uid,
            &attachment.container,
            attachment.attempt,
        );
        let log = Rc::new(RefCell::new(LogFile::open(&path)?));
        logfile::forget_older(&path, attachment.attempt)?;
        let open = |channel: Channel| {
            let pipe = folder.join(channel.name());
            Drain::open(&pipe, channel, Rc::clone(&log), Rc::clone(&self.scratch))
        };
        let drains = [open(Channel::Stdout)?, open(Channel::Stderr)?];
        let record = serde_json::to_vec(attachment)?;
        files::write_atomic(&folder.join(RECORD), &record)?;

        let stop = CancellationToken::new();
        let last = Rc::new(Cell::new(false));
        let tasks = drains
            .into_iter()
            .map(|drain| tokio::task::spawn_local(drain.run(stop.clone(), Rc::clone(&last))))
            .collect();
        self.attached
            .insert(attachment.id.clone(), Attached { stop, last, tasks });
        Ok(())
    }

    /// Ends the draining of a container; what comes back has to be awaited. The pipes are empty and gone afterwards.
    pub fn detach(&mut self, id: &str) -> impl Future<Output = io::Result<()>> + use<> {
        let attached = self.attached.remove(id);
        let folder = self.paths.container_io(id);
        async move {
            if let Some(attached) = attached {
                attached.last.set(true);
                attached.stop.cancel();
                for task in attached.tasks {
                    task.await??;
                }
            }
            remove_folder(&folder)
        }
    }
}

fn make_pipe(path: &Path) -> io::Result<()> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
