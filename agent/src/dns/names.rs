//! What control tells the name server: one file, made of the assignment and replaced as a whole.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use barge_proto::v1::{EndpointPort, EndpointSubset, ObjectMeta, Service};
use ipnet::Ipv4Net;
use prost::Message;
use sha2::{Digest, Sha256};

use super::SERVICE;
use crate::{desired::Desired, files};

/// Name of the file in its folder.
pub const FILE: &str = "names";
/// A file of more bytes is not read: a million ready pods behind headless Services take half of that.
const LARGEST: u64 = 64 << 20;
/// Bytes of the digest before the message.
const DIGEST: usize = 32;

/// All that the name server knows of the cluster.
#[derive(Clone, PartialEq, Message)]
pub struct Names {
    /// The build of the agent that wrote this.
    #[prost(string, tag = "1")]
    pub build: String,
    /// The Service address at which this node answers; empty when there is none.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The file that names the node's own name servers.
    #[prost(string, tag = "3")]
    pub resolv_conf: String,
    /// By the Services' uids.
    #[prost(message, repeated, tag = "4")]
    pub services: Vec<Named>,
}

/// A Service.
#[derive(Clone, PartialEq, Message)]
pub struct Named {
    /// Its namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its cluster address; 0 for a headless one.
    #[prost(fixed32, tag = "3")]
    pub address: u32,
    /// Its ports, when it has a cluster address.
    #[prost(message, repeated, tag = "4")]
    pub ports: Vec<Port>,
    /// Its ready pods, when it is headless.
    #[prost(message, repeated, tag = "5")]
    pub groups: Vec<Group>,
}

/// Pods that have the same ports.
#[derive(Clone, PartialEq, Message)]
pub struct Group {
    /// The pods.
    #[prost(message, repeated, tag = "1")]
    pub hosts: Vec<Host>,
    /// Their ports.
    #[prost(message, repeated, tag = "2")]
    pub ports: Vec<Port>,
}

/// A pod.
#[derive(Clone, PartialEq, Message)]
pub struct Host {
    /// Its address.
    #[prost(fixed32, tag = "1")]
    pub address: u32,
    /// Its host name, if it has one in this Service.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// A port.
#[derive(Clone, PartialEq, Message)]
pub struct Port {
    /// Its name; empty for the only one of a Service.
    #[prost(string, tag = "1")]
    pub name: String,
    /// It is one of UDP, not of TCP.
    #[prost(bool, tag = "2")]
    pub udp: bool,
    /// Its number.
    #[prost(uint32, tag = "3")]
    pub number: u32,
}

impl Names {
    /// What the assignment says.
    pub fn of(desired: &Desired, resolv_conf: &Path) -> Self {
        let full_name = |meta: Option<&ObjectMeta>| {
            meta.map(|meta| (meta.namespace.clone(), meta.name.clone()))
                .unwrap_or_default()
        };
        let endpoints: BTreeMap<_, _> = desired
            .endpoints
            .values()
            .map(|endpoints| (full_name(endpoints.metadata.as_ref()), &endpoints.subsets))
            .collect();
        let named = |service: &Service| {
            let (namespace, name) = full_name(service.metadata.as_ref());
            let spec = service.spec.as_ref()?;
            let mut named = Named {
                namespace,
                name,
                ..Named::default()
            };
            match spec.cluster_ip.parse::<Ipv4Addr>() {
                Ok(address) => {
                    named.address = address.into();
                    let port = |port: &barge_proto::v1::ServicePort| Port {
                        name: port.name.clone(),
                        udp: port.protocol == "UDP",
                        number: port.port.unsigned_abs(),
                    };
                    named.ports = spec.ports.iter().map(port).collect();
                }
                Err(_) => {
                    let key = (named.namespace.clone(), named.name.clone());
                    let subsets = endpoints.get(&key).into_iter().flat_map(|it| it.iter());
                    named.groups = subsets.map(group).collect();
                }
            }
            Some(named)
        };
        Self {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            address: address(desired).map_or_else(String::new, |it| it.to_string()),
            resolv_conf: resolv_conf.to_string_lossy().into_owned(),
            services: desired
                .services
                .values()
                .filter_map(|it| named(it))
                .collect(),
        }
    }

    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let message = self.encode_to_vec();
        let mut bytes = Sha256::digest(&message).to_vec();
        bytes.extend(message);
        bytes
    }

    /// Of the file's content. What was cut off somewhere would read as fewer Services, so there is a digest.
    ///
    /// # Errors
    /// It is not whole.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let (digest, message) = bytes
            .split_at_checked(DIGEST)
            .ok_or_else(|| broken("it has no digest"))?;
        if Sha256::digest(message).as_slice() != digest {
            return Err(broken("its digest is that of something else"));
        }
        Self::decode(message).map_err(|error| broken(&error.to_string()))
    }

    /// Reads the file in a folder. Blocks.
    ///
    /// # Errors
    /// It is not there, too large, or not whole.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let path = path(folder);
        let bytes = std::fs::metadata(&path)?.len();
        if bytes > LARGEST {
            let why = format!("it has {bytes} bytes, and at most {LARGEST} are read");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let bytes = files::read_if_there(&path)?.ok_or(io::ErrorKind::NotFound)?;
        Self::from_bytes(&bytes)
    }
}

/// The file in a folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The Service address at which nodes answer: that of `kube-dns` in `kube-system`, unless its owner gave it pods, which answer then. Running pods ask at this
/// address as long as they live: while there is no such Service, nodes answer at the tenth address of the range, unless another Service has it.
pub fn address(desired: &Desired) -> Option<Ipv4Addr> {
    let ours = |service: &&Service| {
        let meta = service.metadata.as_ref();
        meta.is_some_and(|meta| (meta.namespace.as_str(), meta.name.as_str()) == SERVICE)
    };
    let services = || desired.services.values().map(|service| &**service);
    let spec = services().find(ours).and_then(|it| it.spec.as_ref());
    let given = spec.and_then(|spec| Some((spec, spec.cluster_ip.parse().ok()?)));
    if let Some((spec, address)) = given {
        return spec.selector.is_empty().then_some(address);
    }
    let range = desired.service_cidr().parse::<Ipv4Net>().ok()?;
    let tenth = range.hosts().nth(9)?;
    let has_it = |service: &Service| {
        let spec = service.spec.as_ref();
        spec.is_some_and(|spec| spec.cluster_ip.parse() == Ok(tenth))
    };
    (!services().any(has_it)).then_some(tenth)
}

fn group(subset: &EndpointSubset) -> Group {
    let port = |port: &EndpointPort| Port {
        name: port.name.clone(),
        udp: port.protocol == "UDP",
        number: port.port.unsigned_abs(),
    };
    let addresses = subset.addresses.iter();
    let hosts = addresses.filter_map(|address| {
        let ip: Ipv4Addr = address.ip.parse().ok()?;
        Some(Host {
            address: ip.into(),
            name: address.hostname.clone(),
        })
    });
    Group {
        hosts: hosts.collect(),
        ports: subset.ports.iter().map(port).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use barge_proto::v1::{EndpointAddress, Endpoints, ServicePort, ServiceSpec};

    use super::*;

    fn meta(namespace: &str, name: &str) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("{namespace}/{name}"),
            ..ObjectMeta::default()
        })
    }

    fn service(namespace: &str, name: &str, address: &str) -> Service {
        Service {
            metadata: meta(namespace, name),
            spec: Some(ServiceSpec {
                cluster_ip: address.into(),
                ports: vec![ServicePort {
                    name: "web".into(),
                    protocol: "UDP".into(),
                    port: 80,
                    ..ServicePort::default()
                }],
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    #[test]
    fn pods_are_told_of_headless_services_only() {
        let ready = EndpointAddress {
            ip: "10.244.1.7".into(),
            hostname: "db-0".into(),
            ..EndpointAddress::default()
        };
        let unready = EndpointAddress {
            ip: "10.244.1.8".into(),
            ..EndpointAddress::default()
        };
        let behind = |name: &str| Endpoints {
            metadata: meta("shop", name),
            subsets: vec![EndpointSubset {
                addresses: vec![ready.clone()],
                not_ready_addresses: vec![unready.clone()],
                ports: vec![EndpointPort {
                    name: "sql".into(),
                    port: 5432,
                    protocol: "TCP".into(),
                }],
            }],
            ..Endpoints::default()
        };
        let services = [
            service("kube-system", "kube-dns", "10.96.0.10"),
            service("shop", "db", "None"),
            service("shop", "web", "10.96.1.1"),
        ];
        let mut desired = Desired::default();
        for service in services {
            let uid = service.metadata.clone().unwrap().uid;
            desired.services.insert(uid, Arc::new(service));
        }
        for name in ["db", "web"] {
            let endpoints = Arc::new(behind(name));
            desired.endpoints.insert(name.into(), endpoints);
        }
        let names = Names::of(&desired, Path::new("/etc/resolv.conf"));
        assert_eq!(names.address, "10.96.0.10");
        let [_, db, web] = &names.services[..] else {
            unreachable!("three Services")
        };
        assert_eq!((db.address, db.ports.len()), (0, 0));
        let [group] = &db.groups[..] else {
            unreachable!("one group of pods")
        };
        let host = Host {
            address: Ipv4Addr::new(10, 244, 1, 7).into(),
            name: "db-0".into(),
        };
        assert_eq!(group.hosts, [host]);
        assert_eq!((group.ports[0].number, group.ports[0].udp), (5432, false));
        assert_eq!(web.address, u32::from(Ipv4Addr::new(10, 96, 1, 1)));
        assert_eq!((web.ports[0].number, web.ports[0].udp), (80, true));
        assert!(web.groups.is_empty());
        // Its owner has pods that answer.
        let mut own = service("kube-system", "kube-dns", "10.96.0.10");
        let spec = own.spec.as_mut().unwrap();
        spec.selector.insert("app".into(), "names".into());
        let uid = own.metadata.clone().unwrap().uid;
        desired.services.insert(uid, Arc::new(own));
        assert_eq!(address(&desired), None);
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        let names = Names {
            build: "1".into(),
            services: vec![Named::default(), Named::default()],
            ..Names::default()
        };
        let bytes = names.to_bytes();
        assert_eq!(Names::from_bytes(&bytes).unwrap(), names);
        for length in 0..bytes.len() {
            assert!(Names::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(Names::read(folder.path()).is_err());
        std::fs::write(path(folder.path()), &bytes).unwrap();
        assert_eq!(Names::read(folder.path()).unwrap(), names);
    }

    #[test]
    fn names_are_answered_where_running_pods_ask_although_the_service_is_gone() {
        let mut desired = Desired {
            welcome: Some(Arc::new(barge_proto::v1::Welcome {
                service_cidr: "10.96.0.0/16".into(),
                ..Default::default()
            })),
            ..Desired::default()
        };
        let tenth = Ipv4Addr::new(10, 96, 0, 10);
        assert_eq!(address(&desired), Some(tenth));
        let put = |desired: &mut Desired, service: Service| {
            let uid = service.metadata.clone().unwrap().uid;
            desired.services.insert(uid, Arc::new(service));
        };
        put(
            &mut desired,
            service("kube-system", "kube-dns", "10.96.0.99"),
        );
        assert_eq!(address(&desired), Some(Ipv4Addr::new(10, 96, 0, 99)));
        put(&mut desired, service("kube-system", "kube-dns", "None"));
        assert_eq!(address(&desired), Some(tenth));
        // Another Service has it.
        put(&mut desired, service("shop", "web", "10.96.0.10"));
        assert_eq!(address(&desired), None);
    }
}
