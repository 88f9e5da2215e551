//! Host ports on the machine's loopback addresses.
//!
//! A connection to 127.0.0.1 whose destination becomes a pod leaves by the pods' bridge, and its answers come in there for 127.0.0.1. The kernel
//! refuses both unless `route_localnet` is set for the bridge. It is set while pods have host ports there; the rules drop what others
//! send to loopback addresses, and go after it.

use std::{fs, io, path::Path};

/// Has the kernel route loopback addresses over an interface, or not any more. One that does not exist, as with a network of the user's own, is left alone:
/// then host ports answer at the machine's other addresses only. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn route(proc_sys: &Path, interface: &str, wanted: bool) -> io::Result<()> {
    let value = if wanted { "1" } else { "0" };
    let file = proc_sys.join("net/ipv4/conf").join(interface);
    let file = file.join("route_localnet");
    match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(set) if set.trim() == value => Ok(()),
        Ok(_) => fs::write(&file, value),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loopback_addresses_are_routed_only_while_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let bridge = folder.path().join("net/ipv4/conf/barge0");
        fs::create_dir_all(&bridge).unwrap();
        let file = bridge.join("route_localnet");
        fs::write(&file, "0\n").unwrap();
        for wanted in [true, true, false, false] {
            route(folder.path(), "barge0", wanted).unwrap();
            let set = fs::read_to_string(&file).unwrap();
            assert_eq!(set.trim() == "1", wanted);
        }
        route(folder.path(), "cni0", true).unwrap();
        assert!(!folder.path().join("net/ipv4/conf/cni0").exists());
    }
}
