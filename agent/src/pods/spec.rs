//! From a pod's specification to what the runtime is asked for.

use std::time::Duration;

use barge_proto::{
    host_ports::{self, Claim},
    v1::{Container, Pod, PodDnsConfigOption},
};

use super::{environment::Environment, expand::expand_into, resources, security, volumes};
use crate::{
    dns::DOMAIN,
    runtime::{ContainerSpec, HostPort, Image, Namespaces, PodNames, PullPolicy, SandboxSpec},
    services::ports::Protocol,
};

/// Grace of a pod that does not say, in seconds.
const GRACE_SECONDS: i64 = 30;

/// Where a container leaves its last words unless it says otherwise.
const LAST_WORDS: &str = "/dev/termination-log";

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever its exit code.
    Always,
    /// Unless it ended with 0.
    OnFailure,
    /// Never.
    Never,
}

/// The pod's restart policy; the default is `Always`.
pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    match pod.spec.as_ref().map(|spec| spec.restart_policy.as_str()) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One of those that the pod is for.
    Main,
    /// Runs to its end before them.
    Init,
    /// Starts before them and runs on beside them.
    Sidecar,
}

impl Role {
    /// The role of the container with this name; `None` when the pod has none.
    pub fn of(pod: &Pod, name: &str) -> Option<Self> {
        if containers(pod).iter().any(|it| it.name == name) {
            return Some(Self::Main);
        }
        let container = init_containers(pod).iter().find(|it| it.name == name)?;
        Some(match container.is_sidecar() {
            true => Self::Sidecar,
            false => Self::Init,
        })
    }

    /// When a container of this role is started again.
    pub fn policy(self, pod: &Pod) -> RestartPolicy {
        match (self, restart_policy(pod)) {
            (Self::Sidecar, _) => RestartPolicy::Always,
            (Self::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
            (_, policy) => policy,
        }
    }
}

/// The containers that the pod is for.
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
}

/// The pod's init containers, sidecars among them.
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.init_containers)
}

/// All containers of the pod, in the order in which they start.
pub fn all_containers(pod: &Pod) -> impl DoubleEndedIterator<Item = &Container> {
    init_containers(pod).iter().chain(containers(pod))
}

/// The container with this name, whatever its role.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|it| it.name == name)
}

/// The images that a pod's containers name.
pub fn images(pod: &Pod) -> impl Iterator<Item = &str> {
    all_containers(pod).map(|container| container.image.as_str())
}

/// Whether the managers asked for the pod's end.
pub fn is_ending(pod: &Pod) -> bool {
    pod.metadata
        .as_ref()
        .is_some_and(|meta| meta.deletion_timestamp.is_some())
}

/// How long the pod's processes have between TERM and KILL: what the deletion says, else what the pod says.
pub fn grace(pod: Option<&Pod>) -> Duration {
    let deletion = pod
        .and_then(|pod| pod.metadata.as_ref())
        .and_then(|meta| meta.deletion_grace_period_seconds);
    let own = pod
        .and_then(|pod| pod.spec.as_ref())
        .and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = deletion.or(own).unwrap_or(GRACE_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(super::memory::LONGEST_GRACE)
}

/// The pull policy; without one `Always` for the tag latest, otherwise `IfNotPresent`.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_str() {
        "Always" => PullPolicy::Always,
        "Never" => PullPolicy::Never,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        _ if is_latest(&container.image) => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

/// Without a digest, and with the tag latest or none.
fn is_latest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    !image.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// What the pod's sandbox needs.
pub fn sandbox_spec(pod: &Pod) -> SandboxSpec {
    let meta = pod.metadata.as_ref();
    SandboxSpec {
        pod_uid: meta.map(|m| m.uid.clone()).unwrap_or_default(),
        namespace: meta.map(|m| m.namespace.clone()).unwrap_or_default(),
        name: meta.map(|m| m.name.clone()).unwrap_or_default(),
        names: names(pod),
        namespaces: namespaces(pod),
        ports: host_ports(pod),
    }
}

/// Whether the pod is in the machine's network.
pub fn is_in_host_network(pod: &Pod) -> bool {
    namespaces(pod).host_network
}

/// Whether the pod asks for names where the cluster answers. As in Kubernetes, one in the machine's network has to say so.
pub fn asks_cluster(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    match spec.dns_policy.as_str() {
        "" | "ClusterFirst" => !spec.host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    }
}

fn namespaces(pod: &Pod) -> Namespaces {
    pod.spec
        .as_ref()
        .map_or_else(Namespaces::default, |spec| Namespaces {
            host_network: spec.host_network,
            host_pid: spec.host_pid,
            host_ipc: spec.host_ipc,
            // Validation refuses both.
            shared_pid: spec.share_process_namespace && !spec.host_pid,
        })
}

/// The ports of the machine that the pod claims.
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let port = |claim: Claim| HostPort {
        port: claim.host.port,
        protocol: match claim.host.protocol {
            host_ports::Protocol::Tcp => Protocol::Tcp,
            host_ports::Protocol::Udp => Protocol::Udp,
        },
        ip: claim.host.ip,
        container_port: claim.container_port,
    };
    let claims = pod.spec.as_ref().map(host_ports::claims);
    claims.into_iter().flatten().map(port).collect()
}

/// What the pod is called inside, and what it calls others.
fn names(pod: &Pod) -> PodNames {
    let namespace = pod.metadata.as_ref().map_or("", |meta| &meta.namespace);
    let Some(spec) = &pod.spec else {
        return PodNames::default();
    };
    let dns = spec.dns_config.clone().unwrap_or_default();
    let option = |option: PodDnsConfigOption| match option.value {
        Some(value) => format!("{}:{value}", option.name),
        None => option.name,
    };
    let aliases = spec.host_aliases.iter();
    PodNames {
        hostname: spec.hostname.clone(),
        domain: match spec.subdomain.as_str() {
            "" => String::new(),
            subdomain => format!("{subdomain}.{namespace}.svc.{DOMAIN}"),
        },
        is_full: spec.set_hostname_as_fqdn,
        aliases: aliases
            .map(|it| (it.ip.clone(), it.hostnames.clone()))
            .collect(),
        nameservers: dns.nameservers,
        searches: dns.searches,
        options: dns.options.into_iter().map(option).collect(),
        without_nodes: spec.dns_policy == "None",
        cluster: None,
    }
}

/// What a container needs, with references to its environment expanded. The error is a sentence.
pub fn container_spec(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: Image,
    environment: Environment,
) -> Result<ContainerSpec, String> {
    let (env, mut strings) = (environment.variables, environment.strings);
    let mut expanded = |words: &[String], what: &str| -> Result<Vec<String>, String> {
        let words = words.iter().enumerate().map(|(index, word)| {
            let word = expand_into(&mut strings, word, &env, 0);
            word.map_err(|why| format!("{what}[{index}]: {why}"))
        });
        words.collect()
    };
    let command = expanded(&container.command, "command")?;
    let args = expanded(&container.args, "args")?;
    let amounts = resources::of_container(container)?;
    let mounts = volumes::mounts(pod, container, &env)?;
    let sandbox = sandbox_spec(pod);
    let hostname = sandbox.names.kernel_name(&sandbox.name);
    Ok(ContainerSpec {
        hostname,
        namespaces: sandbox.namespaces,
        pod_uid: sandbox.pod_uid,
        pod_namespace: sandbox.namespace,
        pod_name: sandbox.name,
        name: container.name.clone(),
        attempt,
        image,
        command,
        args,
        env,
        working_dir: container.working_dir.clone(),
        last_words: match container.termination_message_path.as_str() {
            "" => LAST_WORDS.to_owned(),
            path => path.to_owned(),
        },
        stop_signal: container
            .lifecycle
            .as_ref()
            .map(|it| it.stop_signal.clone())
            .unwrap_or_default(),
        pod_resources: resources::of_pod(pod)?,
        cpu_request_milli: amounts.cpu_request.unwrap_or(0),
        cpu_limit_milli: amounts.cpu_limit,
        memory_request: amounts.memory_request.unwrap_or(0),
        memory_limit: amounts.memory_limit,
        security: security::of(pod, container),
        mounts,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{EnvVar, ObjectMeta, PodSpec, Quantity, ResourceRequirements};

    use std::collections::BTreeMap;

    use super::*;
    use crate::pods::{
        environment::{Around, environment},
        given::Given,
    };

    #[test]
    fn latest_is_pulled_always() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.25", false),
            ("host:5000/a/nginx", true),
            ("host:5000/a/nginx:2", false),
            ("nginx@sha256:00", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn references_are_expanded_and_requests_default_to_limits() {
        let variable = |name: &str, value: &str| EnvVar {
            name: name.into(),
            value: value.into(),
            ..Default::default()
        };
        let quantity = |value: &str| Quantity {
            value: value.into(),
        };
        let container = Container {
            name: "web".into(),
            args: vec!["--at=$(URL)".into(), "$$(URL)".into()],
            env: vec![
                variable("HOST", "db"),
                variable("URL", "http://$(HOST)/$(LATER)"),
                variable("LATER", "x"),
            ],
            resources: Some(ResourceRequirements {
                limits: [
                    ("cpu".to_owned(), quantity("250m")),
                    ("memory".to_owned(), quantity("64Mi")),
                ]
                .into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let image = Image {
            name: "i".into(),
            id: "i@d".into(),
        };
        let (pod, given) = (Pod::default(), Given::default());
        let around = Around {
            allocatable: &BTreeMap::new(),
            pod: &pod,
            given: &given,
            host_ip: "",
            ips: &[],
        };
        let environment = environment(&container, around).unwrap();
        let spec = container_spec(&pod, &container, 2, image, environment).unwrap();
        assert_eq!(spec.args, ["--at=http://db/$(LATER)", "$(URL)"]);
        assert_eq!(spec.cpu_request_milli, 250);
        assert_eq!(spec.cpu_limit_milli, Some(250));
        assert_eq!(spec.memory_limit, Some(64 << 20));
        assert_eq!(spec.memory_request, 64 << 20);
        assert_eq!(spec.attempt, 2);
    }

    #[test]
    fn the_deletion_decides_the_grace() {
        let mut pod = Pod {
            metadata: Some(ObjectMeta::default()),
            spec: Some(PodSpec {
                termination_grace_period_seconds: Some(7),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(grace(None), Duration::from_secs(30));
        assert_eq!(grace(Some(&pod)), Duration::from_secs(7));
        pod.metadata.as_mut().unwrap().deletion_grace_period_seconds = Some(0);
        assert_eq!(grace(Some(&pod)), Duration::ZERO);
    }
}
