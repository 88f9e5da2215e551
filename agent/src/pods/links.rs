//! The variables of a namespace's Services (`enableServiceLinks`): `NAME_SERVICE_HOST` and its like, as Kubernetes and Docker's links name them.

use std::{collections::BTreeMap, sync::Arc};

use barge_proto::v1::Service;

/// What the variables of a namespace may take of a container's environment, in bytes. A namespace with more gives its pods none: they have to start all the same.
const MOST: usize = 64 << 10;

/// The Services of each namespace that have an address. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Links(Arc<BTreeMap<String, Linked>>);

/// Those of one namespace, in the order of their names. Cheap to clone.
pub type Linked = Arc<[Arc<Service>]>;

impl Links {
    /// Of all Services that the node knows.
    pub fn of<'a>(services: impl Iterator<Item = &'a Arc<Service>>) -> Self {
        let mut found: BTreeMap<&str, Vec<Arc<Service>>> = BTreeMap::new();
        for service in services {
            if let (Some(meta), Some(_)) = (&service.metadata, address(service)) {
                let namespace = found.entry(&meta.namespace).or_default();
                namespace.push(Arc::clone(service));
            }
        }
        let sorted = found.into_iter().map(|(namespace, mut services)| {
            services.sort_by(|one, other| name(one).cmp(name(other)));
            (namespace.to_owned(), services.into())
        });
        Self(Arc::new(sorted.collect()))
    }

    /// Those of a namespace.
    pub fn get(&self, namespace: &str) -> Linked {
        self.0.get(namespace).cloned().unwrap_or_default()
    }
}

/// The variables of these Services.
///
/// # Errors
/// A sentence: they would take too much.
pub fn variables(services: &Linked) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let mut bytes = 0_usize;
    for service in services.iter() {
        for (name, value) in of_service(service) {
            bytes += name.len() + value.len() + 2;
            if bytes > MOST {
                return Err(format!(
                    "The variables of the namespace's {} Services take more than {MOST} bytes, so its containers get none: say enableServiceLinks: false, and reach \
                     Services by their names or addresses",
                    services.len()
                ));
            }
            found.insert(name, value);
        }
    }
    Ok(found)
}

/// The variables of a Service: its address and ports, then Docker's.
fn of_service(service: &Service) -> Vec<(String, String)> {
    let Some(address) = address(service) else {
        return Vec::new();
    };
    let prefix = upper(name(service));
    let mut found = vec![(format!("{prefix}_SERVICE_HOST"), address.to_owned())];
    let ports = service.spec.iter().flat_map(|spec| &spec.ports);
    for (index, it) in ports.enumerate() {
        let port = it.port.to_string();
        let protocol = match it.protocol.as_str() {
            "" => "TCP",
            protocol => protocol,
        };
        let scheme = protocol.to_lowercase();
        let url = format!("{scheme}://{address}:{port}");
        if index == 0 {
            found.push((format!("{prefix}_SERVICE_PORT"), port.clone()));
            found.push((format!("{prefix}_PORT"), url.clone()));
        }
        if !it.name.is_empty() {
            let named = format!("{prefix}_SERVICE_PORT_{}", upper(&it.name));
            found.push((named, port.clone()));
        }
        let docker = format!("{prefix}_PORT_{port}_{protocol}");
        found.push((format!("{docker}_PROTO"), scheme));
        found.push((format!("{docker}_PORT"), port));
        found.push((format!("{docker}_ADDR"), address.to_owned()));
        found.push((docker, url));
    }
    found
}

/// The address of the cluster; headless Services have none.
fn address(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let address = spec.cluster_ip.as_str();
    (!address.is_empty() && address != "None").then_some(address)
}

fn name(service: &Service) -> &str {
    let meta = service.metadata.as_ref();
    meta.map_or("", |meta| &meta.name)
}

/// As a part of a variable's name.
fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{ObjectMeta, ServicePort, ServiceSpec};

    use super::*;

    fn service(
        namespace: &str,
        name: &str,
        address: &str,
        ports: Vec<ServicePort>,
    ) -> Arc<Service> {
        Arc::new(Service {
            metadata: Some(ObjectMeta {
                namespace: namespace.into(),
                name: name.into(),
                ..ObjectMeta::default()
            }),
            spec: Some(ServiceSpec {
                cluster_ip: address.into(),
                ports,
                ..ServiceSpec::default()
            }),
            ..Service::default()
        })
    }

    fn port(name: &str, protocol: &str, port: i32) -> ServicePort {
        ServicePort {
            name: name.into(),
            protocol: protocol.into(),
            port,
            ..ServicePort::default()
        }
    }

    #[test]
    fn services_with_an_address_are_told_to_the_pods_of_their_namespace() {
        let ports = vec![port("client", "", 6379), port("gossip-udp", "UDP", 7000)];
        let services = [
            service("shop", "redis-primary", "10.96.0.11", ports),
            service("shop", "headless", "None", vec![port("", "", 1)]),
            service("other", "web", "10.96.0.12", vec![port("", "", 80)]),
        ];
        let links = Links::of(services.iter());
        let found = variables(&links.get("shop")).unwrap();
        let lines: Vec<_> = found.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let wanted = [
            "REDIS_PRIMARY_PORT=tcp://10.96.0.11:6379",
            "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.96.0.11:6379",
            "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.96.0.11",
            "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
            "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
            "REDIS_PRIMARY_PORT_7000_UDP=udp://10.96.0.11:7000",
            "REDIS_PRIMARY_PORT_7000_UDP_ADDR=10.96.0.11",
            "REDIS_PRIMARY_PORT_7000_UDP_PORT=7000",
            "REDIS_PRIMARY_PORT_7000_UDP_PROTO=udp",
            "REDIS_PRIMARY_SERVICE_HOST=10.96.0.11",
            "REDIS_PRIMARY_SERVICE_PORT=6379",
            "REDIS_PRIMARY_SERVICE_PORT_CLIENT=6379",
            "REDIS_PRIMARY_SERVICE_PORT_GOSSIP_UDP=7000",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(variables(&links.get("empty")).unwrap().len(), 0);
    }

    #[test]
    fn a_namespace_with_very_many_services_gives_none_and_says_so() {
        let services: Vec<_> = (0..1000)
            .map(|index| {
                let name = format!("a-{index}");
                service("shop", &name, "10.96.0.1", vec![port("", "", 80)])
            })
            .collect();
        let links = Links::of(services.iter());
        let why = variables(&links.get("shop")).unwrap_err();
        assert!(why.contains("1000 Services") && why.contains("enableServiceLinks: false"));
    }
}
