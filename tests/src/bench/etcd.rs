//! etcd as a peer: three members with TLS on loopback, and the calls that the benchmarks make.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;

use crate::{managers::run, wait::eventually};

/// A cluster of three members; ended when dropped.
pub struct Etcd {
    dir: TempDir,
    members: Vec<Child>,
    base: u16,
}

/// etcdserverpb.PutRequest, as far as it is used (etcd's api/etcdserverpb/rpc.proto).
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// etcdserverpb.RangeRequest, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// mvccpb.KeyValue, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes, tag = "5")]
    value: Vec<u8>,
}

impl Etcd {
    /// Starts three members on free ports.
    ///
    /// # Errors
    /// When etcd is not installed or certificates cannot be made.
    pub fn start() -> anyhow::Result<Self> {
        let mut etcd = Self::prepare()?;
        for index in 0..3 {
            etcd.spawn(index, 3)?;
        }
        Ok(etcd)
    }

    /// A folder with certificates, without members.
    ///
    /// # Errors
    /// When certificates cannot be made.
    pub fn prepare() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("barge-etcd-").tempdir()?;
        certificates(dir.path())?;
        let base = 20_000 + (std::process::id() % 2000) as u16 * 8;
        Ok(Self {
            dir,
            members: Vec::new(),
            base,
        })
    }

    /// Starts a member of so many; again with its data if it was there before.
    ///
    /// # Errors
    /// When etcd is not installed.
    pub fn spawn(&mut self, index: u16, count: u16) -> anyhow::Result<()> {
        let peers: Vec<_> = (0..count)
            .map(|index| format!("m{index}=https://127.0.0.1:{}", self.peer_port(index)))
            .collect();
        let mut member = self.member(index, &peers.join(","));
        self.members.push(member.spawn().context("start etcd")?);
        Ok(())
    }

    /// SIGTERM to all members, and their end.
    pub fn stop(&mut self) {
        for mut member in self.members.drain(..) {
            run(&["kill", "-TERM", &member.id().to_string()]);
            let _ = member.wait();
        }
    }

    fn client_port(&self, index: u16) -> u16 {
        self.base + index * 2
    }
    fn peer_port(&self, index: u16) -> u16 {
        self.base + index * 2 + 1
    }

    fn member(&self, index: u16, peers: &str) -> Command {
        let file = |name: &str| self.dir.path().join(name);
        let (client, peer) = (
            format!("https://127.0.0.1:{}", self.client_port(index)),
            format!("https://127.0.0.1:{}", self.peer_port(index)),
        );
        let mut command = Command::new("etcd");
        command.args([
            "--name",
            &format!("m{index}"),
            "--initial-cluster",
            peers,
            "--log-level",
            "error",
        ]);
        command
            .arg("--data-dir")
            .arg(file(&format!("data-{index}")));
        command.args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        command.args(["--client-cert-auth", "--peer-client-cert-auth"]);
        for prefix in ["", "peer-"] {
            command
                .arg(format!("--{prefix}cert-file"))
                .arg(file("cert.pem"));
            command
                .arg(format!("--{prefix}key-file"))
                .arg(file("key.pem"));
            command
                .arg(format!("--{prefix}trusted-ca-file"))
                .arg(file("ca.pem"));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// A connection to one member, once it takes writes.
    ///
    /// # Errors
    /// When the certificates cannot be read.
    pub async fn connect(&self, index: u16) -> anyhow::Result<Channel> {
        let read = |name: &str| fs::read(self.dir.path().join(name));
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")?))
            .identity(Identity::from_pem(read("cert.pem")?, read("key.pem")?))
            .domain_name("localhost");
        let address = format!("https://127.0.0.1:{}", self.client_port(index));
        Ok(Endpoint::from_shared(address)?
            .timeout(Duration::from_secs(10))
            .tls_config(tls)?
            .connect_lazy())
    }

    /// Waits until a write succeeds.
    pub fn wait(&self, runtime: &tokio::runtime::Runtime) {
        eventually("etcd takes writes", || {
            runtime.block_on(async {
                let channel = self.connect(0).await.map_err(|error| error.to_string())?;
                put(&channel, b"ready".to_vec(), Vec::new())
                    .await
                    .map_err(|error| error.to_string())
            })
        });
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// One durable write.
///
/// # Errors
/// etcd's.
pub async fn put(channel: &Channel, key: Vec<u8>, value: Vec<u8>) -> Result<(), tonic::Status> {
    let _: PutResponse = call(channel, "/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
    Ok(())
}

/// One read of a value that is there: linearizable, or of what the member has.
///
/// # Errors
/// etcd's; NOT_FOUND.
pub async fn get(channel: &Channel, key: Vec<u8>, serializable: bool) -> Result<(), tonic::Status> {
    let request = RangeRequest { key, serializable };
    let found: RangeResponse = call(channel, "/etcdserverpb.KV/Range", request).await?;
    match found.kvs.first() {
        Some(found) if !found.value.is_empty() => Ok(()),
        _ => Err(tonic::Status::not_found("the value is not there")),
    }
}

async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready()
        .await
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let path = PathAndQuery::from_static(path);
    let answer = grpc
        .unary(tonic::Request::new(request), path, codec)
        .await?;
    Ok(answer.into_inner())
}

fn certificates(folder: &Path) -> anyhow::Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "bench");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
    leaf.subject_alt_names
        .push(SanType::IpAddress([127, 0, 0, 1].into()));
    let certificate = leaf.signed_by(&key, &issuer)?;
    fs::write(folder.join("ca.pem"), ca_certificate.pem())?;
    fs::write(folder.join("cert.pem"), certificate.pem())?;
    fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok(())
}
