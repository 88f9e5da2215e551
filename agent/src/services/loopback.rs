//! Host ports on the machine's loopback addresses.
//!
//! A connection to 127.0.0.1 whose destination becomes a pod leaves by the pods' bridge, and its answers come in there for 127.0.0.1. The kernel
//! refuses both unless `route_localnet` is set for the bridge. It is set when the first pod has a host port and stays; the rules drop what
//! others send to loopback addresses.

use std::{fs, io, path::Path};

/// Has the kernel route loopback addresses over an interface. One that does not exist, as with a network of the user's own, is left alone:
/// then host ports answer at the machine's other addresses only. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn route(proc_sys: &Path, interface: &str) -> io::Result<()> {
    let file = proc_sys.join("net/ipv4/conf").join(interface);
    let file = file.join("route_localnet");
    match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(set) if set.trim() == "1" => Ok(()),
        Ok(_) => fs::write(&file, "1"),
        Err(error) => Err(error),
    }
}
