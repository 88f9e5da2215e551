//! `barge port-forward POD|KIND/NAME [LOCAL:]REMOTE…`

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use barge_client::{
    Client, ClientError, Selection, WatchEvent,
    v1::{Kind, Object, Pod, PortForwardStart, Service},
};
use barge_proto::kinds;
use clap::Args;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};

use crate::{
    args::Namespace,
    context::Connection,
    names::{self, Named},
    pods,
};

mod ports;
mod relay;

use ports::{Ports, Resolved};

/// Connections at a time, as many as a node serves for one pod; further ones wait in the listening sockets' queues.
const TOGETHER: usize = 24;

/// Connections that wait in a listening socket's queue.
const WAITING: u32 = 1024;

/// While no manager answers.
const PAUSE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  barge port-forward web-1 8080:80
  barge port-forward deployment/web 8080:http :9090
  barge port-forward service/web 8080:80 --address 127.0.0.1,::1

Connections go to one pod, to its own loopback address. It goes on until Ctrl-C, or until the pod is gone.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PortForward {
    /// POD, or KIND/NAME: a running pod of a deployment or a service
    #[arg(value_name = "POD|KIND/NAME")]
    pod: String,
    /// Ports: LOCAL:REMOTE, REMOTE for the same port on both sides, :REMOTE for any free local port. REMOTE is a number, or the name of a port of
    /// the containers; with service/NAME a port of the Service
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<Ports>,
    /// The addresses of this machine to listen at
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1",
        value_parser = address
    )]
    address: Vec<IpAddr>,
    #[command(flatten)]
    namespace: Namespace,
}

fn address(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        text => text
            .parse()
            .map_err(|_| format!("\"{text}\" is not an IP address such as 127.0.0.1")),
    }
}

pub async fn run(to: &Connection, forward: PortForward) -> Result<ExitCode> {
    let client = to.client()?;
    let namespace = forward.namespace.of(to)?;
    let (pod, service) = chosen(&client, &namespace, &forward.pod).await?;
    let ports = forward.ports.iter();
    let ports = ports.map(|ports| ports.resolved(&pod, service.as_ref()));
    let ports = ports.collect::<Result<Vec<_>>>()?;
    let name = pod.metadata.map(|it| it.name).unwrap_or_default();
    let listeners = listen(&forward.address, &ports).await?;
    let start = |remote: u16| PortForwardStart {
        namespace: namespace.clone(),
        pod: name.clone(),
        port: remote.into(),
    };
    // Each listening socket waits with room for its next connection.
    let room = Arc::new(Semaphore::new(TOGETHER + listeners.len()));
    let mut serving = JoinSet::new();
    for (listener, remote) in listeners {
        writeln!(
            io::stdout(),
            "Forwarding from {} -> {remote}",
            listener.local_addr()?
        )?;
        serving.spawn(relay::serve(
            listener,
            client.clone(),
            start(remote),
            room.clone(),
        ));
    }
    tokio::select! {
        gone = gone(&client, &namespace, &name) => Err(gone),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for signals")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(served) = serving.join_next() => match served {
            Ok(never) => match never {},
            Err(error) => Err(error.into()),
        },
    }
}

/// The pod, and the Service that it was chosen by.
async fn chosen(client: &Client, namespace: &str, what: &str) -> Result<(Pod, Option<Service>)> {
    let name = pods::named(client, namespace, what).await?;
    let named = Named {
        kind: kinds::by_name("pod")?,
        name: &name,
    };
    let Some(pod) = client.find(Kind::Pod, namespace, &name).await? else {
        return Err(names::not_found(client, named, namespace).await);
    };
    let other = |_| anyhow!("the manager answered with another kind");
    let pod = Pod::try_from(pod).map_err(other)?;
    let phase = pod.status.as_ref().map_or("", |it| it.phase.as_str());
    ensure!(
        phase == "Running",
        "pod {name} does not run: it is {}; `barge describe pod {name}` says why",
        if phase.is_empty() { "Pending" } else { phase }
    );
    let words = [what.to_owned()];
    let service = match what.contains('/').then(|| names::one(&words)).transpose()? {
        Some(named) if named.kind.kind == Kind::Service => {
            let found = client.find(Kind::Service, namespace, named.name).await?;
            let Some(found) = found else {
                return Err(names::not_found(client, named, namespace).await);
            };
            Some(Service::try_from(found).map_err(other)?)
        }
        _ => None,
    };
    Ok((pod, service))
}

/// Listens at each of the addresses for each of the ports. A free port is the same at all addresses.
async fn listen(addresses: &[IpAddr], ports: &[Resolved]) -> Result<Vec<(TcpListener, u16)>> {
    let mut listeners = Vec::new();
    for ports in ports {
        let mut local = ports.local;
        for address in addresses {
            let listener = bind(SocketAddr::new(*address, local));
            let listener = listener.with_context(|| {
                format!(
                    "listen at {address} port {local}; :{} takes a free port",
                    ports.remote
                )
            })?;
            local = listener.local_addr()?.port();
            listeners.push((listener, ports.remote));
        }
    }
    Ok(listeners)
}

/// Listens at one address. `::` does not stand for `0.0.0.0` too: IPv4 is listened at when it is asked for.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Returns when the pod is gone, with the sentence that says so.
async fn gone(client: &Client, namespace: &str, name: &str) -> anyhow::Error {
    let mut watcher = client.list_and_watch(Selection {
        name: name.to_owned(),
        fields: format!("metadata.name={name}"),
        ..Selection::of(Kind::Pod, namespace)
    });
    loop {
        let why = match watcher.next().await {
            Ok(WatchEvent::Deleted(_)) => Some("was deleted"),
            Ok(WatchEvent::Synced { .. }) if watcher.objects().next().is_none() => {
                Some("was deleted")
            }
            Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => ended(pod),
            Ok(WatchEvent::Synced { .. }) => None,
            // Connections that are open go on.
            Err(ClientError::Unreachable { .. } | ClientError::Unavailable { .. }) => {
                sleep(PAUSE).await;
                None
            }
            Err(error) => {
                return anyhow::Error::new(error).context(format!("watch pod {name}"));
            }
        };
        if let Some(why) = why {
            return anyhow!(
                "pod {name} {why}: nothing is forwarded any more; run the command again for another pod"
            );
        }
    }
}

fn ended(pod: Object) -> Option<&'static str> {
    let status = Pod::try_from(pod).ok()?.status?;
    match status.phase.as_str() {
        "Succeeded" | "Failed" => Some("has ended"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_addresses_of_both_kinds_are_listened_at_together() {
        let addresses = ["0.0.0.0", "::"].map(|it| address(it).unwrap());
        let any = Resolved {
            local: 0,
            remote: 80,
        };
        let listeners = listen(&addresses, &[any]).await.unwrap();
        let mut ports = Vec::new();
        for (listener, _) in &listeners {
            ports.push(listener.local_addr().unwrap().port());
        }
        assert_eq!(ports, [ports[0]; 2]);
        for (number, host) in ["127.0.0.1", "::1"].into_iter().enumerate() {
            let to = tokio::net::TcpStream::connect((host, ports[0]))
                .await
                .unwrap();
            let (_, from) = listeners[number].0.accept().await.unwrap();
            assert_eq!(from, to.local_addr().unwrap());
        }
    }
}
