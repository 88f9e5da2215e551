//! What a container's thread is told while it waits for output.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU8, Ordering},
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
}

impl Signal {
    /// Nothing told: [`Wanted::Drain`].
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            wanted: AtomicU8::new(Wanted::Drain as u8),
            wake: EventFd::from_value_and_flags(0, flags)?,
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
