//! A connection to a carrier.

use std::{io, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::carrier::protocol::{Envelope, LONGEST, Reply, Request, VERSION};

/// A carrier that does not answer a ping for twice as long is stuck. Twice, because this process may have been stopped
/// during the first time, and not the carrier.
const PING: Duration = Duration::from_secs(2);

/// Requests and their answers, one after the other. It ends when the carrier's process does.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<Take<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
    pid: Option<Pid>,
}

impl Connection {
    /// Connects to the socket of a carrier.
    pub(super) async fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        // 0 stands for a process of which this one's namespace knows nothing.
        let pid = stream.peer_cred()?.pid().filter(|pid| *pid > 1);
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader.take(LONGEST)),
            writer,
            line: Vec::new(),
            pid: pid.map(Pid::from_raw),
        })
    }

    /// Kills the process at the other end, which lives as long as the connection: its id is nobody else's. Output is
    /// not lost, because it leaves the pipes only after it was written.
    pub fn kill(&self) {
        let Some(pid) = self.pid else {
            return;
        };
        tracing::error!(%pid, "the carrier does not answer: killing it");
        if let Err(error) = kill(pid, Signal::SIGKILL) {
            tracing::warn!(%pid, %error, "cannot kill the carrier");
        }
    }

    /// A request and its answer.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ask(&mut self, request: Request) -> io::Result<Reply> {
        self.send(request).await?;
        self.receive().await
    }

    /// Whether the carrier answers; `None` when it is stuck.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ping(&mut self) -> io::Result<Option<Reply>> {
        if timeout(PING, self.send(Request::Ping)).await.is_err() {
            return Ok(None);
        }
        for _ in 0..2 {
            if let Ok(reply) = timeout(PING, self.receive()).await {
                return reply.map(Some);
            }
        }
        Ok(None)
    }

    /// Waits until the connection has ended. There is nothing to read while nothing is asked.
    pub async fn ended(&mut self) {
        // Anything else than silence is an end: an error, or a carrier that speaks unasked.
        let _ = self.reader.fill_buf().await;
    }

    async fn send(&mut self, request: Request) -> io::Result<()> {
        let envelope = Envelope {
            version: VERSION,
            request,
        };
        let mut line = serde_json::to_vec(&envelope)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }

    /// May be abandoned and called again: what was read of a line stays.
    async fn receive(&mut self) -> io::Result<Reply> {
        self.reader.get_mut().set_limit(LONGEST);
        if self.reader.read_until(b'\n', &mut self.line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let reply = serde_json::from_slice(&self.line);
        self.line.clear();
        Ok(reply?)
    }
}
