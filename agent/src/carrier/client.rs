//! Control's side of the carrier.

use std::{
    ffi::OsString,
    io,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use super::protocol::{Attachment, Reply, Request};
use crate::runtime::Paths;

mod connection;
mod start;

pub use connection::Connection;

/// How long a carrier may take for an answer, and to come up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has come up.
const POLL: Duration = Duration::from_millis(5);
/// How long a supervisor has to start a successor before control starts one.
const HEAD_START: Duration = Duration::from_millis(500);
/// Carriers of another build that are asked to leave, before the next one is taken as it is: whoever starts them has
/// no other.
const OTHER_BUILDS: u32 = 3;

/// How control reaches the carrier of a data folder. Starts one when none answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Carrier {
    paths: Paths,
    command: Vec<OsString>,
    /// Whether the last carrier that answered has a supervisor.
    supervised: Arc<AtomicBool>,
}

/// Why the carrier did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// No carrier at the socket.
    #[error("no carrier answers at {socket}: {source}")]
    Unreachable {
        /// Where it should be.
        socket: String,
        /// Why not.
        source: io::Error,
    },
    /// It could not be started.
    #[error("cannot start the carrier {program}: {source}")]
    Spawn {
        /// What was started.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It ended instead of coming up.
    #[error("the carrier ended with {status}; {log} may say why")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its messages.
        log: String,
    },
    /// It did not come up.
    #[error("the carrier did not come up within {PATIENCE:?}; {log} may say why")]
    Silent {
        /// Its messages.
        log: String,
    },
    /// It answered that it could not.
    #[error("the carrier says: {0}")]
    Refused(String),
}

/// What control finds at the socket.
enum Found {
    Answers(Reply),
    Nobody,
    /// Its process lives and does not answer.
    Stuck(Connection),
}

impl Carrier {
    /// The carrier of a data folder; `command` starts one, with `--data-dir D` added.
    pub fn new(paths: Paths, command: Vec<OsString>) -> Self {
        Self {
            paths,
            command,
            supervised: Arc::default(),
        }
    }

    /// Makes sure that a carrier of this very build is running. One that is stuck is killed, one of another build is
    /// asked to leave: the pipes hold the output until the successor takes over, and nothing of it is lost.
    ///
    /// # Errors
    /// When none can be started within ten seconds.
    pub async fn ensure(&self) -> Result<Reply, CarrierError> {
        let deadline = Instant::now() + PATIENCE;
        let mut others = 0;
        let mut start_at = self.start_at();
        let mut child: Option<Child> = None;
        loop {
            match self.look().await {
                Found::Answers(reply) => {
                    self.supervised.store(reply.supervised, Ordering::Relaxed);
                    let Some(difference) = reply.difference().filter(|_| others < OTHER_BUILDS)
                    else {
                        return Ok(reply);
                    };
                    tracing::info!(difference, "replacing the carrier");
                    match self.call(Request::Leave).await {
                        // It may have left by itself.
                        Ok(_) | Err(CarrierError::Unreachable { .. }) => {}
                        Err(error) => return Err(error),
                    }
                    others += 1;
                    start_at = self.start_at();
                }
                Found::Stuck(connection) => connection.kill(),
                Found::Nobody => {}
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(self.silent());
            }
            match child.as_mut().map(Child::try_wait) {
                // It runs, and is about to serve.
                Some(Ok(None)) => sleep(POLL).await,
                Some(Ok(Some(status))) if status.code().is_some_and(|code| code != 0) => {
                    return Err(self.ended(status));
                }
                // Another one, just starting or just ending, has the lock; or somebody killed it.
                Some(_) => {
                    child = None;
                    start_at = now + POLL * 10;
                }
                None if now >= start_at => child = Some(self.start().await?),
                None => sleep(POLL).await,
            }
        }
    }

    /// Makes a container's pipes, drained into its log from now on.
    ///
    /// # Errors
    /// When no carrier can be started, or it cannot make them.
    pub async fn attach(&self, attachment: Attachment) -> Result<(), CarrierError> {
        self.call_or_start(Request::Attach(attachment)).await
    }

    /// Moves what is left in a container's pipes into its log and removes them.
    ///
    /// # Errors
    /// When no carrier can be started, or it cannot.
    pub async fn detach(&self, id: &str) -> Result<(), CarrierError> {
        if !self.paths.container_io(id).exists() {
            return Ok(());
        }
        self.call_or_start(Request::Detach { id: id.to_owned() })
            .await
    }

    /// Waits until all that an ended container wrote is in its log. One that was detached is done with.
    ///
    /// # Errors
    /// When it is not so within seconds: something writes still, the disk hangs, or no carrier can be started.
    pub async fn settle(&self, id: &str) -> Result<(), CarrierError> {
        if !self.paths.container_io(id).exists() {
            return Ok(());
        }
        self.call_or_start(Request::Settle { id: id.to_owned() })
            .await
    }

    /// Ends the carrier unless it carries something. That there is none is success.
    ///
    /// # Errors
    /// When it still carries something.
    pub async fn shutdown(&self) -> Result<(), CarrierError> {
        match self.call(Request::Shutdown).await {
            Ok(_) | Err(CarrierError::Unreachable { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call_or_start(&self, request: Request) -> Result<(), CarrierError> {
        match self.call(request.clone()).await {
            Err(CarrierError::Unreachable { .. }) => {
                self.ensure().await?;
                self.call(request).await?;
            }
            answer => {
                answer?;
            }
        }
        Ok(())
    }

    /// Asks the carrier that is there.
    ///
    /// # Errors
    /// When none is there, or it says no.
    pub async fn call(&self, request: Request) -> Result<Reply, CarrierError> {
        let exchange = async { self.connect().await?.ask(request).await };
        let answer = timeout(PATIENCE, exchange).await;
        let reply = answer
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| CarrierError::Unreachable {
                socket: self.paths.carrier_socket().display().to_string(),
                source,
            })?;
        match reply.error {
            None => Ok(reply),
            Some(error) => Err(CarrierError::Refused(error)),
        }
    }

    /// A connection to the carrier that is there.
    ///
    /// # Errors
    /// When none is there.
    pub async fn connect(&self) -> io::Result<Connection> {
        Connection::open(&self.paths.carrier_socket()).await
    }

    async fn look(&self) -> Found {
        let Ok(mut connection) = self.connect().await else {
            return Found::Nobody;
        };
        match connection.ping().await {
            Ok(Some(reply)) => Found::Answers(reply),
            Ok(None) => Found::Stuck(connection),
            Err(_) => Found::Nobody,
        }
    }

    fn start_at(&self) -> Instant {
        let supervised = self.supervised.load(Ordering::Relaxed);
        Instant::now()
            + if supervised {
                HEAD_START
            } else {
                Duration::ZERO
            }
    }

    fn ended(&self, status: ExitStatus) -> CarrierError {
        CarrierError::Ended {
            status,
            log: self.paths.carrier_log().display().to_string(),
        }
    }

    fn silent(&self) -> CarrierError {
        CarrierError::Silent {
            log: self.paths.carrier_log().display().to_string(),
        }
    }
}
