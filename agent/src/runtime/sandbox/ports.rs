//! Ports of the machine that its pods have. A port belongs to one pod from the making of its sandbox to its removal, so a second pod that
//! wants it gets no sandbox. Rules lead from these ports to the pods; see [`crate::services`].

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::services::ports::Protocol;

/// A port of the machine, and the one of the container behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The port of the machine.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The machine's address; `None`: all of them.
    pub ip: Option<Ipv4Addr>,
    /// The container's port.
    pub container_port: u16,
}

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        let same_address = self.ip.is_none() || other.ip.is_none() || self.ip == other.ip;
        (self.port, self.protocol) == (other.port, other.protocol) && same_address
    }
}

/// The ports of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Namespace and name of the pod.
    pub pod: String,
    /// Its ports.
    pub ports: Vec<HostPort>,
    /// Its address, where rules lead; `None`: none yet, or the pod listens on the machine itself.
    pub to: Option<Ipv4Addr>,
}

/// The ports of all pods, by the pod's uid. Pods without any are not there.
pub type HostPorts = BTreeMap<String, Held>;

/// Who has which port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ports {
    /// `None` until what is on disk was read.
    held: Arc<watch::Sender<Option<Arc<HostPorts>>>>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            held: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Ports {
    /// Whether it is known what pods have.
    pub fn are_known(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// What pods have that are here already. What was said before stays.
    pub fn loaded(&self, found: HostPorts) {
        self.held.send_if_modified(|held| {
            let is_first = held.is_none();
            held.get_or_insert_with(|| Arc::new(found));
            is_first
        });
    }

    /// For those who make rules.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<HostPorts>>> {
        self.held.subscribe()
    }

    /// Gives ports to a pod. It has to be known which others have. Repeating it changes nothing.
    ///
    /// # Errors
    /// The port, and the pod that has it.
    pub fn claim(&self, uid: &str, pod: String, ports: &[HostPort]) -> Result<(), String> {
        let mut refused = None;
        self.held.send_if_modified(|held| {
            let held = Arc::make_mut(held.get_or_insert_default());
            refused = taken(held, uid, ports);
            let missing = refused.is_none() && !held.contains_key(uid);
            if missing {
                let ports = ports.to_vec();
                held.insert(
                    uid.to_owned(),
                    Held {
                        pod,
                        ports,
                        to: None,
                    },
                );
            }
            missing
        });
        refused.map_or(Ok(()), Err)
    }

    /// The pod has this address from now on.
    pub fn serve(&self, uid: &str, to: Ipv4Addr) {
        self.edit(uid, |held| {
            let held = held.get_mut(uid)?;
            (held.to.replace(to) != Some(to)).then_some(())
        });
    }

    /// The pod's address is about to be another's: no rule leads there any more. The ports stay the pod's.
    pub fn withdraw(&self, uid: &str) {
        self.edit(uid, |held| held.get_mut(uid)?.to.take().map(drop));
    }

    /// The pod has no port any more.
    pub fn release(&self, uid: &str) {
        self.edit(uid, |held| held.remove(uid).map(drop));
    }

    /// Changes what a pod has, if it has any.
    fn edit(&self, uid: &str, change: impl FnOnce(&mut HostPorts) -> Option<()>) {
        self.held.send_if_modified(|held| match held {
            Some(held) if held.contains_key(uid) => change(Arc::make_mut(held)).is_some(),
            _ => false,
        });
    }
}

/// Which port another pod has, in a sentence.
fn taken(held: &HostPorts, uid: &str, ports: &[HostPort]) -> Option<String> {
    let others = held.iter().filter(|(other, _)| *other != uid);
    let pairs = others.flat_map(|(_, held)| held.ports.iter().map(move |port| (held, port)));
    let mut clashes = pairs
        .filter_map(|(held, theirs)| Some((held, ports.iter().find(|it| it.conflicts(theirs))?)));
    let (held, port) = clashes.next()?;
    let (number, protocol) = (port.port, port.protocol);
    Some(format!(
        "host port {number}/{protocol} of this node belongs to pod {}: the pod starts when that one is gone, or choose another hostPort",
        held.pod
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn port(port: u16, ip: Option<[u8; 4]>) -> HostPort {
        HostPort {
            port,
            protocol: Protocol::Tcp,
            ip: ip.map(Ipv4Addr::from),
            container_port: 80,
        }
    }

    #[test]
    fn a_port_has_one_pod() {
        let ports = Ports::default();
        let claim =
            |uid: &str, wanted: &[HostPort]| ports.claim(uid, format!("default/{uid}"), wanted);
        let all = [port(8080, None)];
        let there = Held {
            pod: "default/a".into(),
            ports: vec![port(8080, Some([192, 0, 2, 1]))],
            to: None,
        };
        ports.loaded([("a".to_owned(), there)].into());
        let refused = claim("b", &all).unwrap_err();
        assert!(
            refused.contains("8080/tcp") && refused.contains("default/a"),
            "{refused}"
        );
        claim("c", &[port(8080, Some([192, 0, 2, 2]))]).unwrap();
        claim("a", &[port(8080, Some([192, 0, 2, 1]))]).unwrap();
        ports.serve("c", [10, 244, 1, 2].into());
        let held = ports.subscribe().borrow().clone().unwrap();
        assert_eq!(held["c"].to, Some([10, 244, 1, 2].into()));
        // The ports outlive the address.
        ports.withdraw("c");
        assert_eq!(ports.subscribe().borrow().clone().unwrap()["c"].to, None);
        claim("d", &[port(8080, Some([192, 0, 2, 2]))]).unwrap_err();
        ports.release("a");
        ports.release("c");
        claim("b", &all).unwrap();
        // What is read late takes nothing away.
        ports.loaded(HostPorts::new());
        claim("c", &all).unwrap_err();
    }
}
