//! How much a pod may ask of its node: the levels of Kubernetes' Pod Security Standards, which a namespace chooses by labels.

use super::{Checker, Violation, pod::containers, probe};
use crate::v1::{Namespace, ObjectMeta, PodSecurityContext, PodSpec, SecurityContext};

/// What the labels of Pod Security begin with.
const PREFIX: &str = "pod-security.kubernetes.io/";
/// The namespace of what the cluster itself needs.
const EXEMPT: &str = "kube-system";

/// Capabilities that `baseline` allows to be added.
const BASELINE: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A level of the Pod Security Standards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is allowed.
    Privileged,
    /// Nothing that makes a process more than a process of its container.
    Baseline,
    /// As little as an ordinary program needs.
    Restricted,
}

/// What a namespace says of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// What breaks this level is refused.
    pub enforce: Level,
    /// What breaks this level is taken, with a warning.
    pub warn: Level,
}

impl Default for Levels {
    /// Of a namespace without labels.
    fn default() -> Self {
        Self {
            enforce: Level::Baseline,
            warn: Level::Baseline,
        }
    }
}

impl Level {
    /// As it is written in a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let all = [Self::Privileged, Self::Baseline, Self::Restricted];
        all.into_iter().find(|level| level.name() == name)
    }

    /// What of a pod breaks this level, by field. `path` is where the pod stands ("spec.template.spec").
    #[must_use]
    pub fn violations(self, path: &str, pod: &PodSpec) -> Vec<Violation> {
        let mut found = Vec::new();
        if self >= Self::Baseline {
            baseline(path, pod, &mut found);
        }
        if self == Self::Restricted {
            restricted(path, pod, &mut found);
        }
        found
    }
}

impl Levels {
    /// Those of a namespace. Without a label `enforce` is `baseline`, and `warn` is as `enforce`; in `kube-system` it is `privileged`.
    #[must_use]
    pub fn of(namespace: &ObjectMeta) -> Self {
        let label = |name: &str| {
            let value = namespace.labels.get(&format!("{PREFIX}{name}"))?;
            Level::parse(value)
        };
        let usual = match namespace.name == EXEMPT {
            true => Level::Privileged,
            false => Level::Baseline,
        };
        let enforce = label("enforce").unwrap_or(usual);
        Self {
            enforce,
            warn: label("warn").unwrap_or(enforce),
        }
    }

    /// The label that sets what is refused.
    #[must_use]
    pub fn label(self) -> String {
        format!("{PREFIX}enforce={}", self.enforce.name())
    }
}

impl Checker {
    /// A level that is none would be no level at all.
    pub(super) fn pod_security_levels(&mut self, namespace: &Namespace) {
        let labels = namespace.metadata.iter().flat_map(|meta| &meta.labels);
        for (key, value) in labels {
            let Some(mode) = key.strip_prefix(PREFIX) else {
                continue;
            };
            let field = format!("metadata.labels[{key}]");
            let shown = format_args!("{value:?}");
            match mode {
                "enforce" | "warn" | "audit" if Level::parse(value).is_none() => {
                    self.violated(field, shown, "must be privileged, baseline or restricted");
                }
                "enforce" | "warn" | "audit" => {}
                "enforce-version" | "warn-version" | "audit-version" if value == "latest" => {}
                "enforce-version" | "warn-version" | "audit-version" => {
                    let rule = "must be latest: Barge has the rules of one version";
                    self.violated(field, shown, rule);
                }
                _ => {
                    let rule = "is no label of Pod Security: there are enforce, warn and audit, and each of them with -version";
                    self.violated(field, "", rule);
                }
            }
        }
    }
}

/// The security contexts of a pod's containers with their paths; one that is absent says nothing.
fn contexts(path: &str, pod: &PodSpec) -> Vec<(String, SecurityContext)> {
    let each = containers(path, pod).into_iter().map(|(path, container)| {
        let path = format!("{path}.securityContext");
        (path, container.security_context.clone().unwrap_or_default())
    });
    each.collect()
}

fn broken(found: &mut Vec<Violation>, field: String, value: &str, rule: &str) {
    found.push(Violation {
        field,
        value: value.to_owned(),
        rule: rule.to_owned(),
    });
}

fn baseline(path: &str, pod: &PodSpec, found: &mut Vec<Violation>) {
    let unconfined = |profile: &Option<crate::v1::SeccompProfile>| {
        profile.as_ref().is_some_and(|it| it.r#type == "Unconfined")
    };
    let of_pod = pod.security_context.clone().unwrap_or_default();
    if unconfined(&of_pod.seccomp_profile) {
        let field = format!("{path}.securityContext.seccompProfile.type");
        broken(
            found,
            field,
            "Unconfined",
            "must be RuntimeDefault or Localhost",
        );
    }
    hosts(path, pod, found);
    host_paths(path, pod, found);
    namespaces(path, pod, found);
    for (path, own) in contexts(path, pod) {
        if own.privileged == Some(true) {
            broken(found, format!("{path}.privileged"), "true", "must be false");
        }
        if unconfined(&own.seccomp_profile) {
            let field = format!("{path}.seccompProfile.type");
            broken(
                found,
                field,
                "Unconfined",
                "must be RuntimeDefault or Localhost",
            );
        }
        let added = own.capabilities.iter().flat_map(|it| &it.add).enumerate();
        for (index, name) in added {
            if !BASELINE.contains(&name.strip_prefix("CAP_").unwrap_or(name)) {
                let field = format!("{path}.capabilities.add[{index}]");
                let rule = format!("must be one of {}", BASELINE.join(", "));
                broken(found, field, name, &rule);
            }
        }
    }
}

/// A probe's host would have the node ask other machines in the pod's name.
fn hosts(path: &str, pod: &PodSpec, found: &mut Vec<Violation>) {
    for (path, container) in containers(path, pod) {
        for (field, host) in probe::hosts(container) {
            let field = format!("{path}.{field}");
            let rule = "must be absent: the node asks at the pod's address";
            broken(found, field, &host, rule);
        }
    }
}

/// Files of the node. All other volumes that there are, `restricted` allows, too.
fn host_paths(path: &str, pod: &PodSpec, found: &mut Vec<Violation>) {
    for (index, volume) in pod.volumes.iter().enumerate() {
        if let Some(source) = &volume.host_path {
            let field = format!("{path}.volumes[{index}].hostPath");
            let rule = "must be absent: pods have no files of the node";
            broken(found, field, &source.path, rule);
        }
    }
}

/// The node's own namespaces and ports.
fn namespaces(path: &str, pod: &PodSpec, found: &mut Vec<Violation>) {
    let shared = [
        ("hostNetwork", pod.host_network),
        ("hostPID", pod.host_pid),
        ("hostIPC", pod.host_ipc),
    ];
    for (field, _) in shared.into_iter().filter(|(_, is_set)| *is_set) {
        broken(found, format!("{path}.{field}"), "true", "must be false");
    }
    for (path, container) in containers(path, pod) {
        let ports = container.ports.iter().enumerate();
        for (number, port) in ports.filter(|(_, port)| port.host_port != 0) {
            let field = format!("{path}.ports[{number}].hostPort");
            broken(found, field, &port.host_port.to_string(), "must be absent");
        }
    }
}

fn restricted(path: &str, pod: &PodSpec, found: &mut Vec<Violation>) {
    let of_pod: PodSecurityContext = pod.security_context.clone().unwrap_or_default();
    if of_pod.run_as_user == Some(0) {
        let field = format!("{path}.securityContext.runAsUser");
        broken(found, field, "0", "must not be root");
    }
    for (path, own) in contexts(path, pod) {
        if own.allow_privilege_escalation != Some(false) {
            let field = format!("{path}.allowPrivilegeEscalation");
            broken(found, field, "", "must be set to false");
        }
        if own.run_as_non_root.or(of_pod.run_as_non_root) != Some(true) {
            let field = format!("{path}.runAsNonRoot");
            broken(
                found,
                field,
                "",
                "must be set to true, here or in the pod's securityContext",
            );
        }
        if own.run_as_user == Some(0) {
            broken(found, format!("{path}.runAsUser"), "0", "must not be root");
        }
        let profile = own.seccomp_profile.or(of_pod.seccomp_profile.clone());
        // Unconfined is told by baseline.
        if profile.is_none() {
            let field = format!("{path}.seccompProfile.type");
            let rule =
                "must be set to RuntimeDefault or Localhost, here or in the pod's securityContext";
            broken(found, field, "", rule);
        }
        let capabilities = own.capabilities.unwrap_or_default();
        if !capabilities.drop.iter().any(|name| name == "ALL") {
            let field = format!("{path}.capabilities.drop");
            broken(found, field, "", "must have ALL");
        }
        for (index, name) in capabilities.add.iter().enumerate() {
            if !matches!(name.as_str(), "NET_BIND_SERVICE" | "CAP_NET_BIND_SERVICE") {
                let field = format!("{path}.capabilities.add[{index}]");
                broken(
                    found,
                    field,
                    name,
                    "must be NET_BIND_SERVICE, the only one that may be added",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{
        Capabilities, Container, EmptyDirVolumeSource, HostPathVolumeSource, SeccompProfile, Volume,
    };

    fn profile(kind: &str) -> Option<SeccompProfile> {
        Some(SeccompProfile {
            r#type: kind.to_owned(),
            ..SeccompProfile::default()
        })
    }

    /// A pod that is allowed everywhere.
    fn modest() -> SecurityContext {
        SecurityContext {
            allow_privilege_escalation: Some(false),
            run_as_non_root: Some(true),
            seccomp_profile: profile("RuntimeDefault"),
            capabilities: Some(Capabilities {
                add: vec!["NET_BIND_SERVICE".into()],
                drop: vec!["ALL".into()],
            }),
            ..SecurityContext::default()
        }
    }

    fn pod(own: SecurityContext) -> PodSpec {
        PodSpec {
            containers: vec![Container {
                security_context: Some(own),
                ..Container::default()
            }],
            ..PodSpec::default()
        }
    }

    fn fields(level: Level, pod: &PodSpec) -> Vec<String> {
        let found = level.violations("spec", pod).into_iter();
        found
            .map(|it| it.field.replace("spec.containers[0].securityContext.", ""))
            .collect()
    }

    #[test]
    fn each_control_has_its_level() {
        use Level::{Baseline, Privileged, Restricted};
        let none = Vec::<String>::new();
        assert_eq!(fields(Restricted, &pod(modest())), none);
        let with = |change: &dyn Fn(&mut SecurityContext)| {
            let mut own = modest();
            change(&mut own);
            pod(own)
        };
        type Change = &'static dyn Fn(&mut SecurityContext);
        let cases: [(Level, &str, Change); 10] = [
            (Baseline, "privileged", &|it| it.privileged = Some(true)),
            (Baseline, "seccompProfile.type", &|it| {
                it.seccomp_profile = profile("Unconfined")
            }),
            (Baseline, "capabilities.add[0]", &|it| {
                it.capabilities.get_or_insert_default().add = vec!["NET_ADMIN".into()];
            }),
            (Restricted, "capabilities.add[0]", &|it| {
                it.capabilities.get_or_insert_default().add = vec!["CHOWN".into()];
            }),
            (Restricted, "capabilities.drop", &|it| {
                it.capabilities.get_or_insert_default().drop = vec!["CHOWN".into()];
            }),
            (Restricted, "allowPrivilegeEscalation", &|it| {
                it.allow_privilege_escalation = None
            }),
            (Restricted, "runAsNonRoot", &|it| it.run_as_non_root = None),
            (Restricted, "runAsNonRoot", &|it| {
                it.run_as_non_root = Some(false)
            }),
            (Restricted, "runAsUser", &|it| it.run_as_user = Some(0)),
            (Restricted, "seccompProfile.type", &|it| {
                it.seccomp_profile = None
            }),
        ];
        for (level, field, change) in cases {
            let pod = with(change);
            assert!(fields(level, &pod).contains(&field.to_owned()), "{field}");
            let below = if level == Baseline {
                Privileged
            } else {
                Baseline
            };
            assert_eq!(fields(below, &pod), none, "{field}");
        }
        let plain = PodSpec {
            containers: vec![Container::default()],
            ..PodSpec::default()
        };
        assert_eq!(fields(Baseline, &plain), none);
        assert_eq!(fields(Restricted, &plain).len(), 4);
    }

    #[test]
    fn nothing_of_the_node_is_for_baseline() {
        use crate::v1::ContainerPort;
        let with = |change: &dyn Fn(&mut PodSpec)| {
            let mut pod = pod(modest());
            change(&mut pod);
            pod
        };
        type Change = &'static dyn Fn(&mut PodSpec);
        let cases: [(&str, Change); 4] = [
            ("spec.hostNetwork", &|it| it.host_network = true),
            ("spec.hostPID", &|it| it.host_pid = true),
            ("spec.hostIPC", &|it| it.host_ipc = true),
            ("spec.containers[0].ports[0].hostPort", &|it| {
                it.containers[0].ports = vec![ContainerPort {
                    host_port: 80,
                    ..ContainerPort::default()
                }];
            }),
        ];
        for (field, change) in cases {
            let pod = with(change);
            assert_eq!(fields(Level::Privileged, &pod), Vec::<String>::new());
            assert_eq!(fields(Level::Baseline, &pod), [field]);
            assert_eq!(fields(Level::Restricted, &pod), [field]);
        }
        let shared = with(&|it| it.share_process_namespace = true);
        assert_eq!(fields(Level::Restricted, &shared), Vec::<String>::new());
    }

    #[test]
    fn files_of_the_node_are_for_privileged_pods() {
        let mut pod = pod(modest());
        pod.volumes = vec![
            Volume {
                empty_dir: Some(EmptyDirVolumeSource::default()),
                ..Volume::default()
            },
            Volume {
                host_path: Some(HostPathVolumeSource::default()),
                ..Volume::default()
            },
        ];
        let refused = ["spec.volumes[1].hostPath"];
        assert_eq!(fields(Level::Restricted, &pod), refused);
        assert_eq!(fields(Level::Baseline, &pod), refused);
        assert!(fields(Level::Privileged, &pod).is_empty());
    }

    #[test]
    fn what_the_pod_says_counts_for_its_containers() {
        let mut pod = pod(SecurityContext {
            run_as_non_root: None,
            seccomp_profile: None,
            ..modest()
        });
        pod.security_context = Some(PodSecurityContext {
            run_as_non_root: Some(true),
            seccomp_profile: profile("RuntimeDefault"),
            ..PodSecurityContext::default()
        });
        assert_eq!(fields(Level::Restricted, &pod), Vec::<String>::new());
        pod.security_context = Some(PodSecurityContext {
            seccomp_profile: profile("Unconfined"),
            ..PodSecurityContext::default()
        });
        assert_eq!(
            fields(Level::Baseline, &pod),
            ["spec.securityContext.seccompProfile.type"]
        );
    }

    #[test]
    fn namespaces_choose_by_label() {
        let named = |name: &str, labels: &[(&str, &str)]| {
            let labels = labels
                .iter()
                .map(|(mode, level)| (format!("{PREFIX}{mode}"), (*level).to_owned()));
            Levels::of(&ObjectMeta {
                name: name.to_owned(),
                labels: labels.collect(),
                ..ObjectMeta::default()
            })
        };
        assert_eq!(named("default", &[]), Levels::default());
        assert_eq!(named("kube-system", &[]).enforce, Level::Privileged);
        assert_eq!(
            named("kube-system", &[("enforce", "restricted")]).enforce,
            Level::Restricted
        );
        let both = named("a", &[("enforce", "privileged"), ("warn", "restricted")]);
        assert_eq!(
            (both.enforce, both.warn),
            (Level::Privileged, Level::Restricted)
        );
        assert_eq!(
            named("a", &[("enforce", "privileged")]).warn,
            Level::Privileged
        );
    }
}
