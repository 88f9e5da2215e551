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
            .filter(|it| !it.ips.is_empty())
        {
            // One that cannot be read was set aside above.
            let Ok(Some(identity)) = self.identity(&sandbox.pod_uid) else {
                continue;
            };
            if identity.ports.is_empty() {
                continue;
            }
            let to = match sandbox.ips[0] {
                IpAddr::V4(ip) if !identity.host_network => Some(ip),
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
