//! Host ports on the machine's loopback addresses.
//!
//! A connection to 127.0.0.1 whose destination becomes a pod leaves by the pod's interface, and its answers come in there for 127.0.0.1. The kernel
//! refuses both unless `route_localnet` is set for the interface. It is set for those of pods that have host ports there; the rules drop what
//! others send to loopback addresses, and go after it.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use super::model::Rules;
use crate::runtime::{BRIDGE, POD_LINKS, pod_link};

/// The interfaces that lead to pods with host ports on loopback addresses. The bridge of an older agent is among them, because nobody knows here which pods are
/// on it.
pub fn interfaces(rules: &Rules) -> BTreeSet<String> {
    let on_loopback = rules
        .address
        .iter()
        .filter(|((ip, _, _), _)| ip.is_loopback());
    let chains = on_loopback.filter_map(|(_, chain)| rules.chains.get(chain));
    let pods: BTreeSet<Ipv4Addr> = chains
        .flat_map(|chain| chain.endpoints.iter().map(|endpoint| *endpoint.ip()))
        .collect();
    let bridge = (!pods.is_empty()).then(|| BRIDGE.to_owned());
    let links = pods.into_iter().map(|pod| pod_link(IpAddr::V4(pod)));
    links.chain(bridge).collect()
}

/// Has the kernel route loopback addresses over these interfaces, and no more over those that were `before`; `None` means any of those of pods. What does not exist, as with a
/// network of the user's own, is left alone: then host ports answer at the machine's other addresses only. Blocks.
///
/// # Errors
/// What the kernel says.
pub fn route(
    proc_sys: &Path,
    before: Option<&BTreeSet<String>>,
    wanted: &BTreeSet<String>,
) -> io::Result<()> {
    let conf = proc_sys.join("net/ipv4/conf");
    let before = match before {
        Some(before) => before.clone(),
        None => of_pods(&conf)?,
    };
    for interface in before.union(wanted) {
        let value = if wanted.contains(interface) { "1" } else { "0" };
        let file = conf.join(interface).join("route_localnet");
        match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(set) if set.trim() == value => {}
            Ok(_) => match fs::write(&file, value) {
                // The pod has ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                written => written?,
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn of_pods(conf: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(conf)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == BRIDGE || name.starts_with(POD_LINKS) {
            found.insert(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loopback_addresses_are_routed_only_while_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("net/ipv4/conf");
        let all = ["barge0", "bp-0af40105", "bp-0af40106", "eth0"];
        for name in all {
            fs::create_dir_all(conf.join(name)).unwrap();
            let set = if name == "bp-0af40106" { "1\n" } else { "0\n" };
            fs::write(conf.join(name).join("route_localnet"), set).unwrap();
        }
        let set = || {
            let is_set = |name: &&str| {
                let file = conf.join(name).join("route_localnet");
                fs::read_to_string(file).unwrap().trim() == "1"
            };
            all.into_iter().filter(is_set).collect::<Vec<_>>()
        };
        let wanted: BTreeSet<String> = ["barge0", "bp-0af40105", "bp-0af40109"]
            .map(str::to_owned)
            .into();
        route(folder.path(), None, &wanted).unwrap();
        assert_eq!(set(), ["barge0", "bp-0af40105"]);
        route(folder.path(), Some(&wanted), &wanted).unwrap();
        assert_eq!(set(), ["barge0", "bp-0af40105"]);
        route(folder.path(), Some(&wanted), &BTreeSet::new()).unwrap();
        assert_eq!(set(), Vec::<&str>::new());
    }
}
