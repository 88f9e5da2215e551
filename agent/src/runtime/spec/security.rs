//! A container's rights in its specification.

use std::collections::HashMap;

use oci_spec::{
    OciSpecError,
    runtime::{
        Capabilities, Capability, Linux, LinuxDevice, LinuxDeviceCgroupBuilder, LinuxSeccomp,
        LinuxSeccompAction, LinuxSyscallBuilder, Process, Spec,
    },
};
use serde_json::Value;

use super::{Inputs, Machine, SECCOMP, SpecError, native};
use crate::runtime::{Seccomp, Security};

/// The system calls that a capability is for (capabilities(7)) and that ordinary programs do not make.
const CALLS: [(&str, &[&str]); 12] = [
    ("BPF", &["bpf"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("PERFMON", &["bpf", "perf_event_open"]),
    (
        "SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    (
        "SYS_MODULE",
        &["delete_module", "finit_module", "init_module"],
    ),
    (
        "SYS_NICE",
        &[
            "get_mempolicy",
            "mbind",
            "migrate_pages",
            "move_pages",
            "set_mempolicy",
        ],
    ),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    (
        "SYS_TIME",
        &["clock_settime", "clock_settime64", "settimeofday", "stime"],
    ),
    ("SYSLOG", &["syslog"]),
];

/// Writes what the pod says of a container's rights into its specification.
pub fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<(), SpecError> {
    let security = &inputs.container.security;
    if let Some(root) = spec.root_mut() {
        root.set_readonly(Some(security.read_only_root));
    }
    if let Some(process) = spec.process_mut() {
        process.set_no_new_privileges(Some(!security.escalation));
        wield(process, inputs)?;
    }
    if security.privileged
        && let Some(mounts) = spec.mounts_mut()
    {
        for mount in mounts
            .iter_mut()
            .filter(|it| it.destination().starts_with("/sys"))
        {
            let options = mount.options().iter().flatten();
            let writable = options.map(|option| match option.as_str() {
                "ro" => "rw".to_owned(),
                other => other.to_owned(),
            });
            let writable = writable.collect();
            mount.set_options(Some(writable));
        }
    }
    let Some(linux) = spec.linux_mut() else {
        return Ok(());
    };
    linux.set_seccomp(calls(security, inputs.profile)?);
    if !security.sysctls.is_empty() {
        let sysctls: HashMap<_, _> = security.sysctls.clone().into_iter().collect();
        linux.set_sysctl(Some(sysctls));
    }
    if security.privileged {
        unbind(linux, inputs.devices)?;
    }
    Ok(())
}

/// The capabilities of the container's first process.
fn wield(process: &mut Process, inputs: &Inputs<'_>) -> Result<(), SpecError> {
    let mut capabilities = process.capabilities().clone().unwrap_or_default();
    let usual = capabilities.bounding().clone().unwrap_or_default();
    let held = held(inputs, usual)?;
    // What root may, another user may not; there is nothing to gain either, unless a file brings it.
    let own = if inputs.user.uid == 0 {
        held.clone()
    } else {
        Capabilities::new()
    };
    capabilities.set_bounding(Some(held));
    capabilities.set_effective(Some(own.clone()));
    capabilities.set_permitted(Some(own));
    process.set_capabilities(Some(capabilities));
    Ok(())
}

/// First all that ALL gives or takes, then the names: so `drop: [ALL]` with `add: [X]` leaves X.
fn held(inputs: &Inputs<'_>, usual: Capabilities) -> Result<Capabilities, SpecError> {
    let security = &inputs.container.security;
    let names = |list: &[String], name: &str| list.iter().any(|it| it == name);
    let mut held = match security.privileged || names(&security.add, "ALL") {
        true => all(inputs.machine)?,
        false => usual,
    };
    if security.privileged {
        return Ok(held);
    }
    if names(&security.drop, "ALL") {
        held.clear();
    }
    for name in security.add.iter().filter(|name| *name != "ALL") {
        held.insert(capability(name)?);
    }
    for name in security.drop.iter().filter(|name| *name != "ALL") {
        held.remove(&capability(name)?);
    }
    Ok(held)
}

/// All that root has on this machine.
fn all(machine: Machine) -> Result<Capabilities, SpecError> {
    let numbered = barge_proto::validate::CAPABILITIES.iter().enumerate();
    let there = numbered.filter(|(number, _)| machine.capabilities >> number & 1 == 1);
    there.map(|(_, name)| capability(name)).collect()
}

fn capability(name: &str) -> Result<Capability, SpecError> {
    Ok(serde_json::from_value(Value::String(format!(
        "CAP_{name}"
    )))?)
}

/// The filter of system calls; `None` for no filter.
fn calls(security: &Security, profile: Option<&str>) -> Result<Option<LinuxSeccomp>, SpecError> {
    if security.privileged {
        return Ok(None);
    }
    match (&security.seccomp, profile) {
        (Seccomp::Unconfined, _) => return Ok(None),
        (Seccomp::Profile(name), Some(text)) => {
            let profile = serde_json::from_str(text);
            let profile = profile.map_err(|error| SpecError::Profile(name.clone(), error))?;
            return Ok(Some(profile));
        }
        (Seccomp::Profile(name), None) => return Err(SpecError::NoProfile(name.clone())),
        (Seccomp::Usual, _) => {}
    }
    let mut usual: LinuxSeccomp = serde_json::from_str(SECCOMP)?;
    usual.set_architectures(Some(native().into_iter().collect()));
    let is_added = |name: &str| security.add.iter().any(|it| it == name || it == "ALL");
    let added = CALLS.iter().filter(|(name, _)| is_added(name));
    let mut added: Vec<String> = added
        .flat_map(|(_, calls)| *calls)
        .map(|it| (*it).to_owned())
        .collect();
    added.sort_unstable();
    added.dedup();
    if !added.is_empty() {
        let mut rules = usual.syscalls().clone().unwrap_or_default();
        // A call has one rule: those with conditions give way.
        rules.retain(|rule| !rule.names().iter().all(|name| added.contains(name)));
        let allowed = LinuxSyscallBuilder::default()
            .names(added)
            .action(LinuxSeccompAction::ScmpActAllow);
        rules.push(allowed.build()?);
        usual.set_syscalls(Some(rules));
    }
    Ok(Some(usual))
}

/// A privileged container sees and uses the machine's devices and kernel settings.
fn unbind(linux: &mut Linux, devices: &[LinuxDevice]) -> Result<(), OciSpecError> {
    linux.set_masked_paths(None);
    linux.set_readonly_paths(None);
    linux.set_devices(Some(devices.to_vec()));
    if let Some(resources) = linux.resources_mut() {
        let everything = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .access("rwm");
        resources.set_devices(Some(vec![everything.build()?]));
    }
    Ok(())
}
