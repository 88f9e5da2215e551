//! Each way to ask, against servers on this machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use barge_proto::v1::HttpHeader;
use reqwest::Url;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::{clock::TokioClock, testing::Scripted};

const SHORT: Duration = Duration::from_millis(300);
/// What answers at once has so long.
const LONG: Duration = Duration::from_secs(20);

async fn ask(target: Target, within: Duration) -> Finding {
    let runtime = Scripted::new(Arc::new(TokioClock::starting_at(0)));
    attempt(&*runtime, "id", &target, within).await
}

/// Answers each connection with this, and keeps it open; the requests are sent on.
async fn server(answer: impl Into<Vec<u8>>) -> (u16, Requests, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    let answer = answer.into();
    let serving: JoinHandle<()> = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(&answer).await;
            open.push(stream);
        }
    });
    (port, requests, AbortOnDropHandle::new(serving))
}

type Requests = tokio::sync::mpsc::UnboundedReceiver<String>;

fn http(port: u16, path: &str) -> Target {
    Target::Http {
        url: Url::parse(&format!("http://127.0.0.1:{port}{path}")).unwrap(),
        headers: vec![],
    }
}

fn failure(finding: Finding) -> String {
    match finding {
        Finding::Failure(why) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn http_statuses_from_200_to_399_are_success() {
    for (status, good) in [(200, true), (204, true), (304, true), (399, true)]
        .into_iter()
        .chain([(400, false), (404, false), (503, false)])
    {
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        let (port, _requests, _serving) = server(answer).await;
        let finding = ask(http(port, "/"), LONG).await;
        assert_eq!(finding == Finding::Success, good, "{status}: {finding:?}");
    }
    let answer = "HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nno memory";
    let (port, _requests, _serving) = server(answer).await;
    let why = failure(ask(http(port, "/live"), LONG).await);
    assert_eq!(
        why,
        format!("HTTP status 500 from http://127.0.0.1:{port}/live: no memory")
    );
}

#[tokio::test]
async fn headers_are_sent_as_the_spec_has_them() {
    let header = |name: &str, value: &str| HttpHeader {
        name: name.into(),
        value: value.into(),
    };
    let (port, mut requests, _serving) =
        server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let headers = vec![
        header("Host", "shop.example"),
        header("X-Key", "a"),
        header("X-Key", "b"),
        header("Accept", ""),
    ];
    let url = Url::parse(&format!("http://127.0.0.1:{port}/a?b=c")).unwrap();
    ask(Target::Http { url, headers }, LONG).await;
    let request = requests.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get /a?b=c http/1.1\r\n"), "{request}");
    for line in [
        "host: shop.example",
        "x-key: a",
        "x-key: b",
        "connection: close",
    ] {
        assert!(
            request.contains(&format!("{line}\r\n")),
            "{line}: {request}"
        );
    }
    assert!(request.contains("user-agent: barge-probe/") && !request.contains("accept:"));
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let (there, mut asked, _serving) = server("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n").await;
    let to = |place: String| {
        format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n")
    };
    let (port, _requests, _serving) = server(to(format!("http://127.0.0.1:{there}/x"))).await;
    let why = failure(ask(http(port, "/"), LONG).await);
    assert!(why.contains(&format!("{there}/x")), "{why}");
    asked.recv().await.unwrap();
    let (port, _requests, _serving) = server(to(format!("http://localhost:{there}/x"))).await;
    let finding = ask(http(port, "/"), LONG).await;
    assert!(matches!(finding, Finding::Warning(_)), "{finding:?}");
    assert!(asked.try_recv().is_err(), "another host is not asked");
    let (port, mut requests, _serving) = server(to("/again".to_owned())).await;
    let why = failure(ask(http(port, "/"), LONG).await);
    assert!(why.contains("redirects"), "{why}");
    let mut times = 0;
    while requests.try_recv().is_ok() {
        times += 1;
    }
    assert_eq!(times, 11);
}

#[tokio::test]
async fn what_does_not_answer_fails_by_the_deadline_and_what_never_ends_is_cut() {
    let (port, _requests, _serving) = server("").await;
    assert_eq!(
        failure(ask(http(port, "/"), SHORT).await),
        "no answer within 300ms"
    );
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
    let (port, _requests, _serving) = server(half).await;
    assert_eq!(
        failure(ask(http(port, "/"), SHORT).await),
        "no answer within 300ms"
    );
    let mut endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
    endless.resize(endless.len() + (10 << 10), b'x');
    let (port, _requests, _serving) = server(endless).await;
    assert_eq!(
        ask(http(port, "/"), LONG).await,
        Finding::Success,
        "10 KiB are enough"
    );
    let (port, _requests, _serving) = server("SSH-2.0-x\r\n").await;
    assert!(failure(ask(http(port, "/"), LONG).await).starts_with("no HTTP answer"));
}

#[tokio::test]
async fn tcp_asks_whether_a_connection_opens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = "127.0.0.1".to_owned();
    let target = Target::Tcp { host, port };
    assert_eq!(ask(target.clone(), LONG).await, Finding::Success);
    drop(listener);
    let why = failure(ask(target, LONG).await);
    assert!(why.contains("refused"), "{why}");
    let host = "localhost".to_owned();
    let why = failure(ask(Target::Tcp { host, port }, LONG).await);
    assert!(why.contains("refused"), "by name: {why}");
}

#[tokio::test]
async fn https_takes_every_certificate() {
    let key = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let unreadable =
        rustls::pki_types::CertificateDer::from(b"no certificate of any version".to_vec());
    for certificate in [key.cert.der().clone(), unreadable] {
        assert_eq!(
            asked_by_https(&key.signing_key, certificate).await,
            Finding::Success
        );
    }
}

/// What a probe finds at a server with this certificate.
async fn asked_by_https(
    key: &rcgen::KeyPair,
    certificate: rustls::pki_types::CertificateDer<'static>,
) -> Finding {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = key.serialize_der().try_into().unwrap();
    let private = provider.key_provider.load_private_key(private).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate], private);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.shutdown().await;
    }));
    let url = Url::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
    let headers = vec![];
    ask(Target::Http { url, headers }, LONG).await
}

#[tokio::test]
async fn grpc_asks_the_health_service() {
    use tonic_health::ServingStatus;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("shop", ServingStatus::NotServing)
        .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(health);
    let _serving = AbortOnDropHandle::new(tokio::spawn(server.serve_with_incoming(incoming)));
    let target = |service: &str| Target::Grpc {
        host: "127.0.0.1".to_owned(),
        port,
        service: service.to_owned(),
    };
    assert_eq!(ask(target(""), LONG).await, Finding::Success);
    let why = failure(ask(target("shop"), LONG).await);
    assert!(why.ends_with("says NOT_SERVING"), "{why}");
    reporter
        .set_service_status("shop", ServingStatus::Serving)
        .await;
    assert_eq!(ask(target("shop"), LONG).await, Finding::Success);
    let why = failure(ask(target("other"), LONG).await);
    assert!(why.contains("NotFound"), "{why}");
    let (port, _requests, _serving) = self::server("HTTP/1.1 200 OK\r\n\r\n").await;
    let host = "127.0.0.1".to_owned();
    let service = String::new();
    let finding = ask(
        Target::Grpc {
            host,
            port,
            service,
        },
        SHORT,
    )
    .await;
    assert!(matches!(finding, Finding::Failure(_)), "{finding:?}");
}

#[test]
fn what_the_node_lacks_is_not_the_containers_fault() {
    let error = |errno: nix::errno::Errno| io::Error::from_raw_os_error(errno as i32);
    use nix::errno::Errno;
    for errno in [Errno::EMFILE, Errno::EADDRNOTAVAIL, Errno::ENETUNREACH] {
        assert!(is_ours(&error(errno)), "{errno}");
    }
    for errno in [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ECONNRESET] {
        assert!(!is_ours(&error(errno)), "{errno}");
    }
}
