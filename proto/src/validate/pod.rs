//! Specs of pods and their containers.

use std::collections::{BTreeMap, HashSet};

use super::{Checker, PROTOCOLS, image, names};
use crate::{
    quantity::Amount,
    v1::{Container, ContainerPort, LocalObjectReference, PodSpec, Quantity, ResourceRequirements},
};

/// A pod's init containers and containers with their paths.
pub(super) fn containers<'a>(path: &str, pod: &'a PodSpec) -> Vec<(String, &'a Container)> {
    let lists = [
        ("initContainers", &pod.init_containers),
        ("containers", &pod.containers),
    ];
    let each = lists.into_iter().flat_map(|(list, containers)| {
        let path = move |index| format!("{path}.{list}[{index}]");
        let indexed = containers.iter().enumerate();
        indexed.map(move |(index, container)| (path(index), container))
    });
    each.collect()
}

impl Checker {
    pub(super) fn pod_spec(&mut self, path: &str, spec: &PodSpec) {
        if spec.containers.is_empty() {
            self.violated(
                format!("{path}.containers"),
                "",
                "at least one container is required",
            );
        }
        let all = spec.all_containers();
        let names: Vec<_> = all.map(|it| it.name.as_str()).collect();
        let volumes = spec.volumes.iter().map(|it| it.name.as_str()).collect();
        let mut seen = HashSet::new();
        for (index, (path, container)) in containers(path, spec).into_iter().enumerate() {
            self.container(&path, container, &names);
            self.life(&path, container, index < spec.init_containers.len());
            self.mounts(&path, container, &volumes);
            if !container.name.is_empty() && !seen.insert(&container.name) {
                let name = format_args!("{:?}", container.name);
                self.violated(
                    format!("{path}.name"),
                    name,
                    "is the name of another container, too",
                );
            }
        }
        if let Some(seconds) = spec.active_deadline_seconds {
            self.at_least(format!("{path}.activeDeadlineSeconds"), seconds, 1);
        }
        let policies = ["Always", "OnFailure", "Never"];
        self.one_of(
            format!("{path}.restartPolicy"),
            &spec.restart_policy,
            &policies,
        );
        if let Some(seconds) = spec.termination_grace_period_seconds {
            self.at_least(format!("{path}.terminationGracePeriodSeconds"), seconds, 0);
        }
        self.labels(format_args!("{path}.nodeSelector"), &spec.node_selector);
        self.tolerations(&format!("{path}.tolerations"), &spec.tolerations);
        self.volumes(path, spec, &names);
        self.host(path, spec);
        self.host_namespaces(path, spec);
        self.pull_secrets(
            &format!("{path}.imagePullSecrets"),
            &spec.image_pull_secrets,
        );
        if let Some(context) = &spec.security_context {
            self.pod_security(&format!("{path}.securityContext"), context);
        }
        let account = &spec.service_account_name;
        if !account.is_empty() {
            let result = names::dns_subdomain(account);
            self.text(format!("{path}.serviceAccountName"), account, result);
        }
        if !spec.node_name.is_empty() {
            let result = names::dns_subdomain(&spec.node_name);
            self.text(format!("{path}.nodeName"), &spec.node_name, result);
        }
    }

    /// Names of Secrets with credentials for registries.
    pub(super) fn pull_secrets(&mut self, path: &str, secrets: &[LocalObjectReference]) {
        let mut seen = HashSet::new();
        for (index, secret) in secrets.iter().enumerate() {
            let field = format!("{path}[{index}].name");
            if secret.name.is_empty() {
                self.required(field);
                continue;
            }
            let result = names::dns_subdomain(&secret.name);
            self.text(&field, &secret.name, result);
            if !seen.insert(&secret.name) {
                let name = format_args!("{:?}", secret.name);
                self.violated(field, name, "is in the list already: name it once");
            }
        }
    }

    fn container(&mut self, path: &str, container: &Container, containers: &[&str]) {
        let field = format!("{path}.name");
        if container.name.is_empty() {
            self.required(field);
        } else {
            self.text(field, &container.name, names::dns_label(&container.name));
        }
        let field = format!("{path}.image");
        if container.image.is_empty() {
            self.required(field);
        } else {
            let result = image::Reference::parse(&container.image).map(|_| ());
            self.text(field, &container.image, result);
        }
        self.container_ports(path, &container.ports);
        self.environment(path, container, containers);
        if let Some(resources) = &container.resources {
            self.resources(&format!("{path}.resources"), resources);
        }
        if let Some(context) = &container.security_context {
            self.security(&format!("{path}.securityContext"), context);
        }
        let policies = ["Always", "IfNotPresent", "Never"];
        self.one_of(
            format!("{path}.imagePullPolicy"),
            &container.image_pull_policy,
            &policies,
        );
    }

    fn container_ports(&mut self, path: &str, ports: &[ContainerPort]) {
        let mut seen = HashSet::new();
        for (index, port) in ports.iter().enumerate() {
            let path = format!("{path}.ports[{index}]");
            if !port.name.is_empty() {
                let field = format!("{path}.name");
                self.text(field.clone(), &port.name, names::port_name(&port.name));
                if !seen.insert(&port.name) {
                    let name = format_args!("{:?}", port.name);
                    self.violated(field, name, "is the name of another port, too");
                }
            }
            self.port(format!("{path}.containerPort"), port.container_port);
            self.one_of(format!("{path}.protocol"), &port.protocol, PROTOCOLS);
        }
    }

    fn resources(&mut self, path: &str, resources: &ResourceRequirements) {
        let limits = self.amounts(&format!("{path}.limits"), &resources.limits);
        let requests = self.amounts(&format!("{path}.requests"), &resources.requests);
        for (name, request) in requests {
            if let Some(limit) = limits.get(name).filter(|limit| request > **limit) {
                let rule = format!("must be at most the limit, {limit}");
                self.violated(format!("{path}.requests[{name}]"), request, rule);
            }
        }
    }

    /// Checks amounts of resources; those that are amounts are returned.
    fn amounts<'a>(
        &mut self,
        path: &str,
        quantities: &'a BTreeMap<String, Quantity>,
    ) -> BTreeMap<&'a str, Amount> {
        let mut amounts = BTreeMap::new();
        for (name, quantity) in quantities {
            let field = format!("{path}[{name}]");
            if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                let rule = "is not a resource that containers can ask for: there are cpu, memory and ephemeral-storage";
                self.violated(field, format_args!("{name:?}"), rule);
                continue;
            }
            match Amount::try_from(quantity) {
                Ok(amount) if amount.is_negative() => {
                    self.violated(field, amount, "must be at least 0");
                }
                Ok(amount) if name == "cpu" && !amount.is_milli() => {
                    self.violated(field, amount, "must be a multiple of 1m");
                }
                Ok(amount) if name == "cpu" && amount.milli().is_err() => {
                    self.violated(field, amount, "is more than any machine has");
                }
                Ok(amount) => {
                    amounts.insert(name.as_str(), amount);
                }
                Err(error) => self.violated(field, "", error.to_string()),
            }
        }
        amounts
    }
}
