//! A pod whose programs and ports are this machine's.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex},
};

use barge_client::v1::{
    AttachRequest, ExecRequest, ExecResponse, ExecStart, PortForwardRequest, PortForwardResponse,
    exec_request, exec_response::What, pod_streams_server::PodStreams, port_forward_request,
    port_forward_response,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// What exec does is said by the command:
///
/// * `broken`: writes "half", then its stream breaks;
/// * `silent`: its stream breaks before it is known whether it was started;
/// * `signal`: ends with 128 + N at signal N; `deaf`: takes no notice of signals and reads nothing;
/// * `away`: its node is looking for a manager when it is asked for the first time;
/// * `missing`: cannot be started;
/// * anything else is run here.
#[derive(Clone, Default)]
pub struct Pod(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    starts: Vec<ExecStart>,
    sizes: Vec<(u32, u32)>,
    signals: Vec<u32>,
    /// Connections that its node still refuses.
    refused: u32,
}

impl Pod {
    /// The programs that it was asked to start.
    pub fn starts(&self) -> Vec<ExecStart> {
        self.0.lock().unwrap().starts.clone()
    }

    /// Its node has no place for so many connections that come.
    pub fn refuse(&self, connections: u32) {
        self.0.lock().unwrap().refused = connections;
    }

    /// Connections that its node is still to refuse.
    pub fn refuses(&self) -> u32 {
        self.0.lock().unwrap().refused
    }

    pub fn signals(&self) -> Vec<u32> {
        self.0.lock().unwrap().signals.clone()
    }

    pub fn sizes(&self) -> Vec<(u32, u32)> {
        self.0.lock().unwrap().sizes.clone()
    }
}

type Answers<T> = mpsc::Sender<Result<T, Status>>;

async fn say(to: &Answers<ExecResponse>, what: What) {
    // The client may have gone.
    let _ = to.send(Ok(ExecResponse { what: Some(what) })).await;
}

fn refusal(reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "barge", HashMap::new());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

impl Pod {
    async fn run(
        self,
        start: ExecStart,
        requests: Streaming<ExecRequest>,
        to: Answers<ExecResponse>,
    ) {
        let (program, arguments) = start.command.split_first().unwrap();
        match program.as_str() {
            "missing" => {
                let status = refusal("PROGRAM_NOT_FOUND", "the container has no program");
                let _ = to.send(Err(status)).await;
            }
            "away" => {
                say(&to, What::Started(true)).await;
                say(&to, What::ExitCode(0)).await;
            }
            "silent" => {
                let _ = to.send(Err(Status::unavailable("gone"))).await;
            }
            "broken" => {
                say(&to, What::Started(true)).await;
                say(&to, What::Stdout(b"half".to_vec())).await;
                let _ = to.send(Err(Status::unavailable("gone"))).await;
            }
            "signal" | "deaf" => {
                say(&to, What::Started(true)).await;
                say(&to, What::Stdout(b"ready".to_vec())).await;
                let deaf = program == "deaf";
                let ended = self.listen(requests, None, !deaf).await;
                if let Some(number) = ended {
                    say(&to, What::ExitCode(128 + number.cast_signed())).await;
                }
            }
            _ => {
                let child = Command::new(program)
                    .args(arguments)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn();
                match child {
                    Ok(child) => self.attend(child, start.stdin, requests, to).await,
                    Err(error) => {
                        let _ = to
                            .send(Err(Status::failed_precondition(error.to_string())))
                            .await;
                    }
                }
            }
        }
    }

    async fn attend(
        self,
        mut child: Child,
        stdin: bool,
        requests: Streaming<ExecRequest>,
        to: Answers<ExecResponse>,
    ) {
        say(&to, What::Started(true)).await;
        let (input, out, error) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = input.filter(|_| stdin);
        let listening = tokio::spawn(async move { self.listen(requests, input, false).await });
        tokio::join!(
            relay(out.unwrap(), &to, What::Stdout),
            relay(error.unwrap(), &to, What::Stderr)
        );
        let code = child.wait().await.unwrap().code().unwrap_or(255);
        say(&to, What::ExitCode(code)).await;
        listening.abort();
    }

    /// Until the client goes, or until a signal if that ends it.
    async fn listen(
        &self,
        mut requests: Streaming<ExecRequest>,
        mut input: Option<tokio::process::ChildStdin>,
        ends: bool,
    ) -> Option<u32> {
        while let Ok(Some(request)) = requests.message().await {
            match request.what.unwrap() {
                exec_request::What::Start(_) => panic!("a second start"),
                exec_request::What::Stdin(data) => {
                    assert!(data.len() <= 64 << 10, "{}", data.len());
                    if let Some(input) = &mut input {
                        // It may have ended already.
                        let _ = input.write_all(&data).await;
                    }
                }
                exec_request::What::StdinEnd(_) => input = None,
                exec_request::What::Size(size) => {
                    let size = (size.columns, size.rows);
                    self.0.lock().unwrap().sizes.push(size);
                }
                exec_request::What::Signal(number) => {
                    self.0.lock().unwrap().signals.push(number);
                    if ends {
                        return Some(number);
                    }
                }
            }
        }
        None
    }
}

async fn relay(
    mut from: impl AsyncRead + Unpin,
    to: &Answers<ExecResponse>,
    what: fn(Vec<u8>) -> What,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        say(to, what(buffer[..length].to_vec())).await;
    }
}

#[tonic::async_trait]
impl PodStreams for Pod {
    type ExecStream = ReceiverStream<Result<ExecResponse, Status>>;
    type AttachStream = ReceiverStream<Result<ExecResponse, Status>>;
    type PortForwardStream = ReceiverStream<Result<PortForwardResponse, Status>>;

    async fn exec(
        &self,
        request: Request<Streaming<ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut requests = request.into_inner();
        let Some(exec_request::What::Start(start)) = requests.message().await?.unwrap().what else {
            return Err(Status::invalid_argument("first the start"));
        };
        let first = {
            let mut seen = self.0.lock().unwrap();
            seen.starts.push(start.clone());
            seen.starts.len() == 1
        };
        if first && start.command == ["away"] {
            return Err(refusal("NO_SUCH_SESSION", "the agent is not connected"));
        }
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(self.clone().run(start, requests, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// Writes to both outputs and ends with code 3.
    async fn attach(
        &self,
        _: Request<AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        say(&sender, What::Stdout(b"out".to_vec())).await;
        say(&sender, What::Stderr(b"err".to_vec())).await;
        say(&sender, What::ExitCode(3)).await;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        use port_forward_request::What as Asked;
        use port_forward_response::What as Said;
        let mut requests = request.into_inner();
        let Some(Asked::Start(start)) = requests.message().await?.unwrap().what else {
            return Err(Status::invalid_argument("first the start"));
        };
        if let Some(left) = self.refuses().checked_sub(1) {
            self.refuse(left);
            return Err(refusal("OVERLOADED", "the node has no place"));
        }
        let port = u16::try_from(start.port).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let stream = stream.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let (mut read, mut write) = stream.into_split();
        let (sender, receiver) = mpsc::channel(1);
        let response = |what| Ok(PortForwardResponse { what: Some(what) });
        tokio::spawn(async move {
            let _ = sender.send(response(Said::Connected(true))).await;
            let up = async {
                while let Ok(Some(request)) = requests.message().await {
                    match request.what.unwrap() {
                        Asked::Data(data) => write.write_all(&data).await.unwrap(),
                        _ => break,
                    }
                }
                write.shutdown().await.unwrap();
            };
            let down = async {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(length @ 1..) = read.read(&mut buffer).await {
                    let data = buffer[..length].to_vec();
                    if sender.send(response(Said::Data(data))).await.is_err() {
                        return;
                    }
                }
                let _ = sender.send(response(Said::End(true))).await;
            };
            tokio::join!(up, down);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
