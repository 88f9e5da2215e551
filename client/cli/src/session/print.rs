//! Standard output and standard error, written by a thread of their own: a terminal that stands still does not keep this process from hearing
//! signals and from answering the manager.

use std::{
    io::{self, Write},
    thread,
};

use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for the terminal.
const AHEAD: usize = 4;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Stdout,
    Stderr,
}

/// Prints in the order in which it is told to.
#[derive(Debug)]
pub struct Printer {
    pieces: mpsc::Sender<(To, Vec<u8>)>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Printer {
    /// For this process' own.
    pub fn standard() -> io::Result<Self> {
        Self::new(io::stdout(), io::stderr())
    }

    pub fn new(
        mut out: impl Write + Send + 'static,
        mut error: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let (pieces, mut receiver) = mpsc::channel::<(To, Vec<u8>)>(AHEAD);
        let (sender, done) = oneshot::channel();
        let mut print = move || -> io::Result<()> {
            while let Some((to, data)) = receiver.blocking_recv() {
                match to {
                    To::Stdout => write(&mut out, &data)?,
                    To::Stderr => write(&mut error, &data)?,
                }
            }
            Ok(())
        };
        // Nobody waits for the outcome any more if this fails.
        let run = move || drop(sender.send(print()));
        thread::Builder::new().name("output".into()).spawn(run)?;
        Ok(Self { pieces, done })
    }

    /// Waits while what came before has not been printed.
    ///
    /// # Errors
    /// It cannot be printed.
    pub async fn print(&mut self, to: To, data: Vec<u8>) -> io::Result<()> {
        match self.pieces.send((to, data)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(match (&mut self.done).await {
                Ok(Err(error)) => error,
                _ => io::ErrorKind::BrokenPipe.into(),
            }),
        }
    }

    /// Waits until all is printed.
    ///
    /// # Errors
    /// It cannot be printed.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        match self.done.await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

fn write(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    to.write_all(data)?;
    to.flush()
}
