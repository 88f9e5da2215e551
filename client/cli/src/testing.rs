//! A manager for tests, over real TLS on loopback, whose only pod runs programs of this machine.

use std::sync::Arc;

use barge_client::{
    Client, ClientOptions,
    identity::{Identity, role_word},
    tls::{self, SERVER_NAME},
    v1::{Role, pod_streams_server::PodStreamsServer},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::transport::Server;

mod pod;

pub use pod::Pod;

pub struct Fake {
    pub client: Client,
    pub pod: Pod,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start() -> Self {
        let (manager, admin) = identities();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = acceptor(&manager);
        let connections = TcpListenerStream::new(listener)
            .then(move |tcp| {
                let acceptor = acceptor.clone();
                async move { acceptor.accept(tcp?).await }
            })
            .filter(Result::is_ok);
        let pod = Pod::default();
        let served = Server::builder().add_service(PodStreamsServer::new(pod.clone()));
        let task = tokio::spawn(async move {
            served.serve_with_incoming(connections).await.unwrap();
        });
        let client = Client::new(&admin, &[address], ClientOptions::default()).unwrap();
        Self { client, pod, task }
    }
}

fn acceptor(manager: &Identity) -> TlsAcceptor {
    let roots = Arc::new(tls::root_store(&manager.roots).unwrap());
    let clients = WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(manager.presented_chain(), manager.key_der().unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

/// A manager's and an administrator's, of one CA.
fn identities() -> (Identity, Identity) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let issue = |role: Role, names: Vec<String>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        let name = &mut params.distinguished_name;
        name.remove(DnType::CommonName);
        name.push(DnType::OrganizationName, "test-cluster");
        name.push(DnType::OrganizationalUnitName, role_word(role));
        name.push(DnType::CommonName, "a");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
        Identity {
            cluster_id: "test-cluster".into(),
            role,
            uid: "a".into(),
            key: key.serialize_pem(),
            chain: vec![leaf],
            roots: vec![root.clone()],
            members: vec![],
        }
    };
    let manager = issue(Role::Manager, vec![SERVER_NAME.to_owned()]);
    (manager, issue(Role::Admin, vec![]))
}
