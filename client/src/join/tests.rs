//! Joining a scripted manager, over real TLS on loopback.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use barge_proto::v1::{
    cluster_server::{Cluster, ClusterServer},
    *,
};
use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, transport::Server};

use super::*;
use crate::test_ca::TestCa;

type Answer = Result<(), Status>;

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    requests: Vec<JoinRequest>,
}

struct Manager {
    ca: Arc<TestCa>,
    script: Arc<Mutex<Script>>,
}

impl Manager {
    /// Listens and answers; the last word is "joined".
    async fn start(ca: &Arc<TestCa>, answers: Vec<Answer>) -> (String, Arc<Mutex<Script>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let identity = ca.issue(Role::Manager, "m");
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.presented_chain(), identity.key_der().unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let script = Arc::new(Mutex::new(Script {
            answers: answers.into(),
            ..Script::default()
        }));
        let service = ClusterServer::new(Self {
            ca: ca.clone(),
            script: script.clone(),
        });
        let connections = tokio_stream::wrappers::TcpListenerStream::new(listener)
            .then(move |tcp| {
                let acceptor = acceptor.clone();
                async move { acceptor.accept(tcp?).await }
            })
            .filter(Result::is_ok);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(connections),
        );
        (address, script)
    }
}

#[tonic::async_trait]
impl Cluster for Manager {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        let answer = {
            let mut script = self.script.lock().unwrap();
            script.requests.push(request.clone());
            script.answers.pop_front().unwrap_or(Ok(()))
        };
        answer?;
        let csr = CertificateSigningRequestParams::from_der(&request.csr.into()).unwrap();
        Ok(Response::new(JoinResponse {
            cluster_id: "test-cluster".into(),
            role: Role::Agent.into(),
            uid: "u".into(),
            certificate_chain: vec![self.ca.sign(Role::Agent, "u", &csr.public_key).to_vec()],
            roots: vec![self.ca.root.to_vec()],
            members: vec![Member {
                address: "10.0.0.1:7101".into(),
                ..Member::default()
            }],
            ..JoinResponse::default()
        }))
    }

    async fn rotate_ca(
        &self,
        _: Request<RotateCaRequest>,
    ) -> Result<Response<RotateCaResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn activate(
        &self,
        _: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn set_manager_role(
        &self,
        _: Request<SetManagerRoleRequest>,
    ) -> Result<Response<SetManagerRoleResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_manager_status(
        &self,
        _: Request<GetManagerStatusRequest>,
    ) -> Result<Response<ManagerStatus>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn set_log_level(
        &self,
        _: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn set_backup_schedule(
        &self,
        _: Request<SetBackupScheduleRequest>,
    ) -> Result<Response<SetBackupScheduleResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn lock(&self, _: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn unlock(&self, _: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn forget_lock(
        &self,
        _: Request<ForgetLockRequest>,
    ) -> Result<Response<ForgetLockResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    type BackupStream = tokio_stream::Empty<Result<BackupChunk, Status>>;
    async fn backup(
        &self,
        _: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn create_token(
        &self,
        _: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_tokens(
        &self,
        _: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn revoke_token(
        &self,
        _: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn options(ca: &TestCa, managers: Vec<String>, dir: &Path) -> JoinOptions {
    JoinOptions {
        feature_level: 0,
        managers,
        token: Token {
            ca_digest: token::ca_digest(&ca.root),
            id: "id".into(),
            secret: "secret".into(),
        },
        dir: dir.to_owned(),
        address: "10.0.0.9".into(),
        name: "node-1".into(),
        deadline: Duration::from_secs(20),
        previous: None,
    }
}

fn public_key(request: &JoinRequest) -> Vec<u8> {
    let csr = CertificateSigningRequestParams::from_der(&request.csr.clone().into()).unwrap();
    csr.public_key.der_bytes().to_vec()
}

#[tokio::test]
async fn a_repeated_join_brings_the_same_key() {
    let (ca, dir) = (Arc::new(TestCa::new()), tempfile::tempdir().unwrap());
    let answers = vec![Err(Status::unavailable("no leader"))];
    let (address, script) = Manager::start(&ca, answers).await;
    let options = options(&ca, vec![address], dir.path());
    let joined = join(&options).await.unwrap();
    assert_eq!(
        (joined.identity.uid.as_str(), joined.identity.role),
        ("u", Role::Agent)
    );
    assert_eq!(joined.identity.members, ["10.0.0.1:7101"]);
    // A process that died before it saved the identity begins anew, with the key it left.
    join(&options).await.unwrap();
    let requests = script.lock().unwrap().requests.clone();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0].token, "id-secret");
    assert!(
        requests
            .iter()
            .all(|request| public_key(request) == public_key(&requests[0]))
    );
    joined.identity.save(dir.path()).unwrap();
    let loaded = Identity::load(dir.path()).unwrap();
    assert_eq!(loaded, Some(joined.identity));
}

#[tokio::test]
async fn a_refused_token_is_final() {
    let (ca, dir) = (Arc::new(TestCa::new()), tempfile::tempdir().unwrap());
    let answers = vec![Err(Status::unauthenticated("the token has expired"))];
    let (address, script) = Manager::start(&ca, answers).await;
    let error = join(&options(&ca, vec![address], dir.path()))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("refused") && text.contains("has expired"),
        "{text}"
    );
    assert_eq!(script.lock().unwrap().requests.len(), 1);
}

#[tokio::test]
async fn another_cluster_never_sees_the_secret() {
    let (ca, dir) = (TestCa::new(), tempfile::tempdir().unwrap());
    let (address, script) = Manager::start(&Arc::new(TestCa::new()), vec![]).await;
    let error = join(&options(&ca, vec![address.clone()], dir.path()))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, JoinError::AnotherCluster { .. }), "{text}");
    assert!(
        text.contains(&address) && text.contains("another cluster's CA"),
        "{text}"
    );
    assert!(script.lock().unwrap().requests.is_empty());
}
