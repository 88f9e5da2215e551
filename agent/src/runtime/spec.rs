//! What runc is told: an OCI runtime specification, computed from values alone.

use std::{collections::BTreeMap, path::Path};

use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, LinuxCpuBuilder, LinuxDevice, LinuxMemoryBuilder, LinuxNamespaceBuilder,
        LinuxNamespaceType, Mount, MountBuilder, Spec, UserBuilder,
    },
};

use super::{
    ContainerSpec,
    cgroup::CgroupVersion,
    images::ImageConfig,
    resources::{Machine, cpu_shares, oom_score_adj},
    sandbox::{etc, shared::Shared},
};

mod security;
pub mod user;

use user::User;

/// What is the same for all containers.
const BASE: &str = include_str!("spec/base.json");
/// System calls that containers may make: those of ordinary programs. None that needs a capability no container has,
/// no new user namespaces, no sockets of virtual machines.
const SECCOMP: &str = include_str!("spec/seccomp.json");

/// As shells have it, for images that say nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Microseconds over which processor time is limited.
const CPU_PERIOD: u64 = 100_000;
/// The kernel takes no less, in microseconds a period.
const LEAST_QUOTA: u64 = 1_000;
/// Where programs look for shared memory.
const DEV_SHM: &str = "/dev/shm";
/// Containers of one pod share a shim: it saves 10 ms a start and 4 MB each.
const SHIM_GROUP: &str = "io.containerd.runc.v2.group";

/// All that a specification depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What the pod wants.
    pub container: &'a ContainerSpec,
    /// What the image says.
    pub image: &'a ImageConfig,
    /// Who the process is.
    pub user: &'a User,
    /// The host name: the pod's, or the machine's in its network.
    pub hostname: &'a str,
    /// The network namespace that the pod is in.
    pub netns: &'a Path,
    /// What the pod's containers share; `None`: this one has its own, as all of its pod.
    pub shared: Option<&'a Shared>,
    /// Folder of the pod's files for `/etc`.
    pub etc: &'a Path,
    /// The container's control group.
    pub cgroup: &'a str,
    /// Which version the machine uses.
    pub version: CgroupVersion,
    /// What it runs on.
    pub machine: Machine,
    /// The machine's devices, for a privileged container.
    pub devices: &'a [LinuxDevice],
    /// The content of the profile of system calls that the pod names.
    pub profile: Option<&'a str>,
}

/// Why there is no specification.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Nothing to run.
    #[error("neither the pod nor the image says what to run: set command")]
    NoCommand,
    /// A working directory that is not absolute.
    #[error("the working directory \"{0}\" is not an absolute path")]
    WorkingDir(String),
    /// A profile of system calls that is not on the machine.
    #[error(
        "the seccomp profile \"{0}\" is not on this node: put it into the folder seccomp of the agent's data folder"
    )]
    NoProfile(String),
    /// A profile of system calls that is none.
    #[error("the seccomp profile \"{0}\" of this node cannot be read: {1}")]
    Profile(String, serde_json::Error),
    /// A value the format does not take.
    #[error("the container cannot be described to runc: {0}")]
    Oci(#[from] OciSpecError),
    /// A built-in part that does not parse; tests see to it that this does not happen.
    #[error("a built-in part of the description cannot be read: {0}")]
    BuiltIn(#[from] serde_json::Error),
}

/// Computes the specification.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec, SpecError> {
    let mut spec: Spec = serde_json::from_str(BASE)?;
    let Inputs {
        container, image, ..
    } = inputs;
    // runc would set the machine's.
    let own_name = !container.namespaces.host_network;
    spec.set_hostname(own_name.then(|| inputs.hostname.to_owned()));
    let group = (SHIM_GROUP.to_owned(), container.pod_uid.clone());
    spec.set_annotations(Some([group].into()));
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(arguments(container, image)?));
        process.set_env(Some(environment(container, image, inputs.hostname)));
        process.set_cwd(working_dir(container, image)?.into());
        process.set_user(
            UserBuilder::default()
                .uid(inputs.user.uid)
                .gid(inputs.user.gid)
                .additional_gids(inputs.user.groups.clone())
                .build()?,
        );
        // Always set: containerd's own must not be inherited.
        let score = oom_score_adj(
            container.pod_resources.qos,
            container.memory_request,
            inputs.machine.memory,
        );
        process.set_oom_score_adj(Some(score.max(inputs.machine.least_oom_score_adj)));
    }
    if let Some(mounts) = spec.mounts_mut() {
        for file in etc::FILES {
            mounts.push(bind(&inputs.etc.join(file), &Path::new("/etc").join(file))?);
        }
        let shm = match (container.namespaces.host_ipc, inputs.shared) {
            (true, _) => Some(Path::new(DEV_SHM)),
            (false, shared) => shared.map(|shared| shared.shm.as_path()),
        };
        for mount in mounts {
            if let Some(shm) = shm
                && mount.destination() == Path::new(DEV_SHM)
            {
                *mount = bind(shm, Path::new(DEV_SHM))?;
            }
        }
    }
    isolate(&mut spec, inputs)?;
    security::apply(&mut spec, inputs)?;
    Ok(spec)
}

/// Namespaces, limits, system calls.
fn isolate(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<(), SpecError> {
    let Some(linux) = spec.linux_mut() else {
        return Ok(());
    };
    linux.set_cgroups_path(Some(inputs.cgroup.into()));
    if let Some(namespaces) = linux.namespaces_mut() {
        let network = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(inputs.netns);
        namespaces.push(network.build()?);
        let wanted = inputs.container.namespaces;
        // Without an entry a container is in containerd's, which is the machine's.
        namespaces.retain(|namespace| match namespace.typ() {
            LinuxNamespaceType::Ipc => !wanted.host_ipc,
            LinuxNamespaceType::Uts => !wanted.host_network,
            LinuxNamespaceType::Pid => !wanted.host_pid,
            _ => true,
        });
        if let Some(shared) = inputs.shared {
            for namespace in namespaces.iter_mut() {
                let path = match namespace.typ() {
                    LinuxNamespaceType::Ipc => &shared.ipc,
                    LinuxNamespaceType::Uts => &shared.uts,
                    LinuxNamespaceType::Pid if wanted.shared_pid => &shared.pause.pin,
                    _ => continue,
                };
                namespace.set_path(Some(path.clone()));
            }
        }
        // In version 1 the view inside would hide what runtimes look for to size themselves.
        if inputs.version == CgroupVersion::V2 {
            let cgroup = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Cgroup);
            namespaces.push(cgroup.build()?);
        }
    }
    if let Some(resources) = linux.resources_mut() {
        let container = inputs.container;
        let mut cpu = LinuxCpuBuilder::default().shares(cpu_shares(container.cpu_request_milli));
        if let Some(limit) = container.cpu_limit_milli {
            cpu = cpu.period(CPU_PERIOD).quota(quota(limit));
        }
        resources.set_cpu(Some(cpu.build()?));
        if let Some(limit) = container.memory_limit {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            resources.set_memory(Some(LinuxMemoryBuilder::default().limit(limit).build()?));
        }
    }
    Ok(())
}

fn quota(milli: u64) -> i64 {
    let quota = (milli.saturating_mul(CPU_PERIOD) / 1000).max(LEAST_QUOTA);
    i64::try_from(quota).unwrap_or(i64::MAX)
}

/// The machine's own system calls only: runc compiles the filter anew for each container, and the old 32-bit ones would
/// add 7 ms each to every start.
fn native() -> Option<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Arch::ScmpArchX86_64),
        "aarch64" => Some(Arch::ScmpArchAarch64),
        _ => None,
    }
}

/// The pod's command replaces the image's entry point and its command, the pod's arguments only the latter.
fn arguments(container: &ContainerSpec, image: &ImageConfig) -> Result<Vec<String>, SpecError> {
    let (program, rest) = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => (&container.command, &container.args),
        (true, false) => (&image.entrypoint, &container.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let arguments: Vec<String> = program.iter().chain(rest).cloned().collect();
    match arguments.first() {
        Some(program) if !program.is_empty() => Ok(arguments),
        _ => Err(SpecError::NoCommand),
    }
}

/// The image's variables in its order, overridden by the pod's; later definitions win.
fn environment(container: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut order: Vec<&str> = Vec::new();
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    let fixed = [("PATH", DEFAULT_PATH), ("HOSTNAME", hostname)];
    let image = image.env.iter().filter_map(|pair| pair.split_once('='));
    let pod = container
        .env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in fixed.into_iter().chain(image).chain(pod) {
        if values.insert(name, value).is_none() {
            order.push(name);
        }
    }
    order
        .iter()
        .map(|name| format!("{name}={}", values[name]))
        .collect()
}

fn working_dir(container: &ContainerSpec, image: &ImageConfig) -> Result<String, SpecError> {
    let wanted = [&container.working_dir, &image.working_dir]
        .into_iter()
        .find(|dir| !dir.is_empty());
    let dir = wanted.map_or("/", String::as_str);
    match dir.starts_with('/') {
        true => Ok(dir.to_owned()),
        false => Err(SpecError::WorkingDir(dir.to_owned())),
    }
}

fn bind(source: &Path, destination: &Path) -> Result<Mount, OciSpecError> {
    let options = ["rbind", "rprivate", "rw"].map(str::to_owned);
    MountBuilder::default()
        .source(source)
        .destination(destination)
        .typ("bind")
        .options(options)
        .build()
}

#[cfg(test)]
mod tests;
