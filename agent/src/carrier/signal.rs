//! What a container's thread is told while it waits for output.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout},
    sys::eventfd::{EfdFlags, EventFd},
};

/// What a thread should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Wanted {
    /// Drain.
    Drain = 0,
    /// End between two batches; the pipes are for another carrier.
    Leave = 1,
    /// Drain what is there, remove the pipes, end.
    Finish = 2,
}

/// Told by the thread of the socket, seen by the thread of a container. What was told stays told.
#[derive(Debug)]
pub struct Signal {
    wanted: AtomicU8,
    /// Readable from the first telling on.
    wake: EventFd,
    /// How often somebody asked how far the thread is.
    asked: AtomicU64,
    /// Readable from a question until it is heard.
    question: EventFd,
}

impl Signal {
    /// Nothing told: [`Wanted::Drain`].
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            wanted: AtomicU8::new(Wanted::Drain as u8),
            wake: EventFd::from_value_and_flags(0, flags)?,
            asked: AtomicU64::new(0),
            question: EventFd::from_value_and_flags(0, flags)?,
        })
    }

    /// Tells; of two things told the later one in the order of [`Wanted`] counts.
    pub fn tell(&self, wanted: Wanted) {
        self.wanted.fetch_max(wanted as u8, Ordering::SeqCst);
        if let Err(error) = self.wake.write(1) {
            tracing::error!(%error, "cannot wake a container's thread");
        }
    }

    /// What was told.
    pub fn wanted(&self) -> Wanted {
        match self.wanted.load(Ordering::SeqCst) {
            0 => Wanted::Drain,
            1 => Wanted::Leave,
            _ => Wanted::Finish,
        }
    }

    /// Asks the thread to look at its pipes; answers the number of the question.
    pub fn ask(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if let Err(error) = self.question.write(1) {
            tracing::error!(%error, "cannot ask a container's thread");
        }
        number
    }

    /// The number of the newest question. What the thread finds out after this is an answer to it.
    pub fn hear(&self) -> u64 {
        // There is nothing to read when nobody asked.
        let _ = self.question.read();
        self.asked.load(Ordering::SeqCst)
    }

    /// Readable while a question waits.
    pub fn question(&self) -> &EventFd {
        &self.question
    }

    /// Blocks until something is told, at most for `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], limit) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
