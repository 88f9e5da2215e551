//! Wiring pods, and giving back what they were wired with.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use super::{Identity, Sandboxes, load, netns, reading, shared::Shared};
use crate::{
    files::{self, blocking},
    runtime::{
        Namespaces,
        cni::{CniError, NetworkConfig, Record},
        network::{self, PodNetwork, Routed, links},
    },
};

/// Addresses of pods that the agent wired, and the pods' uids.
#[derive(Debug, Default)]
pub(super) struct Wired(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    pods: BTreeMap<IpAddr, String>,
    /// What is on disk was read.
    is_whole: bool,
}

impl Wired {
    fn edit<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known)
    }

    /// One that is wired from now on.
    fn add(&self, uid: &str, address: IpAddr) {
        self.edit(|known| known.pods.insert(address, uid.to_owned()));
    }

    /// Pods that were wired before. Of an address that is another pod's by now nothing is said.
    fn add_noted(&self, noted: BTreeMap<IpAddr, String>) {
        self.edit(|known| {
            for (address, uid) in noted {
                known.pods.entry(address).or_insert(uid);
            }
            known.is_whole = true;
        });
    }

    /// Whether the pod is not to be taken down yet.
    fn has(&self, uid: &str, address: IpAddr) -> bool {
        self.edit(|known| known.pods.get(&address).is_some_and(|holder| holder == uid))
    }

    fn remove(&self, uid: &str) {
        self.edit(|known| known.pods.retain(|_, holder| holder != uid));
    }
}

impl Sandboxes {
    /// Gives a pod an address and wires it. Its namespace is pinned. Blocks.
    pub(super) fn route(&self, routed: &Routed, uid: &str) -> io::Result<Record> {
        let given = self.addresses.give(&routed.ranges, uid)?;
        let address = given.ok_or_else(|| {
            let ranges: Vec<_> = routed.ranges.iter().map(ToString::to_string).collect();
            io::Error::other(format!(
                "no address is free in the node's pod range {}",
                ranges.join(", ")
            ))
        })?;
        links::attach(&self.options.paths.netns(uid), address, routed.mtu)?;
        self.wired.add(uid, address);
        Ok(Record::routed(Some(address)))
    }

    /// Has plugins attach a pod, as the user's own configuration says.
    pub(super) async fn plug(
        &self,
        network: NetworkConfig,
        identity: &Identity,
    ) -> Result<Record, CniError> {
        let netns = self.options.paths.netns(&identity.pod_uid);
        let attachment = identity.attachment(Some(&netns));
        let result = Some(self.plugins.add(&network, &attachment).await?);
        Ok(Record { network, result })
    }

    /// Undoes what is known of a pod's attachment, also when the namespace is gone, and removes the namespace.
    pub(super) async fn detach(&self, identity: &Identity) -> Result<(), CniError> {
        let uid = &identity.pod_uid;
        // First: what goes wrong later leaves no rule that leads to the next pod with the address.
        self.ports.withdraw(uid);
        self.wired.remove(uid);
        let netns = self.options.paths.netns(uid);
        let (file, place) = (self.network_file(uid), netns.clone());
        let looked = move || Ok((load::<Record>(&file), netns::is_pinned(&place)));
        let (record, is_pinned) = reading(looked).await?;
        let mut may_be_routed = true;
        let record = match record {
            Ok(record) => {
                may_be_routed = record.as_ref().is_some_and(Record::is_routed);
                record
            }
            // Plugins find the addresses by the pod's name, too.
            Err(error) => match network::current(&self.options).await {
                Ok(PodNetwork::Own(network)) => Some(Record {
                    network,
                    result: None,
                }),
                Ok(PodNetwork::Routed(_)) => None,
                Err(_) => return Err(error),
            },
        };
        if let Some(record) = record.filter(|record| !record.is_routed()) {
            let there = is_pinned.then_some(netns.as_path());
            self.plugins
                .del(&record, &identity.attachment(there))
                .await?;
        }
        let file = self.network_file(uid);
        let shared = Shared::of(&self.options.paths, uid, Namespaces::default());
        let machine = self.options.paths.host_netns(uid);
        let (this, uid) = (self.clone(), uid.clone());
        blocking(move || {
            if may_be_routed {
                links::detach(this.addresses.of(&uid)?)?;
                this.addresses.take_back(&uid)?;
            }
            netns::unpin(&netns)?;
            netns::unpin(&machine)?;
            shared.remove()?;
            files::remove_if_there(&file)
        })
        .await?;
        Ok(())
    }

    /// Mends what is missing of the cables and routes of routed pods. Answers the names and addresses of those that had to be mended. Blocks.
    pub fn mend(&self) -> io::Result<Vec<String>> {
        if !self.wired.edit(|known| known.is_whole) {
            let noted = self.noted()?;
            self.wired.add_noted(noted);
        }
        let by_address = self.wired.edit(|known| known.pods.clone());
        let missing = links::mend(by_address.keys().copied().collect())?;
        let mut mended: BTreeSet<IpAddr> = missing.mended;
        let mut failure = Ok(());
        for address in missing.cables {
            let Some(uid) = by_address.get(&address) else {
                continue;
            };
            let place = self.options.paths.netns(uid);
            // One that is being taken down, or whose namespace went with a boot, is no loss.
            if !self.wired.has(uid, address) || !netns::is_pinned(&place) {
                continue;
            }
            let mtu = match network::read(&self.options) {
                Ok(PodNetwork::Routed(routed)) => routed.mtu,
                _ => network::LEAST_MTU,
            };
            match links::attach(&place, address, mtu) {
                Ok(()) => {
                    mended.insert(address);
                }
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        failure?;
        let name = |address: &IpAddr| {
            let uid = by_address.get(address)?;
            let identity = self.identity(uid).ok().flatten()?;
            Some(format!(
                "{}/{} ({address})",
                identity.namespace, identity.name
            ))
        };
        Ok(mended.iter().filter_map(name).collect())
    }

    /// The routed pods that are here. Those whose notes cannot be read are left out. Blocks.
    fn noted(&self) -> io::Result<BTreeMap<IpAddr, String>> {
        let mut noted = BTreeMap::new();
        for sandbox in self.list_folder()? {
            let uid = sandbox.pod_uid;
            let record = load::<Record>(&self.network_file(&uid)).ok().flatten();
            let Some(record) = record.filter(Record::is_routed) else {
                continue;
            };
            if let Some(address) = record.ips().first() {
                noted.insert(*address, uid);
            }
        }
        Ok(noted)
    }
}
