//! By gRPC's health service.

use std::{error::Error, future::ready, io};

use hyper_util::rt::TokioIo;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::service_fn;

use super::{Finding, Trouble, connect};
use crate::probes::target::authority;

/// Bytes of an answer; a status takes two.
const ANSWER: usize = 10 << 10;

/// Asks how a service is. SERVING is success.
pub async fn check(host: &str, port: u16, service: &str) -> Result<Finding, Trouble> {
    let to = authority(host, port);
    let ours = |error: tonic::transport::Error| Trouble::Ours(format!("{to}: {error}"));
    let endpoint = Endpoint::from_shared(format!("http://{to}")).map_err(ours)?;
    let mut stream = Some(connect(host, port).await?);
    // One connection, of ours: what keeps the node from connecting is told apart there.
    let connector = service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        ready(stream.ok_or(io::Error::from(io::ErrorKind::NotConnected)))
    });
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| {
        let why = error.source().map_or(String::new(), |it| format!(": {it}"));
        Trouble::Theirs(format!("{to} does not speak gRPC{why}"))
    })?;
    let mut client = HealthClient::new(channel).max_decoding_message_size(ANSWER);
    let service = service.to_owned();
    match client.check(HealthCheckRequest { service }).await {
        Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => Ok(Finding::Success),
        Ok(answer) => {
            let status = answer.get_ref().status().as_str_name();
            Err(Trouble::Theirs(format!("{to} says {status}")))
        }
        Err(status) if status.code() == Code::Unimplemented => Err(Trouble::Theirs(format!(
            "{to} does not offer gRPC's health service (grpc.health.v1.Health)"
        ))),
        Err(status) => {
            let (code, message) = (status.code(), status.message());
            Err(Trouble::Theirs(format!("{to} says {code:?}: {message}")))
        }
    }
}
