//! From a pipe into a log.

use std::{
    cell::RefCell,
    fs::OpenOptions,
    io::{self, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    rc::Rc,
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{OFlag, SpliceFFlags},
    poll::{PollFd, PollFlags, PollTimeout},
};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::{
    cri::{self, Channel},
    logfile::LogFile,
};

/// What a pipe holds by default, and so the largest batch.
const BATCH: usize = 64 * 1024;

/// Room for one batch at a time, shared by all pipes: nothing of it is in use while anybody waits.
#[derive(Debug)]
pub struct Scratch {
    reader: io::PipeReader,
    writer: io::PipeWriter,
    raw: Vec<u8>,
    lines: Vec<u8>,
}

impl Scratch {
    /// Room for one batch.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            reader,
            writer,
            raw: vec![0; BATCH],
            lines: Vec::new(),
        })
    }
}

/// One output of a container.
#[derive(Debug)]
pub struct Drain {
    pipe: AsyncFd<std::fs::File>,
    channel: Channel,
    log: Rc<RefCell<LogFile>>,
    scratch: Rc<RefCell<Scratch>>,
}

impl Drain {
    /// Opens a named pipe for reading, and for writing too: the writers' coming and going is then not an end.
    pub fn open(
        pipe: &Path,
        channel: Channel,
        log: Rc<RefCell<LogFile>>,
        scratch: Rc<RefCell<Scratch>>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(pipe)?;
        Ok(Self {
            pipe: watch(file)?,
            channel,
            log,
            scratch,
        })
    }

    /// Drains until stopped; then takes what is there, an unfinished line too if it is `last`.
    pub async fn run(
        self,
        stop: CancellationToken,
        last: Rc<std::cell::Cell<bool>>,
    ) -> io::Result<()> {
        loop {
            let mut ready = tokio::select! {
                ready = self.pipe.readable() => ready?,
                () = stop.cancelled() => break,
            };
            if !self.step(false)? {
                ready.clear_ready();
            }
            // A container that floods its pipe waits for its turn like the others.
            tokio::task::yield_now().await;
        }
        if last.get() {
            while self.step(true)? {}
        }
        Ok(())
    }

    /// Moves a batch of whole lines; answers whether there was one.
    ///
    /// The bytes are copied out of the pipe, written, and only then taken from it: a death in between repeats the
    /// batch and loses nothing.
    fn step(&self, all: bool) -> io::Result<bool> {
        let mut scratch = self.scratch.borrow_mut();
        let Scratch {
            reader,
            writer,
            raw,
            lines,
        } = &mut *scratch;
        let pipe = self.pipe.get_ref();
        let count =
            match nix::fcntl::tee(pipe, writer.as_fd(), BATCH, SpliceFFlags::SPLICE_F_NONBLOCK) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(false),
                Ok(count) => count,
                Err(error) => return Err(error.into()),
            };
        reader.read_exact(&mut raw[..count])?;
        let now = Timestamp::now();
        lines.clear();
        let mut taken = cri::encode(lines, now, self.channel, &raw[..count], all);
        if taken == 0 {
            // A pipe can be full of few bytes; whoever waits for room would never finish the line.
            if self.has_room()? {
                return Ok(false);
            }
            taken = cri::encode(lines, now, self.channel, &raw[..count], true);
        }
        // A container must not stand still because the disk is full: what cannot be written is dropped, and said.
        if let Err(error) = self.log.borrow_mut().append(lines) {
            tracing::warn!(%error, bytes = taken, "dropped output that could not be written");
        }
        let mut pipe = pipe;
        pipe.read_exact(&mut raw[..taken])?;
        Ok(true)
    }

    fn has_room(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.pipe.get_ref().as_fd(), PollFlags::POLLOUT)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO)?;
        Ok(fds[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLOUT)))
    }
}

#[allow(unsafe_code)]
fn watch(file: std::fs::File) -> io::Result<AsyncFd<std::fs::File>> {
    // SAFETY: the file owns its descriptor and is moved in; it is only borrowed until it is dropped together with the
    // registration, so the descriptor stays open and the same for as long as it is registered.
    Ok(unsafe { AsyncFd::register(file) }?)
}
