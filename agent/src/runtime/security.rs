//! Who a container's processes are and what they may do, as far as the pod decides it.

use std::collections::BTreeMap;

/// What the pod says. The default is a container without a security context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// User id; `None`: the image's user.
    pub run_as_user: Option<u32>,
    /// Primary group; `None`: the user's.
    pub run_as_group: Option<u32>,
    /// A container whose user would be 0 does not start.
    pub run_as_non_root: bool,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Without the groups that the image's `/etc/group` gives to the user.
    pub only_these_groups: bool,
    /// All capabilities, all devices, all system calls.
    pub privileged: bool,
    /// The image's file system cannot be written to.
    pub read_only_root: bool,
    /// A process may gain rights by what it executes.
    pub escalation: bool,
    /// Capabilities besides the usual ones, without `CAP_`; `ALL` stands for all.
    pub add: Vec<String>,
    /// Capabilities that are taken away, likewise. What `add` names stays when all others go.
    pub drop: Vec<String>,
    /// Which system calls.
    pub seccomp: Seccomp,
    /// Kernel settings of the pod's namespaces, with dots.
    pub sysctls: BTreeMap<String, String>,
}

/// Which system calls a process may make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Those of ordinary programs, and those that the added capabilities are for.
    #[default]
    Usual,
    /// All.
    Unconfined,
    /// As a file says, below the agent's folder for profiles.
    Profile(String),
}
