//! From a container's pipes into its log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{OFlag, SpliceFFlags},
    poll::{PollFd, PollFlags, PollTimeout},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use super::{
    cri::{self, Channel},
    logfile::LogFile,
    signal::{Signal, Wanted},
};

/// What a pipe holds by default, and so the largest batch.
const BATCH: usize = 64 * 1024;
/// Scratches that are kept while no thread needs them.
const SPARE: usize = 4;
/// Batches of each pipe taken at the end: more than the largest pipe holds. A writer that never stops does not keep
/// its pod from going.
const LAST_BATCHES: usize = 256;

/// Room for one batch. A thread has one only while it moves bytes.
#[derive(Debug)]
struct Scratch {
    reader: io::PipeReader,
    writer: io::PipeWriter,
    raw: Vec<u8>,
    lines: Vec<u8>,
}

impl Scratch {
    fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            reader,
            writer,
            raw: vec![0; BATCH],
            lines: Vec::new(),
        })
    }
}

/// The spare scratches of all threads. Their number is that of the threads that were busy at the same time, at most
/// [`SPARE`]. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spares(Arc<Mutex<Vec<Scratch>>>);

impl Spares {
    /// One that failed in the middle may hold bytes of its batch, and is not used again.
    fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> io::Result<T>) -> io::Result<T> {
        let spare = self.spares().pop();
        let mut scratch = spare.map_or_else(Scratch::new, Ok)?;
        let done = work(&mut scratch)?;
        let mut spares = self.spares();
        if spares.len() < SPARE {
            spares.push(scratch);
        }
        Ok(done)
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<Scratch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An end of a pipe to read from.
#[derive(Debug)]
struct Pipe {
    channel: Channel,
    path: PathBuf,
    file: File,
    /// Keeps the pipe open for writing until the shim does. The shim opens both ends by name, one after the other, and each waits
    /// for an opposite: should the pipe be made anew in between, only this one is there.
    keeper: Option<File>,
    /// Nobody has it open for writing, and it is empty.
    ended: bool,
}

impl Pipe {
    fn open(folder: &Path, channel: Channel) -> io::Result<Self> {
        let path = folder.join(channel.name());
        let open = |writes: bool| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(writes);
            options.custom_flags(OFlag::O_NONBLOCK.bits()).open(&path)
        };
        Ok(Self {
            channel,
            // First: what is opened for reading only then sees this one go as any other writer.
            keeper: Some(open(true)?),
            file: open(false)?,
            path,
            ended: false,
        })
    }

    /// Whether there was a writer and is none any more. What is in the pipe by then is all that comes.
    fn is_left(&self) -> io::Result<bool> {
        Ok(polled(&self.file, PollFlags::empty())?.contains(PollFlags::POLLHUP))
    }

    /// Whether a writer is sure to find room. The kernel tells only those who have the pipe open for writing. When it
    /// cannot be opened (its path is gone, or the process has no descriptor left), the answer is no: a line in two pieces
    /// is better than a container that stands still.
    fn has_room(&self) -> bool {
        let writer = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&self.path);
        let polled = writer.and_then(|writer| polled(&writer, PollFlags::POLLOUT));
        polled.is_ok_and(|flags| flags.contains(PollFlags::POLLOUT))
    }
}

fn polled(file: &File, flags: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(file.as_fd(), flags)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}

/// Both outputs of a container.
#[derive(Debug)]
pub struct Drain {
    pipes: [Pipe; 2],
    log: LogFile,
    spares: Spares,
    /// Bytes that could not be written since the last that could.
    dropped: usize,
}

impl Drain {
    /// Opens the pipes in a folder.
    pub fn open(folder: &Path, log: LogFile, spares: Spares) -> io::Result<Self> {
        Ok(Self {
            pipes: [
                Pipe::open(folder, Channel::Stdout)?,
                Pipe::open(folder, Channel::Stderr)?,
            ],
            log,
            spares,
            dropped: 0,
        })
    }

    /// Drains until told otherwise. Blocks its thread.
    ///
    /// `settled` hears, before each wait, whether nobody writes any more and all that was written is in the log, and which
    /// question that answers.
    pub fn run(&mut self, signal: &Signal, settled: impl Fn(bool, u64)) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for told in [signal.as_fd(), signal.question().as_fd()] {
            epoll.add(told, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        for pipe in &self.pipes {
            // By edges: the beginning of a line stays in the pipe, and should not wake anybody again and again.
            let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(&pipe.file, EpollEvent::new(edges, 1))?;
        }
        let mut events = [EpollEvent::empty(); 4];
        loop {
            let question = signal.hear();
            if question > 0 {
                // Asked about a container that has ended: nobody opens its pipes any more.
                for pipe in &mut self.pipes {
                    pipe.keeper = None;
                }
            }
            let moved = self.step(false)?;
            match signal.wanted() {
                Wanted::Drain if moved => {}
                Wanted::Drain => {
                    settled(self.pipes.iter().all(|pipe| pipe.ended), question);
                    match epoll.wait(&mut events, EpollTimeout::NONE) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Wanted::Leave => return Ok(()),
                Wanted::Finish => {
                    for _ in 0..LAST_BATCHES {
                        if !self.step(true)? {
                            break;
                        }
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Moves a batch of whole lines out of each pipe; an unfinished line too if `all` is wanted or nobody is left to finish it.
    /// Answers whether there was any.
    fn step(&mut self, all: bool) -> io::Result<bool> {
        let mut moved = false;
        let spares = self.spares.clone();
        for pipe in &mut self.pipes {
            let batch = Batch {
                pipe,
                log: &mut self.log,
                dropped: &mut self.dropped,
                all,
            };
            moved |= spares.with(|scratch| batch.take(scratch))?;
        }
        Ok(moved)
    }
}

/// A batch on its way from one pipe into the log.
struct Batch<'a> {
    pipe: &'a mut Pipe,
    log: &'a mut LogFile,
    dropped: &'a mut usize,
    all: bool,
}

impl Batch<'_> {
    /// Moves it; answers whether there was one.
    ///
    /// The bytes are copied out of the pipe, written, and only then taken from it: a death in between repeats the
    /// batch and loses nothing.
    fn take(self, scratch: &mut Scratch) -> io::Result<bool> {
        let Scratch {
            reader,
            writer,
            raw,
            lines,
        } = scratch;
        // Asked for before copying: the copy then has the last that was written.
        let is_left = self.pipe.is_left()?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        let copied = nix::fcntl::tee(&self.pipe.file, writer.as_fd(), BATCH, flags);
        self.pipe.ended = copied == Ok(0);
        let count = match copied {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(false),
            Ok(count) => count,
            Err(error) => return Err(error.into()),
        };
        // Somebody writes, and so has opened both ends. From here on the kernel says when the last writer goes.
        self.pipe.keeper = None;
        let all = self.all || (is_left && count < BATCH);
        reader.read_exact(&mut raw[..count])?;
        let now = Timestamp::now();
        lines.clear();
        let channel = self.pipe.channel;
        let mut taken = cri::encode(lines, now, channel, &raw[..count], all);
        if taken == 0 {
            // A pipe can be full of few bytes; whoever waits for room would never finish the line.
            if self.pipe.has_room() {
                return Ok(false);
            }
            taken = cri::encode(lines, now, channel, &raw[..count], true);
        }
        // A container must not stand still because the disk is full: what cannot be written is dropped, and said.
        match self.log.append(lines) {
            Ok(()) if *self.dropped > 0 => {
                let bytes = std::mem::take(self.dropped);
                tracing::warn!(log = %self.log.path().display(), bytes, "dropped output that could not be written");
            }
            Ok(()) => {}
            Err(error) => {
                if *self.dropped == 0 {
                    tracing::warn!(log = %self.log.path().display(), %error, "cannot write: dropping output");
                }
                *self.dropped += taken;
            }
        }
        self.pipe.file.read_exact(&mut raw[..taken])?;
        Ok(true)
    }
}
