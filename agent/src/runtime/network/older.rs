//! Pods that agents before this one wired with a bridge. They keep their cable and their address until they end.
//!
//! Such a pod takes the node's whole range for its own link, so it asks there for the hardware address of a routed pod. The machine answers
//! for these (`proxy_arp`), and forwards. The other way a routed pod sends everything to the machine, whose route to the bridge is the wider one.

use std::{fs, io, path::Path};

use super::links;

/// The bridge of such pods.
pub const BRIDGE: &str = "barge0";

/// Lets bridged pods and routed ones reach each other, and removes the bridge when no pod is left on it. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn care(proc_sys: &Path) -> io::Result<()> {
    links::remove_empty_bridge(BRIDGE)?;
    for (file, value) in [
        (format!("net/ipv4/conf/{BRIDGE}/proxy_arp"), "1"),
        // The kernel would wait up to 0.8 s before it answers.
        (format!("net/ipv4/neigh/{BRIDGE}/proxy_delay"), "0"),
    ] {
        match fs::write(proc_sys.join(file), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
