//! The thread of one container: everything that may wait for the disk.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, thread, time::Duration};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tokio::sync::watch;

use super::{
    cri::Channel,
    drain::{Drain, Spares},
    logfile::{self, LogFile},
    protocol::Attachment,
    signal::{Signal, Wanted},
};
use crate::{files, runtime::Paths};

/// Name of the record beside a container's pipes.
pub const RECORD: &str = "attachment.json";
/// Address space, of which a few pages are used.
const STACK: usize = 256 * 1024;
/// Between two tries of a container that cannot be drained.
const RETRY: Duration = Duration::from_secs(1);

/// How far a thread is.
#[derive(Debug, Clone)]
enum Phase {
    Opening,
    Draining {
        /// Nobody writes any more, and all that was written is in the log.
        settled: bool,
        /// The newest question that this answers.
        question: u64,
    },
    Ended(Result<(), String>),
}

/// Who asked for a container's pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Control does now, and hears what went wrong.
    Now,
    /// Control did, of a carrier before this one: nobody would hear of an error, so it is tried again until it works.
    Before,
}

/// A container's thread, as others see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Worker {
    signal: Arc<Signal>,
    phase: watch::Receiver<Phase>,
}

impl Worker {
    /// Makes a container's pipes and drains them, until told otherwise.
    pub fn drain(
        paths: Paths,
        attachment: Attachment,
        asked: Asked,
        spares: Spares,
    ) -> io::Result<Self> {
        Self::start(move |signal, phase| {
            let open = || open(&paths, &attachment, asked, spares.clone());
            let mut drain = loop {
                match open() {
                    Ok(drain) => break drain,
                    Err(error) if asked == Asked::Now || signal.wanted() != Wanted::Drain => {
                        return Err(error);
                    }
                    Err(error) => {
                        tracing::error!(id = attachment.id, %error, "cannot drain a container");
                        signal.wait(RETRY)?;
                    }
                }
            };
            let settled = |settled, question| {
                phase.send_replace(Phase::Draining { settled, question });
            };
            settled(false, 0);
            while let Err(error) = drain.run(signal, settled) {
                if signal.wanted() != Wanted::Drain {
                    return Err(error);
                }
                tracing::error!(id = attachment.id, %error, "a container's output stands still");
                signal.wait(RETRY)?;
            }
            match signal.wanted() {
                Wanted::Finish => remove_folder(&paths.container_io(&attachment.id)),
                _ => Ok(()),
            }
        })
    }

    /// Removes what is left of pipes that nobody drains.
    pub fn remove(paths: Paths, id: String) -> io::Result<Self> {
        Self::start(move |_, _| remove_folder(&paths.container_io(&id)))
    }

    fn start(
        work: impl FnOnce(&Signal, &watch::Sender<Phase>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let signal = Arc::new(Signal::new()?);
        let (sender, phase) = watch::channel(Phase::Opening);
        let told = signal.clone();
        thread::Builder::new()
            .name("drain".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let ended = work(&told, &sender).map_err(|error| error.to_string());
                sender.send_replace(Phase::Ended(ended));
            })?;
        Ok(Self { signal, phase })
    }

    /// Tells the thread what to do.
    pub fn tell(&self, wanted: Wanted) {
        self.signal.tell(wanted);
    }

    /// Whether it was told to end.
    pub fn is_ending(&self) -> bool {
        self.signal.wanted() != Wanted::Drain
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ended(_)) || self.phase.has_changed().is_err()
    }

    /// Waits until the pipes are there, or cannot be.
    pub async fn opened(mut self) -> Result<(), String> {
        let opened = |phase: &Phase| !matches!(phase, Phase::Opening);
        outcome(self.phase.wait_for(opened).await)
    }

    /// Waits until nobody writes into the pipes any more and all that was written is in the log.
    pub async fn settled(mut self) -> Result<(), String> {
        // What it found out before may be of a time when nobody had begun to write.
        let asked = self.signal.ask();
        let settled = |phase: &Phase| match phase {
            Phase::Opening => false,
            Phase::Draining { settled, question } => *settled && *question >= asked,
            Phase::Ended(_) => true,
        };
        outcome(self.phase.wait_for(settled).await)
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) -> Result<(), String> {
        let ended = |phase: &Phase| matches!(phase, Phase::Ended(_));
        outcome(self.phase.wait_for(ended).await)
    }
}

fn outcome(seen: Result<watch::Ref<'_, Phase>, watch::error::RecvError>) -> Result<(), String> {
    match seen.as_deref() {
        Ok(Phase::Ended(ended)) => ended.clone(),
        Ok(_) => Ok(()),
        Err(_) => Err("its thread is gone".to_owned()),
    }
}

fn open(paths: &Paths, attachment: &Attachment, asked: Asked, spares: Spares) -> io::Result<Drain> {
    let folder = paths.container_io(&attachment.id);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    for channel in [Channel::Stdout, Channel::Stderr] {
        make_pipe(&folder.join(channel.name()))?;
    }
    let path = paths.log(
        &attachment.pod_uid,
        &attachment.container,
        attachment.attempt,
    );
    let log = LogFile::open(&path)?;
    logfile::forget_older(&path, attachment.attempt)?;
    let drain = Drain::open(&folder, log, spares)?;
    if asked == Asked::Now {
        let record = serde_json::to_vec(attachment)?;
        files::write_atomic(&folder.join(RECORD), &record)?;
    }
    Ok(drain)
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
