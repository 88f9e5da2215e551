//! What a pod is promised and held to, in the kernel's terms. The formulas are Kubernetes': a container behaves here as
//! it does there.

use std::{fs, path::Path};

/// The kernel's least `cpu.shares`, and what a pod or container without a request gets.
pub const LEAST_SHARES: u64 = 2;
/// The kernel's most `cpu.shares`.
const MOST_SHARES: u64 = 262_144;

/// Kubernetes' quality of service class of a pod, the worst first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum QosClass {
    /// No container requests or limits cpu or memory.
    #[default]
    BestEffort,
    /// Anything between the two others.
    Burstable,
    /// Every container has limits of cpu and memory, and requests as much.
    Guaranteed,
}

/// What the containers of a pod request and may use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodResources {
    /// The pod's class.
    pub qos: QosClass,
    /// Sum of the CPU requests, in thousandths of a core.
    pub cpu_request_milli: u64,
    /// Sum of the memory limits in bytes; `None` unless every container has one.
    pub memory_limit: Option<u64>,
}

/// `cpu.shares` of a CPU request in thousandths of a core: 1024 a core (`MilliCPUToShares` in Kubernetes' `pkg/kubelet/cm`).
pub fn cpu_shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(LEAST_SHARES, MOST_SHARES)
}

/// `cpu.weight` (1 to 10,000) of `cpu.shares`: the line between both ranges' ends (KEP-2254, "cgroup v2").
pub fn cpu_weight(shares: u64) -> u64 {
    let above = shares.clamp(LEAST_SHARES, MOST_SHARES) - LEAST_SHARES;
    1 + above * 9_999 / (MOST_SHARES - LEAST_SHARES)
}

/// `oom_score_adj` of a container: when memory runs out the kernel ends those with the highest first. By the pod's class,
/// and for burstable pods by the share of the machine's memory that the container does not request
/// (`GetContainerOOMScoreAdjust` in Kubernetes' `pkg/kubelet/qos`). Both amounts are in bytes.
pub fn oom_score_adj(qos: QosClass, memory_request: u64, machine_memory: u64) -> i32 {
    match qos {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let requested = u128::from(memory_request) * 1000;
            let requested = requested.checked_div(u128::from(machine_memory));
            let requested = i32::try_from(requested.unwrap_or(0)).unwrap_or(1000);
            // Never as safe as a guaranteed pod, never as unsafe as one of best effort.
            (1000_i32.saturating_sub(requested)).clamp(3, 999)
        }
    }
}

/// What of the machine the containers' descriptions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Its memory in bytes; 0 when it does not say.
    pub memory: u64,
    /// The least `oom_score_adj` that a container can be given. Without `CAP_SYS_RESOURCE` (in a container, or a restricted
    /// virtual machine) the kernel refuses scores below the one that a process has, and no container would start.
    pub least_oom_score_adj: i32,
    /// The capabilities that root has here, by number: nobody can be given others.
    pub capabilities: u64,
}

/// The number of CAP_SYS_RESOURCE.
const SYS_RESOURCE: u32 = 24;

impl Machine {
    /// Looks at the machine, whose `/proc` this is.
    pub fn read(proc: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let capabilities = capabilities(&read("self/status"));
        let least_oom_score_adj = match capabilities >> SYS_RESOURCE & 1 {
            1 => -1000,
            _ => {
                tracing::warn!(
                    "CAP_SYS_RESOURCE is missing: pods of the class Guaranteed are not protected when memory runs out"
                );
                let own = read("self/oom_score_adj").trim().parse().unwrap_or(0);
                0.max(own)
            }
        };
        Self {
            memory: memory(&read("meminfo")),
            least_oom_score_adj,
            capabilities,
        }
    }
}

/// From the text of `/proc/self/status`; all when it does not say.
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    capabilities.unwrap_or(u64::MAX)
}

/// From the text of `/proc/meminfo`.
fn memory(meminfo: &str) -> u64 {
    let mut lines = meminfo.lines();
    let total = lines.find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn weights_are_as_the_requests_are() {
        for (milli, shares, weight) in [
            (0, 2, 1),
            (1, 2, 1),
            (100, 102, 4),
            (1000, 1024, 39),
            (10_000, 10_240, 391),
            (1_000_000, 262_144, 10_000),
        ] {
            assert_eq!(cpu_shares(milli), shares, "{milli}");
            assert_eq!(cpu_weight(shares), weight, "{milli}");
        }
    }

    #[test]
    fn the_kernel_ends_first_whoever_was_promised_least() {
        let burstable = |request| oom_score_adj(QosClass::Burstable, request, 8 << 30);
        assert_eq!(oom_score_adj(QosClass::Guaranteed, 1 << 30, 8 << 30), -997);
        assert_eq!(burstable(8 << 30), 3);
        assert_eq!(burstable(u64::MAX), 3);
        assert_eq!(burstable(2 << 30), 750);
        assert_eq!(burstable(1), 999);
        assert_eq!(burstable(0), 999);
        assert_eq!(oom_score_adj(QosClass::Burstable, 1, 0), 999);
        assert_eq!(oom_score_adj(QosClass::BestEffort, 0, 8 << 30), 1000);
    }

    #[test]
    fn the_machine_says_what_it_has_and_allows() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("self")).unwrap();
        let write = |name: &str, text: &str| fs::write(proc.path().join(name), text).unwrap();
        write("meminfo", "MemTotal:   16 kB\nMemFree: 1 kB\n");
        write("self/oom_score_adj", "7\n");
        for (capabilities, least) in [("000001ffffffffff", -1000), ("000001fffeffffff", 7)] {
            write(
                "self/status",
                &format!("Name: x\nCapEff:\t{capabilities}\n"),
            );
            let machine = Machine {
                memory: 16_384,
                least_oom_score_adj: least,
                capabilities: u64::from_str_radix(capabilities, 16).unwrap(),
            };
            assert_eq!(Machine::read(proc.path()), machine);
        }
        assert_eq!(memory("MemTotal: lots\n"), 0);
    }

    proptest! {
        #[test]
        fn within_what_the_kernel_takes(milli: u64, request: u64, memory: u64) {
            let shares = cpu_shares(milli);
            prop_assert!((2..=262_144).contains(&shares));
            prop_assert!((1..=10_000).contains(&cpu_weight(shares)));
            prop_assert!((3..1000).contains(&oom_score_adj(QosClass::Burstable, request, memory)));
        }
    }
}
