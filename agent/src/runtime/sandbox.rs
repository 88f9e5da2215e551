//! Sandboxes: a pod's place on this machine, before and after its containers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use super::{
    HostPort, Options, RuntimeError, Sandbox, SandboxSpec,
    cgroup::Cgroups,
    cni::{Attachment, CniError, Plugins, Record},
    error::reason,
    names::check_uid,
    network::{self, PodNetwork, addresses::Addresses},
};
use crate::{
    files::{self, Reserve, blocking, reading},
    timing::timed,
};

mod attach;
pub mod etc;
pub mod netns;
mod of_machine;
mod pause;
mod port_notes;
pub mod ports;
pub mod shared;

use ports::Ports;
use shared::Shared;

/// Characters of a host name that the kernel takes.
const LONGEST_NAME: usize = 64;

/// The sandboxes of this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    options: Arc<Options>,
    plugins: Plugins,
    cgroups: Cgroups,
    ports: Ports,
    addresses: Addresses,
    wired: Arc<attach::Wired>,
    /// The node's address, which pods in the machine's network have.
    address: IpAddr,
}

/// What a pod is, written before anything of it exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    pod_uid: String,
    namespace: String,
    name: String,
    /// It is in the machine's network.
    #[serde(default)]
    host_network: bool,
    /// Ports of the machine that it has.
    #[serde(default)]
    ports: Vec<HostPort>,
}

impl Sandboxes {
    /// The sandboxes below a data folder.
    pub fn new(options: Arc<Options>, cgroups: Cgroups) -> Self {
        Self {
            plugins: Plugins {
                folders: options.cni_bin_dirs.clone(),
            },
            addresses: Addresses::new(
                options.paths.cni().join("addresses/barge"),
                options.programmed.clone(),
            ),
            wired: Arc::default(),
            options,
            cgroups,
            ports: Ports::default(),
            address: Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The same sandboxes on a node with this address.
    pub fn at(self, address: IpAddr) -> Self {
        Self { address, ..self }
    }

    /// Makes a sandbox whole: what is there stays, what is missing comes.
    pub async fn create(&self, spec: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        check_uid(&spec.pod_uid)?;
        let identity = Identity {
            pod_uid: spec.pod_uid.clone(),
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            host_network: spec.namespaces.host_network,
            ports: spec.ports.clone(),
        };
        let (this, uid) = (self.clone(), spec.pod_uid.clone());
        let there = reading(move || Ok(this.addresses(&uid))).await;
        match there.map_err(|error| failed(spec, &error.into()))? {
            Ok(Some(ips)) => return Ok(identity.sandbox(ips)),
            Ok(None) => {}
            // Nothing runs in it, or it would have been left alone: it is made anew.
            Err(error) => {
                tracing::warn!(pod = spec.pod_uid, %error, "what was noted of a pod cannot be read; making its place anew");
            }
        }
        let claimed = self.claim_ports(spec).await;
        claimed.map_err(|error| failed(spec, &error))?;
        let created = match spec.namespaces.host_network {
            true => self.make_of_machine(&identity, spec).await,
            false => {
                let network = network::current(&self.options).await?;
                self.make(&identity, spec, network).await
            }
        };
        let ips = created.map_err(|error| failed(spec, &error))?;
        if let (Some(IpAddr::V4(ip)), false) = (ips.first(), spec.namespaces.host_network) {
            self.ports.serve(&spec.pod_uid, *ip);
        }
        Ok(identity.sandbox(ips))
    }

    async fn make(
        &self,
        identity: &Identity,
        spec: &SandboxSpec,
        network: PodNetwork,
    ) -> Result<Vec<IpAddr>, CniError> {
        // Half made by somebody who died, or left by an earlier boot: addresses and rules may still be noted.
        self.detach(identity).await?;
        let this = self.clone();
        let known = identity.clone();
        let planned = match &network {
            PodNetwork::Routed(_) => Record::routed(None),
            PodNetwork::Own(network) => Record {
                network: network.clone(),
                result: None,
            },
        };
        let (hostname, namespaces) = (kernel_name(spec)?, spec.namespaces);
        blocking(move || {
            let paths = &this.options.paths;
            let reserve = paths.reserve();
            reserve.with(|| std::fs::create_dir_all(paths.pod(&known.pod_uid)))?;
            store(&reserve, &this.identity_file(&known.pod_uid), &known)?;
            store(&reserve, &this.network_file(&known.pod_uid), &planned)?;
            netns::pin(&paths.netns(&known.pod_uid))?;
            let shared = Shared::of(paths, &known.pod_uid, namespaces);
            shared.ensure(&hostname, &this.options.pause_command)
        })
        .await?;
        let attached = async {
            match network {
                PodNetwork::Own(network) => self.plug(network, identity).await,
                PodNetwork::Routed(routed) => {
                    let (this, uid) = (self.clone(), identity.pod_uid.clone());
                    let routed = blocking(move || this.route(&routed, &uid)).await;
                    routed.map_err(CniError::Routed)
                }
            }
        };
        let attached = timed(&identity.pod_uid, "network", attached).await;
        let record = match attached {
            Ok(record) => record,
            Err(error) => {
                // What failed keeps what it had until then, unless it is told.
                if let Err(second) = self.detach(identity).await {
                    tracing::warn!(pod = %identity.pod_uid, error = %second, "cannot undo a failed attachment");
                }
                return Err(error);
            }
        };
        let ips = record.ips();
        let this = self.clone();
        let (known, addresses, names) = (identity.clone(), ips.clone(), spec.names.clone());
        blocking(move || {
            let (paths, reserve) = (&this.options.paths, this.options.paths.reserve());
            let etc = paths.etc(&known.pod_uid);
            let resolv_conf = &this.options.resolv_conf;
            reserve
                .with(|| etc::write(&etc, &known.name, &names, &addresses, resolv_conf, None))?;
            // Last: from here on the sandbox is whole.
            store(&reserve, &this.network_file(&known.pod_uid), &record)
        })
        .await?;
        Ok(ips)
    }

    /// Prepares the machine for pods with addresses of these ranges.
    pub async fn ensure_network(&self, pod_cidrs: &str) -> Result<(), RuntimeError> {
        network::ensure(&self.options, pod_cidrs, self.address).await?;
        let this = self.clone();
        let kept = blocking(move || {
            this.addresses.keep_only(|uid| {
                // Of what cannot be looked at nobody knows that it is gone.
                check_uid(uid).is_err()
                    || !matches!(this.identity_file(uid).try_exists(), Ok(false))
            })
        });
        if let Err(error) = kept.await {
            tracing::warn!(%error, "addresses of pods that are gone stay taken");
        }
        Ok(())
    }

    /// Removes whatever there is of a sandbox. Its containers must be gone.
    pub async fn remove(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        check_uid(pod_uid)?;
        let removed = self.take_down(pod_uid).await;
        removed.map_err(|error| {
            RuntimeError::passing(
                reason::KILL_SANDBOX,
                format!("cannot remove pod {pod_uid}: {error}"),
            )
        })
    }

    /// Detaches a sandbox from the network. Its containers must be gone; what they wrote stays.
    pub async fn release(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        check_uid(pod_uid)?;
        let released = async {
            self.know_ports().await?;
            let (this, uid) = (self.clone(), pod_uid.to_owned());
            let known = reading(move || Ok(this.identity(&uid))).await?;
            if let Some(identity) = known? {
                self.detach(&identity).await?;
            }
            let (cgroups, uid) = (self.cgroups.clone(), pod_uid.to_owned());
            blocking(move || cgroups.remove_pod(&uid)).await?;
            Ok(())
        };
        let released = released.await;
        if released.is_ok() {
            self.ports.release(pod_uid);
        }
        released.map_err(|error: CniError| {
            let message = format!("cannot give back the network of pod {pod_uid}: {error}");
            RuntimeError::passing(reason::KILL_SANDBOX, message)
        })
    }

    async fn take_down(&self, pod_uid: &str) -> Result<(), CniError> {
        // Read later, its ports would be those of a pod that is gone.
        self.know_ports().await?;
        let (this, uid) = (self.clone(), pod_uid.to_owned());
        let known = reading(move || Ok(this.identity(&uid))).await?;
        // One that cannot be read goes like one that was never written.
        let identity = known.ok().flatten();
        let identity = identity.unwrap_or_else(|| Identity::nameless(pod_uid));
        self.detach(&identity).await?;
        let this = self.clone();
        let uid = pod_uid.to_owned();
        blocking(move || {
            this.cgroups.remove_pod(&uid)?;
            // The identity goes last: until then somebody will come back for the rest.
            let pod = this.options.paths.pod(&uid);
            remove_but(&pod, &this.identity_file(&uid))?;
            remove_folder(&pod)
        })
        .await?;
        self.ports.release(pod_uid);
        Ok(())
    }

    /// Connects to a port on the loopback of a pod: by IPv4, and by IPv6 when that is refused. NotFound when the pod has no network.
    pub async fn connect(&self, pod_uid: &str, port: u16) -> io::Result<TcpStream> {
        check_uid(pod_uid).map_err(|_| io::ErrorKind::NotFound)?;
        let paths = &self.options.paths;
        let (own, machine) = (paths.netns(pod_uid), paths.host_netns(pod_uid));
        let made = reading(move || match netns::is_pinned(&machine) {
            true => netns::sockets(&machine),
            false => netns::sockets(&own),
        });
        let (v4, v6) = made.await?;
        match (v4.connect((Ipv4Addr::LOCALHOST, port).into()).await, v6) {
            (Err(error), Some(v6)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // What is not there either way was refused.
                let by_v6 = v6.connect((Ipv6Addr::LOCALHOST, port).into()).await;
                by_v6.map_err(|_| error)
            }
            (connected, _) => connected,
        }
    }

    /// All sandboxes, whole or not.
    pub async fn list(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        let this = self.clone();
        let listed = reading(move || this.list_folder()).await;
        listed.map_err(|error| {
            RuntimeError::passing(
                reason::UNAVAILABLE,
                format!("cannot list the pods on this machine: {error}"),
            )
        })
    }

    /// The sandbox of a pod, if there is one, whole or not.
    pub async fn of_pod(&self, pod_uid: &str) -> Result<Vec<Sandbox>, RuntimeError> {
        let (this, uid) = (self.clone(), pod_uid.to_owned());
        let found = reading(move || Ok(this.look(&uid).into_iter().collect())).await;
        found.map_err(|error| {
            RuntimeError::passing(
                reason::UNAVAILABLE,
                format!("cannot look at pod {pod_uid} on this machine: {error}"),
            )
        })
    }

    /// Blocks.
    fn list_folder(&self) -> io::Result<Vec<Sandbox>> {
        let mut sandboxes = Vec::new();
        let folder = match std::fs::read_dir(self.options.paths.pods()) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sandboxes),
            Err(error) => return Err(error),
        };
        for pod in folder {
            let uid = pod?.file_name().to_string_lossy().into_owned();
            sandboxes.extend(self.look(&uid));
        }
        Ok(sandboxes)
    }

    /// A pod whose notes cannot be read is answered as damaged: it is no reason not to list the others. Blocks.
    fn look(&self, uid: &str) -> Option<Sandbox> {
        let (identity, mut damaged) = match self.identity(uid) {
            Ok(identity) => (identity?, None),
            Err(error) => (Identity::nameless(uid), Some(error)),
        };
        let ips = match self.addresses(uid) {
            Ok(ips) => ips.unwrap_or_default(),
            Err(error) => {
                damaged.get_or_insert(error);
                Vec::new()
            }
        };
        Some(match damaged {
            None => identity.sandbox(ips),
            Some(error) => Sandbox {
                damaged: Some(format!("what was noted of the pod cannot be read: {error}")),
                ..identity.sandbox(Vec::new())
            },
        })
    }

    /// The addresses of a whole sandbox; `None` for any other. Blocks.
    fn addresses(&self, pod_uid: &str) -> Result<Option<Vec<IpAddr>>, CniError> {
        if netns::is_pinned(&self.options.paths.host_netns(pod_uid)) {
            return Ok(Some(vec![self.address]));
        }
        let record = load::<Record>(&self.network_file(pod_uid))?;
        let attached = record.filter(|record| record.result.is_some());
        let pinned = netns::is_pinned(&self.options.paths.netns(pod_uid));
        Ok(attached.filter(|_| pinned).map(|record| record.ips()))
    }

    fn identity(&self, pod_uid: &str) -> Result<Option<Identity>, CniError> {
        load(&self.identity_file(pod_uid))
    }

    fn identity_file(&self, pod_uid: &str) -> std::path::PathBuf {
        self.options.paths.pod(pod_uid).join("sandbox.json")
    }

    fn network_file(&self, pod_uid: &str) -> std::path::PathBuf {
        self.options.paths.pod(pod_uid).join("network.json")
    }
}

impl Identity {
    fn nameless(pod_uid: &str) -> Self {
        Self {
            pod_uid: pod_uid.to_owned(),
            namespace: String::new(),
            name: String::new(),
            host_network: false,
            ports: Vec::new(),
        }
    }

    fn sandbox(self, ips: Vec<IpAddr>) -> Sandbox {
        Sandbox {
            pod_uid: self.pod_uid,
            namespace: self.namespace,
            name: self.name,
            ips,
            damaged: None,
        }
    }

    fn attachment<'a>(&'a self, netns: Option<&'a Path>) -> Attachment<'a> {
        Attachment {
            pod_uid: &self.pod_uid,
            namespace: &self.namespace,
            name: &self.name,
            netns,
        }
    }
}

fn failed(spec: &SandboxSpec, error: &CniError) -> RuntimeError {
    let message = format!(
        "cannot make a place for pod {}/{}: {error}",
        spec.namespace, spec.name
    );
    RuntimeError::passing(reason::CREATE_SANDBOX, message)
}

/// The host name that the pod's kernel namespace has.
fn kernel_name(spec: &SandboxSpec) -> Result<String, CniError> {
    let name = spec.names.kernel_name(&spec.name);
    match name.len() > LONGEST_NAME {
        true => Err(CniError::Refused(format!(
            "the host name {name} has more than the {LONGEST_NAME} characters that the kernel takes: shorten the pod's name, hostname or subdomain, or leave out setHostnameAsFQDN"
        ))),
        false => Ok(name),
    }
}

fn store<T: Serialize>(reserve: &Reserve, path: &Path, value: &T) -> io::Result<()> {
    reserve.write_atomic(path, &serde_json::to_vec(value)?)
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CniError> {
    let Some(bytes) = files::read_if_there(path)? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes).map_err(|error| CniError::Configuration {
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    Ok(Some(value))
}

/// Removes all in a folder but one file.
fn remove_but(folder: &Path, kept: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.path() == kept {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
