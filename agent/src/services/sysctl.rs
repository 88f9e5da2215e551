//! Kernel settings that pods and Services need, in the network namespace of the agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A setting that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {path} to 1: {source}; pods cannot reach beyond this machine without it")]
pub struct SysctlError {
    path: PathBuf,
    source: io::Error,
}

/// Lets the machine forward. `proc_sys` is `/proc/sys` but in tests.
///
/// # Errors
/// Forwarding cannot be allowed.
pub fn prepare(proc_sys: &Path) -> Result<(), SysctlError> {
    enable(&proc_sys.join("net/ipv4/ip_forward"))
}

fn enable(path: &Path) -> Result<(), SysctlError> {
    let failed = |source| SysctlError {
        path: path.to_owned(),
        source,
    };
    if fs::read_to_string(path).map_err(failed)?.trim() != "1" {
        fs::write(path, "1").map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn forwarding_is_a_must() {
        let root = tempfile::tempdir().unwrap();
        let error = prepare(root.path()).unwrap_err();
        assert!(error.to_string().contains("ip_forward"), "{error}");
        fs::create_dir_all(root.path().join("net/ipv4")).unwrap();
        let forward = root.path().join("net/ipv4/ip_forward");
        fs::write(&forward, "0\n").unwrap();
        prepare(root.path()).unwrap();
        assert_eq!(fs::read_to_string(&forward).unwrap(), "1");
    }
}
