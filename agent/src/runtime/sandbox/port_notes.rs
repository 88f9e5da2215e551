//! Which ports of the machine pods have, as their sandboxes noted it.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{
    CniError, SandboxSpec, Sandboxes,
    ports::{Held, HostPorts},
    reading,
};

/// Between two tries to read what pods have.
const READ_AGAIN: Duration = Duration::from_millis(500);

impl Sandboxes {
    /// Which ports of the machine its pods have. Their notes are read in the background.
    pub fn host_ports(&self) -> watch::Receiver<Option<Arc<HostPorts>>> {
        let this = self.clone();
        tokio::spawn(async move {
            while let Err(error) = this.know_ports().await {
                tracing::warn!(%error, "cannot read which ports of this machine pods have");
                sleep(READ_AGAIN).await;
            }
        });
        self.ports.subscribe()
    }

    /// Reads which ports pods have that are here already, unless that is known.
    pub(super) async fn know_ports(&self) -> io::Result<()> {
        if !self.ports.are_known() {
            let this = self.clone();
            self.ports
                .loaded(reading(move || this.noted_ports()).await?);
        }
        Ok(())
    }

    /// Gives the pod its ports of the machine.
    pub(super) async fn claim_ports(&self, spec: &SandboxSpec) -> Result<(), CniError> {
        if spec.ports.is_empty() {
            return Ok(());
        }
        self.know_ports().await?;
        let pod = format!("{}/{}", spec.namespace, spec.name);
        let claimed = self.ports.claim(&spec.pod_uid, pod, &spec.ports);
        claimed.map_err(CniError::Refused)
    }

    /// Reads which ports the pods have that are here already. Blocks.
    fn noted_ports(&self) -> io::Result<HostPorts> {
        let mut found = HostPorts::new();
        for sandbox in self
            .list_folder()?
            .into_iter()
            // Of one that was released, or that waits to be made after a boot, ports are free. One whose address cannot be read may run: nobody else gets its ports.
            .filter(|it| !it.ips.is_empty() || it.damaged.is_some())
        {
            // One that cannot be read was set aside above.
            let Ok(Some(identity)) = self.identity(&sandbox.pod_uid) else {
                continue;
            };
            if identity.ports.is_empty() {
                continue;
            }
            let to = match sandbox.ips.first().copied() {
                Some(IpAddr::V4(ip)) if !identity.host_network => Some(ip),
                _ => None,
            };
            let held = Held {
                pod: format!("{}/{}", identity.namespace, identity.name),
                ports: identity.ports,
                to,
            };
            found.insert(sandbox.pod_uid, held);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::{
        super::{Identity, store},
        *,
    };
    use crate::{
        runtime::{HostPort, Options, cgroup::Cgroups},
        services::ports::Protocol,
    };

    #[test]
    fn a_pod_whose_address_cannot_be_read_keeps_its_ports() {
        let folder = tempfile::tempdir().unwrap();
        let options = Arc::new(Options::new(folder.path()).unwrap());
        let cgroups = Cgroups::new(&options.cgroup_mount, &options.cgroup_root);
        let paths = options.paths.clone();
        let sandboxes = Sandboxes::new(options, cgroups);
        for uid in ["damaged", "released"] {
            fs::create_dir_all(paths.pod(uid)).unwrap();
            let port = HostPort {
                port: 8080,
                protocol: Protocol::Tcp,
                ip: None,
                container_port: 80,
            };
            let identity = Identity {
                ports: vec![port],
                ..Identity::nameless(uid)
            };
            let file = sandboxes.identity_file(uid);
            store(&paths.reserve(), &file, &identity).unwrap();
        }
        fs::write(sandboxes.network_file("damaged"), "{").unwrap();
        let noted = sandboxes.noted_ports().unwrap();
        assert_eq!(noted.keys().collect::<Vec<_>>(), ["damaged"]);
        assert_eq!(noted["damaged"].to, None, "nobody knows where it is");
    }
}
