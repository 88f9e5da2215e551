//! What a pod's sandbox is made of.

use std::net::Ipv4Addr;

use super::{HostPort, sandbox::etc};

/// What a pod's sandbox needs.
#[derive(Debug, Clone, Default)]
pub struct SandboxSpec {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// What the pod is called inside, and what it calls others.
    pub names: PodNames,
    /// Which namespaces are not its own.
    pub namespaces: Namespaces,
    /// Ports of the machine that are the pod's.
    pub ports: Vec<HostPort>,
}

/// Which namespaces of a pod's containers are the machine's, or one for all of them. The default is an ordinary pod: network, IPC and host
/// name are the pod's, processes each container's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The machine's network, and its host name.
    pub host_network: bool,
    /// The machine's processes.
    pub host_pid: bool,
    /// The machine's IPC and `/dev/shm`.
    pub host_ipc: bool,
    /// One namespace of processes for all containers of the pod.
    pub shared_pid: bool,
}

/// What a pod is called inside, and what it calls others. The default is a pod that says nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNames {
    /// The host name; empty: the pod's name.
    pub hostname: String,
    /// The domain that the host name is in; empty: none.
    pub domain: String,
    /// The kernel has host name and domain together.
    pub is_full: bool,
    /// Further lines of `/etc/hosts`: an address and names.
    pub aliases: Vec<(String, Vec<String>)>,
    /// Name servers besides the node's.
    pub nameservers: Vec<String>,
    /// Domains to search in, besides the node's.
    pub searches: Vec<String>,
    /// Options of `/etc/resolv.conf` ("ndots:2"). One replaces the node's of the same name.
    pub options: Vec<String>,
    /// Nothing of the node's `/etc/resolv.conf` is taken.
    pub without_nodes: bool,
    /// The cluster is asked first, instead of whom the node asks.
    pub cluster: Option<ClusterNames>,
}

/// Where a pod asks for names of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNames {
    /// The name server.
    pub server: Ipv4Addr,
    /// The pod's namespace, in which its programs search first.
    pub namespace: String,
}

impl PodNames {
    /// The host name that the kernel has. `pod` is the pod's name.
    pub fn kernel_name(&self, pod: &str) -> String {
        let name = etc::hostname(&self.hostname, pod);
        match self.is_full && !self.domain.is_empty() {
            true => format!("{name}.{}", self.domain),
            false => name.to_owned(),
        }
    }
}
