//! Namespaces and ports of the node that a pod asks for.

use std::collections::HashSet;

use super::Checker;
use crate::v1::{ContainerPort, PodSpec};

impl Checker {
    pub(super) fn host_namespaces(&mut self, path: &str, spec: &PodSpec) {
        if spec.share_process_namespace && spec.host_pid {
            let rule = "contradicts hostPID, with which a pod's containers see each other's processes anyway: remove one of them";
            self.violated(format!("{path}.shareProcessNamespace"), true, rule);
        }
        let sysctls = spec.security_context.iter().flat_map(|it| &it.sysctls);
        for (index, sysctl) in sysctls.enumerate() {
            let of = match sysctl.name.split(['.', '/']).next() {
                Some("net") if spec.host_network => "hostNetwork",
                Some("kernel") if spec.host_ipc => "hostIPC",
                _ => continue,
            };
            let field = format!("{path}.securityContext.sysctls[{index}].name");
            let rule = format!("would be changed for the whole node, because of {of}");
            self.violated(field, format_args!("{:?}", sysctl.name), rule);
        }
        let mut seen = HashSet::new();
        for (path, container) in super::pod::containers(path, spec) {
            for (number, port) in container.ports.iter().enumerate() {
                let path = format!("{path}.ports[{number}]");
                self.host_port(&path, port, spec.host_network);
                let key = (port.host_port, &port.protocol, &port.host_ip);
                if port.host_port != 0 && !seen.insert(key) {
                    let rule = "is the host port of another port, too";
                    self.violated(format!("{path}.hostPort"), port.host_port, rule);
                }
            }
        }
    }

    fn host_port(&mut self, path: &str, port: &ContainerPort, host_network: bool) {
        let field = format!("{path}.hostPort");
        if port.host_port != 0 {
            self.port(field.clone(), port.host_port);
        }
        if host_network && port.host_port != 0 && port.host_port != port.container_port {
            let rule = format!(
                "must be containerPort, {}, because of hostNetwork",
                port.container_port
            );
            self.violated(field, port.host_port, rule);
        }
        if port.host_ip.is_empty() {
            return;
        }
        let field = format!("{path}.hostIP");
        let shown = format_args!("{:?}", port.host_ip);
        if port.host_ip.parse::<std::net::Ipv4Addr>().is_err() {
            self.violated(field, shown, "must be an IPv4 address");
        } else if port.host_port == 0 && !host_network {
            self.violated(field, shown, "says nothing without hostPort");
        }
    }
}
