//! `[LOCAL:]REMOTE`, and which ports are meant by it.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use barge_client::v1::{
    Container, ContainerPort, Pod, Service, ServicePort, int_or_string::Value as Target,
};

/// As it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    local: Local,
    /// A number or a name.
    remote: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    Number(u16),
    /// Any that is free.
    Free,
    /// As on the other side.
    Same,
}

/// As numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// 0 for any that is free.
    pub local: u16,
    pub remote: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("\"{text}\" should be [LOCAL:]REMOTE, such as 8080:80, 80, :80 or 8080:http")
        };
        let (local, remote) = match text.split_once(':') {
            None => (Local::Same, text),
            Some(("" | "0", remote)) => (Local::Free, remote),
            Some((local, remote)) => (Local::Number(local.parse().map_err(|_| wrong())?), remote),
        };
        let number = remote.bytes().all(|byte| byte.is_ascii_digit());
        let good = match number {
            true => remote.parse::<u16>().is_ok_and(|port| port > 0),
            false => is_name(remote),
        };
        match good {
            true => Ok(Self {
                local,
                remote: remote.to_owned(),
            }),
            false => Err(wrong()),
        }
    }
}

impl Ports {
    /// The numbers, for a pod that was named itself or that was chosen by a Service.
    pub fn resolved(&self, pod: &Pod, service: Option<&Service>) -> Result<Resolved> {
        let (same, remote) = match service {
            None => {
                let port = self.of_pod(pod)?;
                (port, port)
            }
            Some(service) => self.of_service(pod, service)?,
        };
        let local = match self.local {
            Local::Number(port) => port,
            Local::Free => 0,
            Local::Same => same,
        };
        Ok(Resolved { local, remote })
    }

    fn of_pod(&self, pod: &Pod) -> Result<u16> {
        match self.remote.parse() {
            Ok(port) => Ok(port),
            Err(_) => named(pod, &self.remote),
        }
    }

    /// The Service's own port, and the pod's.
    fn of_service(&self, pod: &Pod, service: &Service) -> Result<(u16, u16)> {
        let ports = service.spec.iter().flat_map(|spec| &spec.ports);
        let ports: Vec<_> = ports.collect();
        let number = self.remote.parse::<i32>().ok();
        let wanted = |port: &&&ServicePort| match number {
            Some(number) => port.port == number,
            None => port.name == self.remote,
        };
        let mut found = ports.iter().filter(wanted);
        let Some(port) = found
            .clone()
            .find(|it| is_tcp(&it.protocol))
            .or_else(|| found.next())
        else {
            let has: Vec<_> = ports.iter().map(|port| told(port)).collect();
            bail!(
                "the service has no port \"{}\"; it has: {}",
                self.remote,
                has.join(", ")
            );
        };
        if !is_tcp(&port.protocol) {
            bail!(
                "port {} is {}: only TCP can be forwarded",
                self.remote,
                port.protocol
            );
        }
        let own = u16::try_from(port.port).context("the service's port")?;
        let target = port.target_port.as_ref().and_then(|it| it.value.as_ref());
        let remote = match target {
            None | Some(Target::Int(0)) => own,
            Some(Target::Int(port)) => u16::try_from(*port).context("the service's targetPort")?,
            Some(Target::String(name)) => named(pod, name)?,
        };
        Ok((own, remote))
    }
}

fn told(port: &ServicePort) -> String {
    match port.name.as_str() {
        "" => port.port.to_string(),
        name => format!("{name} ({})", port.port),
    }
}

/// As the names of ports are.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.clone().any(|byte| byte.is_ascii_alphabetic())
        && !text.starts_with('-')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_tcp(protocol: &str) -> bool {
    matches!(protocol, "" | "TCP")
}

/// The number of a port of a container, sidecars included.
fn named(pod: &Pod, name: &str) -> Result<u16> {
    let spec = pod.spec.iter();
    let containers: Vec<&Container> = spec
        .flat_map(|spec| spec.containers.iter().chain(&spec.init_containers))
        .collect();
    let ports = || containers.iter().flat_map(|container| &container.ports);
    let Some(port) = ports().find(|port: &&ContainerPort| port.name == name) else {
        let names: Vec<_> = ports()
            .map(|port| port.name.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        match names[..] {
            [] => bail!(
                "no port of the pod's containers has a name, so there is no \"{name}\": give its number"
            ),
            _ => bail!(
                "no port of the pod's containers is named \"{name}\"; there are: {}",
                names.join(", ")
            ),
        }
    };
    if !is_tcp(&port.protocol) {
        bail!(
            "port {name} is {}: only TCP can be forwarded",
            port.protocol
        );
    }
    u16::try_from(port.container_port).with_context(|| format!("the number of port {name}"))
}

#[cfg(test)]
mod tests {
    use barge_client::v1::{IntOrString, PodSpec, ServiceSpec};

    use super::*;

    fn pod() -> Pod {
        let port = |name: &str, number, protocol: &str| ContainerPort {
            name: name.into(),
            container_port: number,
            protocol: protocol.into(),
            ..ContainerPort::default()
        };
        let container = Container {
            ports: vec![port("http", 8000, ""), port("dns", 53, "UDP")],
            ..Container::default()
        };
        Pod {
            spec: Some(PodSpec {
                containers: vec![container],
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    fn service() -> Service {
        let port = |name: &str, number, target| ServicePort {
            name: name.into(),
            port: number,
            target_port: target,
            ..ServicePort::default()
        };
        Service {
            spec: Some(ServiceSpec {
                ports: vec![
                    port("web", 80, Some(IntOrString::string("http"))),
                    port("admin", 81, Some(IntOrString::int(9000))),
                    port("plain", 82, None),
                ],
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn resolved(text: &str, service: Option<&Service>) -> Result<(u16, u16)> {
        let ports: Ports = text.parse().map_err(anyhow::Error::msg)?;
        let ports = ports.resolved(&pod(), service)?;
        Ok((ports.local, ports.remote))
    }

    #[test]
    fn ports_of_a_pod() {
        for (text, wanted) in [
            ("8080:80", (8080, 80)),
            ("80", (80, 80)),
            (":80", (0, 80)),
            ("0:80", (0, 80)),
            ("http", (8000, 8000)),
            ("1:http", (1, 8000)),
        ] {
            assert_eq!(resolved(text, None).unwrap(), wanted, "{text}");
        }
        for text in [
            "",
            ":",
            "80:",
            "x:80",
            "0",
            "65536",
            "8080:80:1",
            "a b",
            "-1",
        ] {
            let error = resolved(text, None).unwrap_err().to_string();
            assert!(
                error.contains("should be [LOCAL:]REMOTE"),
                "{text}: {error}"
            );
        }
        let error = resolved("htpt", None).unwrap_err().to_string();
        assert!(error.contains("there are: http, dns"), "{error}");
        assert!(
            resolved("dns", None)
                .unwrap_err()
                .to_string()
                .contains("TCP")
        );
    }

    #[test]
    fn ports_of_a_service_lead_to_their_targets() {
        let service = service();
        for (text, wanted) in [
            ("8080:80", (8080, 8000)),
            ("80", (80, 8000)),
            ("web", (80, 8000)),
            (":admin", (0, 9000)),
            ("82", (82, 82)),
        ] {
            assert_eq!(resolved(text, Some(&service)).unwrap(), wanted, "{text}");
        }
        let error = resolved("8000", Some(&service)).unwrap_err().to_string();
        assert!(error.contains("web (80), admin (81)"), "{error}");
    }
}
