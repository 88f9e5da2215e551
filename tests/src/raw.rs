//! Beneath the client library: channels, watches and objects for tests and benchmarks that put a manager under load.

use std::{fs, path::Path};

use anyhow::Context;
use barge_client::{
    channel::{ChannelOptions, channel},
    config::Config,
    pipeline::Pipeline,
    tls,
    v1::{
        ApplyRequest, Kind, Namespace, Object, ObjectMeta, WatchRequest, WatchResponse,
        api_client::ApiClient, object,
    },
};
use rand::{Rng, distr::Alphanumeric};
use tonic::{Status, Streaming, transport::Channel};

/// So many connections to the manager at `address` with the credential in `config`; each connects when it is used.
///
/// # Errors
/// The credential cannot be used.
pub fn channels(config: &Path, address: &str, count: usize) -> anyhow::Result<Vec<Channel>> {
    let config = Config::load(config)?;
    let identity = config.context(None)?.identity()?;
    let tls = tls::client_config(&identity)?;
    (0..count)
        .map(|_| channel(address, tls.clone(), &ChannelOptions::default()).context("connect"))
        .collect()
}

/// So many random letters and digits: no compression makes much of them.
#[must_use]
pub fn random(bytes: usize) -> String {
    let letters = rand::rng().sample_iter(Alphanumeric);
    letters.take(bytes).map(char::from).collect()
}

/// So many bytes of a manifest: what manifests have in common, and names, numbers, a digest and a checksum of its own. Cut, or filled up
/// with random letters.
#[must_use]
pub fn manifest(bytes: usize) -> String {
    let (name, team) = (random(10), random(6));
    let (image, config) = (digest(), digest());
    let mut rng = rand::rng();
    let (replicas, port) = (rng.random_range(1..20), rng.random_range(1024..65536));
    let (cpu, memory) = (rng.random_range(10..900), rng.random_range(16..900));
    let version: [u8; 3] = rng.random();
    let [major, minor, patch] = version;
    let mut text = format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{name}","namespace":"{team}","labels":{{"app.kubernetes.io/name":"{name}","app.kubernetes.io/version":"{major}.{minor}.{patch}"}}}},"spec":{{"replicas":{replicas},"selector":{{"matchLabels":{{"app.kubernetes.io/name":"{name}"}}}},"template":{{"metadata":{{"labels":{{"app.kubernetes.io/name":"{name}"}},"annotations":{{"checksum/config":"{config}"}}}},"spec":{{"containers":[{{"name":"{name}","image":"registry.example/{team}/{name}@sha256:{image}","ports":[{{"containerPort":{port}}}],"resources":{{"requests":{{"cpu":"{cpu}m","memory":"{memory}Mi"}},"limits":{{"memory":"{memory}Mi"}}}},"readinessProbe":{{"httpGet":{{"path":"/healthz","port":{port}}},"periodSeconds":5}},"env":[{{"name":"DATABASE","value":"postgres://db-{team}:5432/{name}"}},{{"name":"TOKEN","valueFrom":{{"secretKeyRef":{{"name":"{name}","key":"token"}}}}}}]}}]}}}}}}}}"#
    );
    let missing = bytes.saturating_sub(text.len());
    text.push_str(&random(missing));
    text.truncate(bytes);
    text
}

fn digest() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A namespace with this in an annotation.
#[must_use]
pub fn namespace(name: &str, value: impl Into<String>) -> Object {
    let value = value.into();
    let annotations = match value.is_empty() {
        true => Default::default(),
        false => [("value".to_owned(), value)].into(),
    };
    let namespace = Namespace {
        metadata: Some(ObjectMeta {
            name: name.to_owned(),
            annotations,
            ..Default::default()
        }),
        ..Default::default()
    };
    Object {
        kind: Some(object::Kind::Namespace(namespace)),
    }
}

/// One request to apply objects, sent once.
///
/// # Errors
/// The manager's.
pub async fn apply(channel: Channel, objects: Vec<Object>) -> Result<(), Status> {
    let request = ApplyRequest {
        objects,
        omit_objects: true,
        ..Default::default()
    };
    let mut api = ApiClient::new(channel);
    api.apply(request).await.map(drop)
}

/// One request to apply objects, sent once over a stream with others.
///
/// # Errors
/// The manager's.
pub async fn apply_pipelined(pipeline: Pipeline, objects: Vec<Object>) -> Result<(), Status> {
    let request = ApplyRequest {
        objects,
        omit_objects: true,
        ..Default::default()
    };
    pipeline.apply(request).await.map(drop)
}

/// Watches the objects of a kind in a namespace, or all, from now on; its first message has arrived.
///
/// # Errors
/// The manager's.
pub async fn watch(
    channel: Channel,
    kind: Kind,
    namespace: &str,
) -> Result<Streaming<WatchResponse>, Status> {
    let request = WatchRequest {
        kind: kind.into(),
        namespace: namespace.to_owned(),
        ..Default::default()
    };
    let mut stream = ApiClient::new(channel).watch(request).await?.into_inner();
    // The bookmark that says where now is.
    stream.message().await?;
    Ok(stream)
}

/// Proportional set size of a process in MB.
///
/// # Errors
/// There is no such process.
pub fn pss(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .context("read a process's memory")?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .context("a line with the PSS")?;
    let kilobytes: f64 = line
        .split_whitespace()
        .nth(1)
        .context("a number")?
        .parse()?;
    Ok(kilobytes * 1024.0 / 1_000_000.0)
}
