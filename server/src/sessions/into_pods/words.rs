//! What clients say, and hear, on streams into pods, as the agent has it.

use barge_proto::v1::{
    ExecRequest, ExecResponse, ExecStart, PortForwardRequest, PortForwardResponse,
    PortForwardStart, TerminalSize, TunnelChunk, exec_request, exec_response,
    pod_streams_client::PodStreamsClient, port_forward_request, port_forward_response,
};
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::{error::ApiError, security::auth::Caller, sessions::chunks::Answer};

/// Bytes in front of each message on the wire.
const PREFIX: usize = 5;
/// Bytes of one piece.
const PIECE: usize = 64 << 10;
/// Of Linux.
const LAST_SIGNAL: u32 = 64;

/// What a client hears.
pub trait Reply: Answer {
    /// Whether it says that one of the client's messages was dealt with, and nothing else. Between managers it is a start that is none; clients do not
    /// get it.
    fn is_taken(&self) -> bool;
}

/// What a client says.
pub trait Input: Message + Clone + Default + Send + 'static {
    /// What it hears.
    type Answer: Reply;

    /// Asks another manager.
    fn call(
        channel: Channel,
        request: Request<ReceiverStream<Self>>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Answer>>, Status>> + Send;

    /// As the agent hears it. Not of the first message.
    ///
    /// # Errors
    /// INVALID.
    fn chunk(self) -> Result<TunnelChunk, ApiError>;

    /// Its side has said all.
    fn end() -> Self;

    /// Bytes that it took on the wire.
    fn received_bytes(&self) -> usize {
        PREFIX + self.encoded_len()
    }
}

impl Input for ExecRequest {
    type Answer = ExecResponse;

    async fn call(
        channel: Channel,
        request: Request<ReceiverStream<Self>>,
    ) -> Result<Response<Streaming<ExecResponse>>, Status> {
        PodStreamsClient::new(channel).exec(request).await
    }

    fn chunk(self) -> Result<TunnelChunk, ApiError> {
        use exec_request::What;
        let mut chunk = TunnelChunk::default();
        match self.what {
            Some(What::Start(_)) => return Err(second_start()),
            Some(What::Stdin(data)) => chunk.data = checked_piece("stdin", data)?,
            Some(What::StdinEnd(end)) => chunk.end = end,
            Some(What::Size(size)) => {
                check_size(Some(&size), "size")?;
                chunk.size = Some(size);
            }
            Some(What::Signal(signal @ 1..=LAST_SIGNAL)) => chunk.signal = signal,
            Some(What::Signal(signal)) => {
                let rule = format!("{signal} is no signal: they are 1 to {LAST_SIGNAL}");
                return Err(ApiError::invalid("signal", rule));
            }
            // Of a later version.
            None => {}
        }
        Ok(chunk)
    }

    fn end() -> Self {
        Self {
            what: Some(exec_request::What::StdinEnd(true)),
        }
    }
}

impl Answer for ExecResponse {
    const HAS_END: bool = true;

    fn of(chunk: TunnelChunk) -> Option<Self> {
        use exec_response::What;
        let what = match chunk {
            TunnelChunk {
                exit_code: Some(code),
                ..
            } => What::ExitCode(code),
            TunnelChunk { begun, data, .. } if begun || data.is_empty() => What::Started(begun),
            TunnelChunk {
                channel: 2, data, ..
            } => What::Stderr(data),
            TunnelChunk { data, .. } => What::Stdout(data),
        };
        Some(Self { what: Some(what) })
    }

    fn is_last(&self) -> bool {
        matches!(self.what, Some(exec_response::What::ExitCode(_)))
    }
}

impl Reply for ExecResponse {
    fn is_taken(&self) -> bool {
        self.what == Some(exec_response::What::Started(false))
    }
}

impl Input for PortForwardRequest {
    type Answer = PortForwardResponse;

    async fn call(
        channel: Channel,
        request: Request<ReceiverStream<Self>>,
    ) -> Result<Response<Streaming<PortForwardResponse>>, Status> {
        PodStreamsClient::new(channel).port_forward(request).await
    }

    fn chunk(self) -> Result<TunnelChunk, ApiError> {
        use port_forward_request::What;
        let mut chunk = TunnelChunk::default();
        match self.what {
            Some(What::Start(_)) => return Err(second_start()),
            Some(What::Data(data)) => chunk.data = checked_piece("data", data)?,
            Some(What::End(end)) => chunk.end = end,
            // Of a later version.
            None => {}
        }
        Ok(chunk)
    }

    fn end() -> Self {
        Self {
            what: Some(port_forward_request::What::End(true)),
        }
    }
}

impl Answer for PortForwardResponse {
    const HAS_END: bool = true;

    fn of(chunk: TunnelChunk) -> Option<Self> {
        use port_forward_response::What;
        let what = match chunk {
            TunnelChunk { end: true, .. } => What::End(true),
            TunnelChunk { begun, data, .. } if begun || data.is_empty() => What::Connected(begun),
            TunnelChunk { data, .. } => What::Data(data),
        };
        Some(Self { what: Some(what) })
    }

    fn is_end(&self) -> bool {
        matches!(self.what, Some(port_forward_response::What::End(_)))
    }
}

impl Reply for PortForwardResponse {
    fn is_taken(&self) -> bool {
        self.what == Some(port_forward_response::What::Connected(false))
    }
}

/// Refuses a stream that does not say what it is about.
pub fn no_start() -> ApiError {
    ApiError::invalid(
        "start",
        "the first message of the stream has to be this one",
    )
}

fn second_start() -> ApiError {
    ApiError::invalid("start", "it comes once, as the first message of the stream")
}

/// Refuses programs without a name, and impossible terminals.
pub fn check_exec(start: &ExecStart) -> Result<(), ApiError> {
    if start.command.first().is_none_or(String::is_empty) {
        let rule = "it has to name a program to run in the container";
        return Err(ApiError::invalid("start.command", rule));
    }
    check_size(start.size.as_ref(), "start.size")
}

/// Refuses what is no port.
pub fn check_port(start: &PortForwardStart) -> Result<(), ApiError> {
    match start.port {
        1..=65535 => Ok(()),
        port => {
            let rule = format!("{port} is no port: they are 1 to 65535");
            Err(ApiError::invalid("start.port", rule))
        }
    }
}

fn check_size(size: Option<&TerminalSize>, field: &str) -> Result<(), ApiError> {
    let most = u32::from(u16::MAX);
    match size {
        Some(size) if size.columns > most || size.rows > most => {
            let rule = format!(
                "no terminal has {} columns and {} rows: at most {most} are possible of each",
                size.columns, size.rows
            );
            Err(ApiError::invalid(field, rule))
        }
        _ => Ok(()),
    }
}

fn checked_piece(field: &str, data: Vec<u8>) -> Result<Vec<u8>, ApiError> {
    match data.len() {
        0..=PIECE => Ok(data),
        bytes => {
            let rule = format!("it has {bytes} bytes, at most {PIECE} are possible in one message");
            Err(ApiError::invalid(field, rule))
        }
    }
}

/// Names the pod in the audit log.
pub fn note(caller: &Caller, namespace: &str, pod: &str) {
    let namespace = match namespace {
        "" => crate::calls::names::DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    caller.concerns.note(|| format!("pod {namespace}/{pod}"));
}
