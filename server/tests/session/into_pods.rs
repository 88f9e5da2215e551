//! Streams into a pod whose agent is connected to another manager, and is played by the test.

use barge_client::{
    channel::{ApiChannel, Bearer, ChannelOptions, channel},
    identity::Identity,
    tls::{ShownRoots, bearer_config},
};
use barge_proto::v1::{
    CreateCredentialRequest, DeleteRequest, ExecRequest, ExecResponse, ExecStart, Kind, OpenStream,
    PortForwardRequest, PortForwardStart, RoleBinding, RoleRef, Subject, TerminalSize, TunnelChunk,
    api_client::ApiClient, credentials_client::CredentialsClient, exec_request,
    exec_response::What as Heard, manager_message::Message as ToAgent, open_stream,
    pod_streams_client::PodStreamsClient, port_forward_request, port_forward_response,
    session_client::SessionClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming, service::interceptor::InterceptedService, transport::Channel,
};
use tonic_types::StatusExt;

use super::parties::*;

/// The agent's end of a stream.
struct Far {
    tell: mpsc::Sender<TunnelChunk>,
    told: Streaming<TunnelChunk>,
}

/// Takes the next stream that is asked for, and dials back.
async fn take(agent: &mut Agent, manager: &Channel) -> (open_stream::What, Far) {
    let OpenStream { stream_id, what } = loop {
        if let ToAgent::OpenStream(open) = agent.next().await.unwrap() {
            break open;
        }
    };
    let (tell, chunks) = mpsc::channel(1);
    let named = TunnelChunk {
        stream_id,
        ..TunnelChunk::default()
    };
    tell.send(named).await.unwrap();
    let mut agent = SessionClient::new(manager.clone());
    let told = agent.tunnel(ReceiverStream::new(chunks));
    let told = told.await.unwrap().into_inner();
    (what.unwrap(), Far { tell, told })
}

impl Far {
    async fn says(&self, chunk: TunnelChunk) {
        self.tell.send(chunk).await.unwrap();
    }

    async fn hears(&mut self) -> Option<TunnelChunk> {
        let next = timeout(PATIENCE, self.told.message()).await;
        next.expect("a chunk, or the end").unwrap_or(None)
    }
}

fn out(text: &str) -> TunnelChunk {
    TunnelChunk {
        data: text.into(),
        channel: 1,
        ..TunnelChunk::default()
    }
}

fn begun() -> TunnelChunk {
    TunnelChunk {
        begun: true,
        ..TunnelChunk::default()
    }
}

fn ended(code: i32, error: &str) -> TunnelChunk {
    TunnelChunk {
        exit_code: Some(code),
        error: error.to_owned(),
        ..TunnelChunk::default()
    }
}

fn start(pod: &str, command: &[&str]) -> exec_request::What {
    exec_request::What::Start(ExecStart {
        pod: pod.to_owned(),
        command: command.iter().map(|it| (*it).to_owned()).collect(),
        stdin: true,
        ..ExecStart::default()
    })
}

fn asks(what: exec_request::What) -> ExecRequest {
    ExecRequest { what: Some(what) }
}

/// The client's end of a program's stream.
struct Client {
    say: mpsc::Sender<ExecRequest>,
    hear: Streaming<ExecResponse>,
}

impl Client {
    async fn hears(&mut self) -> Result<Option<Heard>, Status> {
        let next = timeout(PATIENCE, self.hear.message()).await;
        let next = next.expect("an answer, or the end")?;
        Ok(next.map(|answer| answer.what.unwrap()))
    }
}

fn bare(channel: &Channel) -> ApiChannel {
    InterceptedService::new(channel.clone(), Bearer::default())
}

async fn exec(manager: ApiChannel, first: exec_request::What) -> Result<Client, Status> {
    let (say, said) = mpsc::channel(1);
    say.send(asks(first)).await.unwrap();
    let mut client = PodStreamsClient::new(manager);
    let hear = client.exec(ReceiverStream::new(said)).await?.into_inner();
    Ok(Client { say, hear })
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or(String::new(), |info| info.reason)
}

/// The pod "one" runs at the agent, which is connected to `near`; the client asks `far_off`.
pub async fn streams_into_pods(
    (far_off, near): (&Channel, &Channel),
    agent: &mut Agent,
    (address, admin): (&str, &Identity),
    pod_uid: &str,
) {
    a_conversation(far_off, near, agent, pod_uid).await;
    refusals(far_off, near, agent).await;
    one_who_does_not_read(far_off, near, agent).await;
    one_who_goes(far_off, near, agent).await;
    a_connection(far_off, near, agent).await;
    rights(far_off, near, agent, (address, admin)).await;
}

async fn a_conversation(far_off: &Channel, near: &Channel, agent: &mut Agent, pod_uid: &str) {
    let asked = tokio::spawn(exec(bare(far_off), start("one", &["cat", "-"])));
    let (what, mut far) = take(agent, near).await;
    let open_stream::What::Exec(options) = what else {
        panic!("{what:?}");
    };
    assert_eq!((&*options.pod_uid, &*options.container), (pod_uid, "main"));
    assert_eq!(options.command, ["cat", "-"]);
    assert!(options.stdin && !options.tty);
    let mut client = asked.await.unwrap().unwrap();
    far.says(begun()).await;
    assert_eq!(client.hears().await.unwrap(), Some(Heard::Started(true)));
    let size = TerminalSize {
        columns: 80,
        rows: 24,
    };
    for said in [
        exec_request::What::Stdin(b"hello".to_vec()),
        exec_request::What::Size(size),
        exec_request::What::Signal(15),
    ] {
        client.say.send(asks(said)).await.unwrap();
    }
    assert_eq!(far.hears().await.unwrap().data, b"hello");
    assert_eq!(far.hears().await.unwrap().size, Some(size));
    assert_eq!(far.hears().await.unwrap().signal, 15);
    // The end of the client's half is the end of the input, and not of the stream.
    let Client { say, hear } = client;
    drop(say);
    assert!(far.hears().await.unwrap().end);
    let (say, _nobody) = mpsc::channel(1);
    let mut client = Client { say, hear };
    far.says(out("hello")).await;
    let two = TunnelChunk {
        channel: 2,
        ..out("no")
    };
    far.says(two).await;
    far.says(ended(3, "")).await;
    let heard = client.hears().await.unwrap();
    assert_eq!(heard, Some(Heard::Stdout(b"hello".to_vec())));
    let heard = client.hears().await.unwrap();
    assert_eq!(heard, Some(Heard::Stderr(b"no".to_vec())));
    assert_eq!(client.hears().await.unwrap(), Some(Heard::ExitCode(3)));
    assert_eq!(client.hears().await.unwrap(), None);
    assert_eq!(far.hears().await, None);
}

async fn refusals(far_off: &Channel, near: &Channel, agent: &mut Agent) {
    for (first, word, why) in [
        (start("two", &["sh"]), "NOT_FOUND", "default/two"),
        (start("one", &[]), "INVALID", "start.command"),
        (exec_request::What::Signal(1), "INVALID", "start"),
    ] {
        let refused = exec(bare(far_off), first).await.err().unwrap();
        assert_eq!(reason(&refused), word, "{refused}");
        assert!(refused.message().contains(why), "{refused}");
    }
    for (last, word) in [
        (ended(127, "\"nope\" was not found"), "PROGRAM_NOT_FOUND"),
        (ended(126, "\"/etc\" is none"), "PROGRAM_NOT_EXECUTABLE"),
    ] {
        let asked = tokio::spawn(exec(bare(far_off), start("one", &["nope"])));
        let (_, far) = take(agent, near).await;
        let mut client = asked.await.unwrap().unwrap();
        let error = last.error.clone();
        far.says(last).await;
        let failed = client.hears().await.unwrap_err();
        assert_eq!((&*reason(&failed), failed.message()), (word, &*error));
    }
    // What is wrong in the middle ends the stream, and the program.
    let asked = tokio::spawn(exec(bare(far_off), start("one", &["sh"])));
    let (_, mut far) = take(agent, near).await;
    let mut client = asked.await.unwrap().unwrap();
    client
        .say
        .send(asks(exec_request::What::Signal(65)))
        .await
        .unwrap();
    let failed = client.hears().await.unwrap_err();
    assert_eq!(reason(&failed), "INVALID", "{failed}");
    assert_eq!(far.hears().await, None);
}

async fn one_who_does_not_read(far_off: &Channel, near: &Channel, agent: &mut Agent) {
    const MOST: usize = 32 << 20;
    let asked = tokio::spawn(exec(bare(far_off), start("one", &["yes"])));
    let (_, far) = take(agent, near).await;
    let client = asked.await.unwrap().unwrap();
    let piece = "y".repeat(64 << 10);
    let mut bytes = 0;
    // It stands still at what two hops may hold.
    while timeout(std::time::Duration::from_secs(2), far.says(out(&piece)))
        .await
        .is_ok()
    {
        bytes += piece.len();
        assert!(bytes < MOST, "somebody keeps what nobody reads");
    }
    // Nobody else notices.
    a_program(far_off, near, agent).await;
    drop(client);
}

/// Another program runs as ever.
async fn a_program(far_off: &Channel, near: &Channel, agent: &mut Agent) {
    let asked = tokio::spawn(exec(bare(far_off), start("one", &["true"])));
    let (_, far) = take(agent, near).await;
    let mut client = asked.await.unwrap().unwrap();
    far.says(ended(0, "")).await;
    assert_eq!(client.hears().await.unwrap(), Some(Heard::ExitCode(0)));
}

async fn one_who_goes(far_off: &Channel, near: &Channel, agent: &mut Agent) {
    let asked = tokio::spawn(exec(bare(far_off), start("one", &["sleep"])));
    let (_, mut far) = take(agent, near).await;
    let client = asked.await.unwrap().unwrap();
    far.says(begun()).await;
    drop(client);
    // Its half may end first, which alone is the end of the input.
    while let Some(chunk) = far.hears().await {
        assert!(chunk.end, "{chunk:?}");
    }
    // An agent that goes is no exit code.
    let asked = tokio::spawn(exec(bare(far_off), start("one", &["sleep"])));
    let (_, far) = take(agent, near).await;
    let mut client = asked.await.unwrap().unwrap();
    drop(far);
    let broken = client.hears().await.unwrap_err();
    assert_eq!(broken.code(), Code::Unavailable, "{broken}");
}

async fn a_connection(far_off: &Channel, near: &Channel, agent: &mut Agent) {
    use port_forward_request::What as Said;
    use port_forward_response::What as Heard;
    let start = |port| {
        let pod = "one".to_owned();
        Said::Start(PortForwardStart {
            pod,
            port,
            ..PortForwardStart::default()
        })
    };
    let connect = async |what| {
        let (say, said) = mpsc::channel(8);
        let first = PortForwardRequest { what: Some(what) };
        say.send(first).await.unwrap();
        let mut client = PodStreamsClient::new(far_off.clone());
        let heard = client.port_forward(ReceiverStream::new(said)).await?;
        Ok::<_, Status>((say, heard.into_inner()))
    };
    let refused = connect(start(65536)).await.err().unwrap();
    assert_eq!(reason(&refused), "INVALID", "{refused}");
    let (connected, (what, mut far)) = tokio::join!(connect(start(80)), take(agent, near));
    let (say, mut hear) = connected.unwrap();
    let open_stream::What::Forward(options) = what else {
        panic!("{what:?}");
    };
    assert_eq!(options.port, 80);
    far.says(begun()).await;
    for what in [Said::Data(b"question".to_vec()), Said::End(true)] {
        say.send(PortForwardRequest { what: Some(what) })
            .await
            .unwrap();
    }
    assert_eq!(far.hears().await.unwrap().data, b"question");
    assert!(far.hears().await.unwrap().end);
    far.says(out("answer")).await;
    let end = TunnelChunk {
        end: true,
        ..TunnelChunk::default()
    };
    far.says(end).await;
    let Far { tell, mut told } = far;
    drop(tell);
    let mut heard = Vec::new();
    while let Some(answer) = timeout(PATIENCE, hear.message()).await.unwrap().unwrap() {
        heard.push(answer.what.unwrap());
    }
    let all = [
        Heard::Connected(true),
        Heard::Data(b"answer".to_vec()),
        Heard::End(true),
    ];
    assert_eq!(heard, all);
    assert_eq!(told.message().await.unwrap_or(None), None);
    // An agent that goes is no end.
    let (connected, (_, far)) = tokio::join!(connect(start(80)), take(agent, near));
    let (_say, mut hear) = connected.unwrap();
    drop(far);
    let broken = timeout(PATIENCE, hear.message()).await.unwrap();
    assert_eq!(broken.unwrap_err().code(), Code::Unavailable);
}

/// Who may edit pods may get into them, who may look at them may not, and a right that ends ends the stream.
async fn rights(
    far_off: &Channel,
    near: &Channel,
    agent: &mut Agent,
    (address, admin): (&str, &Identity),
) {
    let request = CreateCredentialRequest {
        name: "bob".to_owned(),
        ..CreateCredentialRequest::default()
    };
    let mut credentials = CredentialsClient::new(far_off.clone());
    let made = credentials.create_credential(request);
    let token = made.await.unwrap().into_inner().bearer_token;
    let tls = bearer_config(&admin.roots, ShownRoots::default()).unwrap();
    let bob = channel(address, tls, &ChannelOptions::default()).unwrap();
    let header = format!("Bearer {token}").parse().unwrap();
    let bob = InterceptedService::new(bob, Bearer(Some(header)));
    let bind = async |role: &str| {
        let group = "rbac.authorization.k8s.io".to_owned();
        let binding = RoleBinding {
            metadata: named(role),
            subjects: vec![Subject {
                kind: "User".to_owned(),
                api_group: group.clone(),
                name: "bob".to_owned(),
                ..Subject::default()
            }],
            role_ref: Some(RoleRef {
                api_group: group,
                kind: "ClusterRole".to_owned(),
                name: role.to_owned(),
            }),
            ..RoleBinding::default()
        };
        apply(far_off, vec![binding.into()]).await;
    };
    bind("view").await;
    let refused = exec(bob.clone(), start("one", &["sh"])).await.err();
    let refused = refused.expect("who may look may not run anything");
    assert_eq!(reason(&refused), "DENIED", "{refused}");
    assert!(refused.message().contains("create pods/exec"), "{refused}");
    bind("edit").await;
    let asked = tokio::spawn(exec(bob, start("one", &["sh"])));
    let (_, mut far) = take(agent, near).await;
    let mut client = asked.await.unwrap().unwrap();
    far.says(begun()).await;
    assert_eq!(client.hears().await.unwrap(), Some(Heard::Started(true)));
    let request = DeleteRequest {
        kind: Kind::RoleBinding.into(),
        name: "edit".to_owned(),
        ..DeleteRequest::default()
    };
    let mut api = ApiClient::new(far_off.clone());
    let deleted = api.delete(Request::new(request));
    deleted.await.unwrap();
    let ended = client.hears().await.unwrap_err();
    assert_eq!(reason(&ended), "DENIED", "{ended}");
    assert_eq!(far.hears().await, None);
}
