//! Control's side of the carrier.

use std::{ffi::OsString, fs, io, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use super::protocol::{Attachment, Envelope, LONGEST, Reply, Request, VERSION};
use crate::runtime::Paths;

/// How long a carrier may take for an answer, and to come up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has come up.
const POLL: Duration = Duration::from_millis(5);
/// Beyond this many bytes the carrier's own messages are thrown away at its next start.
const LARGEST_OWN_LOG: u64 = 1024 * 1024;

/// How control reaches the carrier of a data folder. Starts one when none answers.
#[derive(Debug, Clone)]
pub struct Carrier {
    paths: Paths,
    command: Vec<OsString>,
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

impl Carrier {
    /// The carrier of a data folder; `command` starts one, with `--data-dir D` added.
    pub fn new(paths: Paths, command: Vec<OsString>) -> Self {
        Self { paths, command }
    }

    /// Makes sure that a carrier of this very build is running.
    ///
    /// # Errors
    /// When none can be started.
    pub async fn ensure(&self) -> Result<Reply, CarrierError> {
        if let Ok(reply) = self.call(Request::Ping).await {
            if reply.build == env!("CARGO_PKG_VERSION") && reply.version == VERSION {
                return Ok(reply);
            }
            // The successor takes over what it drains; the pipes hold the output meanwhile.
            self.call(Request::Leave).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut child = self.spawn()?;
        while Instant::now() < deadline {
            if let Ok(reply) = self.call(Request::Ping).await {
                return Ok(reply);
            }
            match child.try_wait() {
                // Another one, just starting or just ending, has the lock.
                Ok(Some(status)) if status.success() => {
                    sleep(POLL * 10).await;
                    child = self.spawn()?;
                }
                Ok(Some(_)) => break,
                _ => sleep(POLL).await,
            }
        }
        Err(CarrierError::Silent {
            log: self.paths.carrier_log().display().to_string(),
        })
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
        let answer = timeout(PATIENCE, self.exchange(request)).await;
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

    async fn exchange(&self, request: Request) -> io::Result<Reply> {
        let mut stream = UnixStream::connect(self.paths.carrier_socket()).await?;
        let mut line = serde_json::to_vec(&Envelope {
            version: VERSION,
            request,
        })?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        line.clear();
        BufReader::new(stream.take(LONGEST))
            .read_until(b'\n', &mut line)
            .await?;
        Ok(serde_json::from_slice(&line)?)
    }

    fn spawn(&self) -> Result<tokio::process::Child, CarrierError> {
        let (program, arguments) =
            self.command
                .split_first()
                .ok_or_else(|| CarrierError::Spawn {
                    program: String::new(),
                    source: io::ErrorKind::InvalidInput.into(),
                })?;
        let start = || {
            fs::create_dir_all(self.paths.data_dir())?;
            let log = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.paths.carrier_log())?;
            if log.metadata()?.len() > LARGEST_OWN_LOG {
                log.set_len(0)?;
            }
            tokio::process::Command::new(program)
                .args(arguments)
                .arg("--data-dir")
                .arg(self.paths.data_dir())
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .kill_on_drop(false)
                .spawn()
        };
        start().map_err(|source| CarrierError::Spawn {
            program: program.to_string_lossy().into_owned(),
            source,
        })
    }
}
