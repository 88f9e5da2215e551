//! Programs in containers, what containers write, and connections to their ports.
//!
//! Requests wait in bounded queues and answers are read one by one: whoever does not read holds back the other end.

use std::time::Duration;

use futures::{Stream, stream::select};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, WatchStream},
};
use tonic::{Status, Streaming};

use super::{Client, attempt::Repeat};
use crate::{
    backoff::Backoff,
    channel::ApiChannel,
    error::{self, ClientError},
    v1::{
        AttachRequest, ExecRequest, ExecResponse, ExecStart, PortForwardRequest,
        PortForwardResponse, PortForwardStart, TerminalSize, exec_request, exec_response,
        pod_streams_client::PodStreamsClient, port_forward_request, port_forward_response,
    },
};

/// The most that a message carries, in bytes.
const PIECE: usize = 64 << 10;
/// Pieces that wait to be sent.
const AHEAD: usize = 4;
/// Signals that wait to be sent.
const SIGNALS: usize = 16;
/// How long the pod's node may look for a manager, after it lost the one before.
const AWAY: Duration = Duration::from_secs(30);

/// A program that runs in a container. Dropping both halves ends the program.
#[derive(Debug)]
pub struct ExecStream {
    /// What goes to the program.
    pub input: ExecInput,
    /// What the program writes, and how it ends.
    pub output: ExecOutput,
}

/// What goes to a program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ExecInput {
    pieces: mpsc::Sender<ExecRequest>,
    signals: mpsc::Sender<u32>,
    size: watch::Sender<Option<TerminalSize>>,
}

/// What a program or a container writes, and how it ends.
#[derive(Debug)]
pub struct ExecOutput {
    inner: Streaming<ExecResponse>,
    /// Keeps the requests from ending before the answers do.
    _input: Option<ExecInput>,
}

/// What comes from a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// It wrote to its standard output, or to its terminal.
    Stdout(Vec<u8>),
    /// It wrote to its standard error.
    Stderr(Vec<u8>),
    /// It has ended with this code; 128 + N when signal N ended it. The last event.
    Exit(i32),
}

/// The stream has ended: nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has ended")]
pub struct StreamEnded;

impl ExecInput {
    /// Writes to the program's standard input. Waits while earlier input has not left.
    ///
    /// # Errors
    /// The stream has ended; the output says why.
    pub async fn write(&self, data: &[u8]) -> Result<(), StreamEnded> {
        for piece in data.chunks(PIECE) {
            self.put(exec_request::What::Stdin(piece.to_vec())).await?;
        }
        Ok(())
    }

    /// Ends the program's standard input, after what was written before.
    ///
    /// # Errors
    /// The stream has ended; the output says why.
    pub async fn end(&self) -> Result<(), StreamEnded> {
        self.put(exec_request::What::StdinEnd(true)).await
    }

    /// Sends the program a signal. It overtakes input that waits here.
    ///
    /// # Errors
    /// The stream has ended, or 16 signals wait to be sent.
    pub fn signal(&self, number: u32) -> Result<(), StreamEnded> {
        self.signals.try_send(number).map_err(|_| StreamEnded)
    }

    /// Tells the size of the terminal. A size that has not left when the next one is told is left out.
    pub fn resize(&self, size: TerminalSize) {
        self.size.send_replace(Some(size));
    }

    async fn put(&self, what: exec_request::What) -> Result<(), StreamEnded> {
        let sent = self.pieces.send(ExecRequest { what: Some(what) }).await;
        sent.map_err(|_| StreamEnded)
    }

    /// The input, and what it sends: first the start.
    fn new(start: ExecStart) -> (Self, impl Stream<Item = ExecRequest> + Send + 'static) {
        let (pieces, sent) = mpsc::channel(AHEAD);
        let (signals, signalled) = mpsc::channel(SIGNALS);
        let (size, sizes) = watch::channel(None);
        let request = |what| ExecRequest { what: Some(what) };
        let first = request(exec_request::What::Start(start));
        let signalled =
            ReceiverStream::new(signalled).map(move |it| request(exec_request::What::Signal(it)));
        let sizes = WatchStream::from_changes(sizes)
            .filter_map(move |size| size.map(|size| request(exec_request::What::Size(size))));
        let rest = select(select(signalled, sizes), ReceiverStream::new(sent));
        let input = Self {
            pieces,
            signals,
            size,
        };
        (input, tokio_stream::once(first).chain(rest))
    }
}

impl ExecOutput {
    /// The next event. [`ExecEvent::Exit`] is the last one.
    ///
    /// # Errors
    /// See [`ClientError`]. The stream broke: the program was ended with it, and is not started again.
    pub async fn next(&mut self) -> Result<ExecEvent, ClientError> {
        loop {
            let Some(response) = self.inner.message().await? else {
                return Err(ClientError::Answer("the program's exit code"));
            };
            match response.what {
                Some(exec_response::What::Stdout(data)) => return Ok(ExecEvent::Stdout(data)),
                Some(exec_response::What::Stderr(data)) => return Ok(ExecEvent::Stderr(data)),
                Some(exec_response::What::ExitCode(code)) => return Ok(ExecEvent::Exit(code)),
                // A newer manager's.
                Some(exec_response::What::Started(_)) | None => {}
            }
        }
    }
}

/// A connection to a port of a pod. Dropping both halves closes it.
#[derive(Debug)]
pub struct PortStream {
    /// What goes to the program behind the port.
    pub input: PortInput,
    /// What comes from it.
    pub output: PortOutput,
}

/// What goes to the program behind a port.
#[derive(Debug)]
pub struct PortInput(mpsc::Sender<PortForwardRequest>);

/// What comes from the program behind a port.
#[derive(Debug)]
pub struct PortOutput {
    inner: Streaming<PortForwardResponse>,
    /// Whether the answers have ended.
    over: bool,
}

impl PortInput {
    /// Sends data. Waits while earlier data has not left.
    ///
    /// # Errors
    /// The connection has ended; the output says why.
    pub async fn write(&self, data: &[u8]) -> Result<(), StreamEnded> {
        for piece in data.chunks(PIECE) {
            self.put(port_forward_request::What::Data(piece.to_vec()))
                .await?;
        }
        Ok(())
    }

    /// Says that nothing more comes. What the program sends still arrives.
    ///
    /// # Errors
    /// The connection has ended; the output says why.
    pub async fn end(self) -> Result<(), StreamEnded> {
        self.put(port_forward_request::What::End(true)).await
    }

    async fn put(&self, what: port_forward_request::What) -> Result<(), StreamEnded> {
        let sent = self.0.send(PortForwardRequest { what: Some(what) }).await;
        sent.map_err(|_| StreamEnded)
    }
}

impl PortOutput {
    /// What the program sends next; `None` once it has said all. It may still be listening then.
    ///
    /// # Errors
    /// See [`ClientError`]. The connection broke.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        while !self.over {
            let Some(response) = self.inner.message().await? else {
                self.over = true;
                break;
            };
            match response.what {
                Some(port_forward_response::What::Data(data)) => return Ok(Some(data)),
                Some(port_forward_response::What::End(_)) => break,
                Some(port_forward_response::What::Connected(_)) | None => {}
            }
        }
        Ok(None)
    }

    /// Waits until the other end has closed the connection altogether. What was sent has arrived then.
    ///
    /// # Errors
    /// See [`ClientError`]. The connection broke.
    pub async fn closed(&mut self) -> Result<(), ClientError> {
        while !self.over {
            self.over = self.inner.message().await?.is_none();
        }
        Ok(())
    }
}

impl Client {
    /// Starts a program in a running container, and returns once it runs. It is started once at most: the client asks another manager only
    /// when nothing was started. [`ClientError::UnknownOutcome`] when the connection broke before the manager said whether it was.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn exec(&self, start: ExecStart) -> Result<ExecStream, ClientError> {
        self.found(|| self.start(&start)).await
    }

    async fn start(&self, start: &ExecStart) -> Result<ExecStream, ClientError> {
        let (input, mut inner) = self
            .call(Repeat::Unsafe, |channel| {
                let (input, requests) = ExecInput::new(start.clone());
                async move {
                    let response = streams(channel).exec(requests).await?;
                    Ok(response.map(|inner| (input, inner)))
                }
            })
            .await?;
        match inner.message().await {
            Ok(Some(ExecResponse {
                what: Some(exec_response::What::Started(true)),
            })) => {}
            Ok(_) => return Err(ClientError::Answer("the program's start")),
            Err(status) => return Err(not_started(status)),
        }
        let output = ExecOutput {
            inner,
            _input: Some(input.clone()),
        };
        Ok(ExecStream { input, output })
    }

    /// What a running container writes from now on, and its exit code. A stream that breaks is not gone on with: what was written meanwhile
    /// would be missing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn attach(&self, request: AttachRequest) -> Result<ExecOutput, ClientError> {
        self.found(|| async {
            let inner = self
                .call(Repeat::Safe, |channel| {
                    let request = request.clone();
                    async move { streams(channel).attach(request).await }
                })
                .await?;
            Ok(ExecOutput {
                inner,
                _input: None,
            })
        })
        .await
    }

    /// Connects to a port of a pod, on the pod's own loopback.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn port_forward(&self, start: PortForwardStart) -> Result<PortStream, ClientError> {
        self.found(|| self.connect(&start)).await
    }

    async fn connect(&self, start: &PortForwardStart) -> Result<PortStream, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let (sender, receiver) = mpsc::channel(AHEAD);
            let first = PortForwardRequest {
                what: Some(port_forward_request::What::Start(start.clone())),
            };
            let requests = tokio_stream::once(first).chain(ReceiverStream::new(receiver));
            async move {
                let response = streams(channel).port_forward(requests).await?;
                let (metadata, mut inner, extensions) = response.into_parts();
                // Nothing was sent yet, so another manager may be asked.
                match inner.message().await?.and_then(|first| first.what) {
                    Some(port_forward_response::What::Connected(true)) => {}
                    _ => {
                        return Err(Status::internal(
                            "the manager's answer lacks the connection",
                        ));
                    }
                }
                let stream = PortStream {
                    input: PortInput(sender),
                    output: PortOutput { inner, over: false },
                };
                Ok(tonic::Response::from_parts(metadata, stream, extensions))
            }
        })
        .await
    }

    /// Asks again, for half a minute, while the pod's node is looking for a manager. Nothing was done until then.
    async fn found<T, F, Fut>(&self, open: F) -> Result<T, ClientError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let begun = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            match open().await {
                Err(error)
                    if error.reason() == Some("NO_SUCH_SESSION") && begun.elapsed() < AWAY =>
                {
                    sleep(backoff.wait()).await;
                }
                done => return done,
            }
        }
    }
}

fn streams(channel: ApiChannel) -> PodStreamsClient<ApiChannel> {
    PodStreamsClient::new(channel)
}

/// What an error means that came in place of the start. A manager that stops ends its streams, whatever they were about.
fn not_started(status: Status) -> ClientError {
    let reason = error::reason(&status).map(|(reason, _)| reason);
    match reason.as_deref() {
        Some("STOPPING" | "UNKNOWN_OUTCOME") => {}
        None if error::is_broken(&status) => {}
        _ => return status.into(),
    }
    ClientError::UnknownOutcome {
        message: error::cause(&status),
    }
}
