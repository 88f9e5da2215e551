//! Security contexts of pods and containers.

use super::Checker;
use crate::v1::{PodSecurityContext, SeccompProfile, SecurityContext};

/// The kernel's largest id; -1 means something else there.
const LARGEST_ID: i64 = 0x7fff_ffff;

/// Kernel settings that belong to the pod's own namespaces and take nothing from other pods: the safe ones of Kubernetes.
pub const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// The kernel's capabilities without CAP_, in the order of their numbers (linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Checker {
    pub(super) fn pod_security(&mut self, path: &str, context: &PodSecurityContext) {
        self.id(path, "runAsUser", context.run_as_user);
        self.id(path, "runAsGroup", context.run_as_group);
        self.id(path, "fsGroup", context.fs_group);
        for (index, group) in context.supplemental_groups.iter().enumerate() {
            let field = format!("supplementalGroups[{index}]");
            self.id(path, &field, Some(*group));
        }
        self.non_root(path, context.run_as_non_root, context.run_as_user);
        if let Some(policy) = &context.supplemental_groups_policy {
            let field = format!("{path}.supplementalGroupsPolicy");
            self.one_of(field, policy, &["Merge", "Strict"]);
        }
        if let Some(policy) = &context.fs_group_change_policy {
            let field = format!("{path}.fsGroupChangePolicy");
            self.one_of(field, policy, &["Always", "OnRootMismatch"]);
        }
        if let Some(profile) = &context.seccomp_profile {
            self.seccomp(&format!("{path}.seccompProfile"), profile);
        }
        let mut seen = std::collections::HashSet::new();
        for (index, sysctl) in context.sysctls.iter().enumerate() {
            let field = format!("{path}.sysctls[{index}].name");
            let name = sysctl.name.replace('/', ".");
            let shown = format_args!("{:?}", sysctl.name);
            if !SAFE_SYSCTLS.contains(&name.as_str()) {
                let rule = format!(
                    "is not a setting that a pod may change, because other pods on the node would feel it; there are {}",
                    SAFE_SYSCTLS.join(", ")
                );
                self.violated(field, shown, rule);
            } else if !seen.insert(name) {
                self.violated(field, shown, "is set twice");
            }
        }
    }

    pub(super) fn security(&mut self, path: &str, context: &SecurityContext) {
        self.id(path, "runAsUser", context.run_as_user);
        self.id(path, "runAsGroup", context.run_as_group);
        self.non_root(path, context.run_as_non_root, context.run_as_user);
        if let Some(profile) = &context.seccomp_profile {
            self.seccomp(&format!("{path}.seccompProfile"), profile);
        }
        let mut gains = context.privileged.unwrap_or(false).then_some("privileged");
        if let Some(capabilities) = &context.capabilities {
            for (field, names) in [("add", &capabilities.add), ("drop", &capabilities.drop)] {
                for (index, name) in names.iter().enumerate() {
                    self.capability(format!("{path}.capabilities.{field}[{index}]"), name);
                }
            }
            let admin = |name: &String| matches!(plain(name), "SYS_ADMIN" | "ALL");
            if capabilities.add.iter().any(admin) {
                gains.get_or_insert("capabilities.add with SYS_ADMIN");
            }
        }
        if let (Some(false), Some(gains)) = (context.allow_privilege_escalation, gains) {
            let field = format!("{path}.allowPrivilegeEscalation");
            self.violated(
                field,
                false,
                format!("contradicts {gains}: remove one of them"),
            );
        }
    }

    fn id(&mut self, path: &str, field: &str, id: Option<i64>) {
        if let Some(id) = id.filter(|id| !(0..=LARGEST_ID).contains(id)) {
            let rule = format!("must be between 0 and {LARGEST_ID}");
            self.violated(format!("{path}.{field}"), id, rule);
        }
    }

    fn non_root(&mut self, path: &str, non_root: Option<bool>, user: Option<i64>) {
        if non_root == Some(true) && user == Some(0) {
            let rule = "is root, and runAsNonRoot of the same context is true";
            self.violated(format!("{path}.runAsUser"), 0, rule);
        }
    }

    fn seccomp(&mut self, path: &str, profile: &SeccompProfile) {
        let types = ["RuntimeDefault", "Unconfined", "Localhost"];
        let field = format!("{path}.type");
        if profile.r#type.is_empty() {
            self.required(field);
        } else {
            self.one_of(field, &profile.r#type, &types);
        }
        let file = &profile.localhost_profile;
        let field = format!("{path}.localhostProfile");
        match (profile.r#type == "Localhost", file.is_empty()) {
            (true, true) => self.required(field),
            (false, false) => {
                self.violated(
                    field,
                    format_args!("{file:?}"),
                    "is for the type Localhost only",
                );
            }
            _ => {}
        }
        let outside = |part: &str| part == "..";
        if file.starts_with('/') || file.split('/').any(outside) {
            let rule = "must be a path below the agent's folder for profiles, without \"..\"";
            self.violated(
                format!("{path}.localhostProfile"),
                format_args!("{file:?}"),
                rule,
            );
        }
    }

    fn capability(&mut self, field: String, name: &str) {
        let known = plain(name);
        if known != "ALL" && !CAPABILITIES.contains(&known) {
            let rule = "is no capability of the kernel; they are written as NET_ADMIN, and ALL stands for all of them";
            self.violated(field, format_args!("{name:?}"), rule);
        }
    }
}

/// A capability's name without CAP_, which some write.
fn plain(name: &str) -> &str {
    name.strip_prefix("CAP_").unwrap_or(name)
}
