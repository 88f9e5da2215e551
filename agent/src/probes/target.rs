//! What an attempt of a probe asks, made of a container's spec and its pod's address.

use std::{net::IpAddr, time::Duration};

use barge_proto::v1::{
    Container, HttpGetAction, HttpHeader, IntOrString, Probe, int_or_string::Value,
};
use reqwest::Url;

use super::state::{Kind, Thresholds};

/// How a probe asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// By HTTP or HTTPS.
    Http {
        /// Where.
        url: Url,
        /// Headers in the order of the spec.
        headers: Vec<HttpHeader>,
    },
    /// By opening a connection.
    Tcp {
        /// An address or a name.
        host: String,
        /// The port.
        port: u16,
    },
    /// By gRPC's health service.
    Grpc {
        /// An address.
        host: String,
        /// The port.
        port: u16,
        /// The service that is asked about; empty for the whole server.
        service: String,
    },
    /// By running a program in the container.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// It cannot ask, for this reason.
    None(String),
}

/// A probe of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// How it asks.
    pub target: Target,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// What its results mean.
    pub thresholds: Thresholds,
    /// Between TERM and KILL when it ends the container; `None` for the pod's.
    pub grace: Option<Duration>,
}

/// A probe of the container, if it has it. `ip` is the pod's.
pub fn asked(container: &Container, kind: Kind, ip: Option<IpAddr>) -> Option<Asked> {
    let probe = probe(container, kind)?;
    let ms = |seconds: i32, least: i32| i64::from(seconds.max(least)) * 1000;
    let times = |times: i32| u32::try_from(times.max(1)).unwrap_or(1);
    let or = |value: i32, default: i32| if value == 0 { default } else { value };
    Some(Asked {
        target: target(container, probe, ip).unwrap_or_else(Target::None),
        timeout: Duration::from_secs(u64::from(times(probe.timeout_seconds))),
        thresholds: Thresholds {
            initial_delay_ms: ms(probe.initial_delay_seconds, 0),
            period_ms: ms(or(probe.period_seconds, 10), 1),
            success: times(probe.success_threshold),
            failure: times(or(probe.failure_threshold, 3)),
        },
        grace: probe
            .termination_grace_period_seconds
            .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
    })
}

/// Whether a container has any probe.
pub fn has_probes(container: &Container) -> bool {
    Kind::ALL
        .iter()
        .any(|kind| probe(container, *kind).is_some())
}

fn probe(container: &Container, kind: Kind) -> Option<&Probe> {
    match kind {
        Kind::Startup => container.startup_probe.as_ref(),
        Kind::Readiness => container.readiness_probe.as_ref(),
        Kind::Liveness => container.liveness_probe.as_ref(),
    }
}

fn target(container: &Container, probe: &Probe, ip: Option<IpAddr>) -> Result<Target, String> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone();
        return Ok(Target::Exec { command });
    }
    if let Some(get) = &probe.http_get {
        return http(container, get, ip);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let (host, port) = (host(&tcp.host, ip)?, port(container, tcp.port.as_ref())?);
        return Ok(Target::Tcp { host, port });
    }
    let grpc = probe
        .grpc
        .as_ref()
        .ok_or("the probe says not what to ask")?;
    Ok(Target::Grpc {
        host: host("", ip)?,
        port: number(grpc.port)?,
        service: grpc.service.clone().unwrap_or_default(),
    })
}

/// The request of a probe or a hook, to the host that it names, else to the pod.
pub fn http(
    container: &Container,
    get: &HttpGetAction,
    ip: Option<IpAddr>,
) -> Result<Target, String> {
    let port = port(container, get.port.as_ref())?;
    let authority = authority(&host(&get.host, ip)?, port);
    let scheme = match get.scheme.as_str() {
        "HTTPS" => "https",
        _ => "http",
    };
    let slash = if get.path.starts_with('/') { "" } else { "/" };
    let text = format!("{scheme}://{authority}{slash}{}", get.path);
    let url = Url::parse(&text).map_err(|error| format!("{text} is not a URL: {error}"))?;
    let headers = get.http_headers.clone();
    Ok(Target::Http { url, headers })
}

fn host(host: &str, ip: Option<IpAddr>) -> Result<String, String> {
    match (host, ip) {
        ("", Some(ip)) => Ok(ip.to_string()),
        ("", None) => Err("the pod has no address".to_owned()),
        (host, _) => Ok(host.to_owned()),
    }
}

/// Host and port as a URL has them.
pub fn authority(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

fn port(container: &Container, port: Option<&IntOrString>) -> Result<u16, String> {
    match port.and_then(|port| port.value.as_ref()) {
        Some(Value::Int(port)) => number(*port),
        Some(Value::String(name)) => {
            let found = container.ports.iter().find(|port| port.name == *name);
            let none = || format!("the container has no port named {name:?}");
            number(found.ok_or_else(none)?.container_port)
        }
        None => number(0),
    }
}

fn number(port: i32) -> Result<u16, String> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    port.ok_or_else(|| "the probe names no port".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use barge_proto::v1::ContainerPort;

    use super::*;

    #[test]
    fn ports_are_found_by_name_and_addresses_are_the_pods() {
        let get = |port: &str, path: &str| HttpGetAction {
            port: Some(IntOrString::string(port)),
            path: path.into(),
            ..Default::default()
        };
        let container = |get| Container {
            ports: vec![ContainerPort {
                name: "http".into(),
                container_port: 8080,
                ..Default::default()
            }],
            readiness_probe: Some(Probe {
                http_get: Some(get),
                ..Default::default()
            }),
            ..Default::default()
        };
        let url = |get, ip: &str| {
            let ip = ip.parse().ok();
            let asked = asked(&container(get), Kind::Readiness, ip).unwrap();
            match asked.target {
                Target::Http { url, .. } => url.to_string(),
                Target::None(why) => why,
                other => panic!("{other:?}"),
            }
        };
        let path = "healthz?deep=1";
        assert_eq!(
            url(get("http", path), "10.1.2.3"),
            "http://10.1.2.3:8080/healthz?deep=1"
        );
        assert_eq!(
            url(get("http", "//x"), "fd00::1"),
            "http://[fd00::1]:8080//x"
        );
        assert_eq!(
            url(get("admin", "/"), "10.1.2.3"),
            "the container has no port named \"admin\""
        );
        assert_eq!(url(get("http", "/"), ""), "the pod has no address");
        let https = HttpGetAction {
            scheme: "HTTPS".into(),
            host: "example.internal".into(),
            ..get("http", "/")
        };
        assert_eq!(url(https, ""), "https://example.internal:8080/");
    }
}
