//! Pods in the machine's network. The namespace is pinned for the pod, so that containers join the agent's whatever containerd's is; nothing
//! is made in it and nothing removed from it.

use super::{
    CniError, Identity, IpAddr, SandboxSpec, Sandboxes, blocking,
    etc::{self, OfMachine},
    netns,
    shared::Shared,
    store,
};
use crate::node;

impl Sandboxes {
    /// Makes the place of a pod in the machine's network.
    pub(super) async fn make_of_machine(
        &self,
        identity: &Identity,
        spec: &SandboxSpec,
    ) -> Result<Vec<IpAddr>, CniError> {
        // Half made by somebody who died, or left by an earlier boot.
        self.detach(identity).await?;
        let (this, known, spec) = (self.clone(), identity.clone(), spec.clone());
        blocking(move || {
            let paths = &this.options.paths;
            let reserve = paths.reserve();
            let pod = paths.pod(&known.pod_uid);
            reserve.with(|| std::fs::create_dir_all(&pod))?;
            store(&reserve, &this.identity_file(&known.pod_uid), &known)?;
            let name = node::host_name();
            let machine = OfMachine {
                hosts: &this.options.hosts,
                name: &name,
            };
            let (etc, ips) = (pod.join("etc"), [this.address]);
            let resolv_conf = &this.options.resolv_conf;
            reserve.with(|| {
                etc::write(
                    &etc,
                    &known.name,
                    &spec.names,
                    &ips,
                    resolv_conf,
                    Some(machine),
                )
            })?;
            let shared = Shared::of(paths, &known.pod_uid, spec.namespaces);
            shared.ensure(&name, &this.options.pause_command)?;
            // Last: from here on the sandbox is whole.
            netns::pin_own(&paths.host_netns(&known.pod_uid))
        })
        .await?;
        Ok(vec![self.address])
    }
}
