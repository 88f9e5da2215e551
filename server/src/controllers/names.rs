//! The Service `kube-dns` in `kube-system`: the address at which every node answers for names. Configurations count on it.
//!
//! It has the tenth address of the range of Services, as in most clusters, and no selector: each node answers itself. It is made when it is missing, in clusters
//! from before, too. One that is there is left as its owner wants it; one with a selector is an ordinary Service.

use std::{collections::BTreeMap, net::Ipv4Addr};

use barge_proto::v1::{
    Namespace, NamespaceSpec, NamespaceStatus, ObjectMeta, ObjectReference, Service, ServicePort,
    ServiceSpec,
};
use barge_state::{Changed, Kind, RecordKind, State};
use ipnet::Ipv4Net;

use super::{
    Controller,
    plan::{Plan, is_going, object_reference},
    stamp::Stamp,
};

/// Its namespace …
const NAMESPACE: &str = "kube-system";
/// … and its name.
const NAME: &str = "kube-dns";
/// Which address of the range it has.
const ADDRESS: u32 = 10;
/// The port of name servers.
const PORT: i32 = 53;

/// The controller of that Service.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamesOfCluster;

impl Controller for NamesOfCluster {
    /// There is one.
    type Key = ();
    const NAME: &'static str = "names";
    const KINDS: &'static [RecordKind] = &[
        RecordKind::Cluster,
        RecordKind::Namespace,
        RecordKind::Service,
    ];

    fn all(&self, _: &State) -> Vec<()> {
        vec![()]
    }

    /// Any Service may have had the address.
    fn dirtied(&self, _: &State, _: &Changed, dirty: &mut dyn FnMut(())) {
        dirty(());
    }

    fn plan(&self, state: &State, (): &(), stamp: &mut Stamp) -> Plan {
        plan(state, stamp)
    }

    fn concerned(&self, state: &State, (): &()) -> Option<ObjectReference> {
        let namespace = state.get::<Namespace>("", NAMESPACE)?;
        Some(object_reference("v1", "Namespace", namespace.meta()))
    }
}

/// Makes what is missing, unless another Service has the address.
fn plan(state: &State, stamp: &mut Stamp) -> Plan {
    let mut plan = Plan::default();
    let range = state
        .cluster()
        .and_then(|cluster| cluster.service_cidr.parse::<Ipv4Net>().ok());
    let Some(address) = range.and_then(tenth) else {
        return plan;
    };
    let mut meta = |namespace: &str, name: &str| ObjectMeta {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: stamp.uid(),
        ..ObjectMeta::default()
    };
    let metadata = ObjectMeta {
        labels: BTreeMap::from([("k8s-app".to_owned(), NAME.to_owned())]),
        ..meta(NAMESPACE, NAME)
    };
    let is_there = state.get::<Service>(NAMESPACE, NAME).is_some();
    let is_taken = state.service_with_cluster_ip(&address).is_some();
    if is_there || is_taken || is_going(state, &metadata) {
        return plan;
    }
    match state.get::<Namespace>("", NAMESPACE) {
        Some(namespace) => plan.draft.same(&**namespace),
        None => {
            plan.draft.absent::<Namespace>("", NAMESPACE);
            plan.draft.put(Namespace {
                metadata: Some(meta("", NAMESPACE)),
                spec: Some(NamespaceSpec {}),
                status: Some(NamespaceStatus {
                    phase: "Active".to_owned(),
                }),
                ..Namespace::default()
            });
        }
    }
    let port = |name: &str, protocol: &str| ServicePort {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        port: PORT,
        ..ServicePort::default()
    };
    plan.draft.absent::<Service>(NAMESPACE, NAME);
    plan.draft.put(Service {
        metadata: Some(metadata),
        spec: Some(ServiceSpec {
            ports: vec![port("dns", "UDP"), port("dns-tcp", "TCP")],
            cluster_ip: address.clone(),
            cluster_ips: vec![address],
            r#type: "ClusterIP".to_owned(),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    });
    plan
}

/// The tenth address of a range that has one.
fn tenth(range: Ipv4Net) -> Option<String> {
    let address = Ipv4Addr::from(u32::from(range.network()).checked_add(ADDRESS)?);
    let is_inside = range.contains(&address) && address < range.broadcast();
    is_inside.then(|| address.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{ClusterRecord, record::Record};

    use super::*;
    use crate::controllers::testing::World;

    fn look(world: &mut World) -> bool {
        let mut stamp = world.stamp();
        let plan = plan(&world.state, &mut stamp);
        let does = !plan.draft.is_empty();
        world.follow(plan);
        does
    }

    fn world(range: &str) -> World {
        let mut world = World::default();
        let uid = world.uid();
        world.put(Record::Cluster(ClusterRecord {
            metadata: Some(ObjectMeta {
                name: "cluster".to_owned(),
                uid,
                ..ObjectMeta::default()
            }),
            service_cidr: range.to_owned(),
            ..ClusterRecord::default()
        }));
        world
    }

    fn service(world: &mut World, name: &str, address: &str) -> Record {
        let uid = world.uid();
        Record::Service(Service {
            metadata: Some(ObjectMeta {
                namespace: "default".to_owned(),
                name: name.to_owned(),
                uid,
                ..ObjectMeta::default()
            }),
            spec: Some(ServiceSpec {
                cluster_ip: address.to_owned(),
                cluster_ips: vec![address.to_owned()],
                ..ServiceSpec::default()
            }),
            ..Service::default()
        })
    }

    #[test]
    fn the_service_is_made_once_with_its_namespace() {
        let mut world = world("10.96.0.0/16");
        assert!(look(&mut world));
        let made = world.state.get::<Service>(NAMESPACE, NAME).unwrap();
        let spec = made.spec.as_ref().unwrap();
        assert_eq!(spec.cluster_ip, "10.96.0.10");
        assert!(world.state.get::<Namespace>("", NAMESPACE).is_some());
        assert!(!look(&mut world), "nothing is made twice");
    }

    #[test]
    fn an_address_that_another_service_has_is_left_to_it() {
        let mut world = world("10.96.0.0/16");
        let other = service(&mut world, "other", "10.96.0.10");
        world.put(other);
        assert!(!look(&mut world));
    }

    #[test]
    fn a_range_without_a_tenth_address_has_none() {
        assert!(!look(&mut world("10.96.0.0/29")));
        assert!(look(&mut world("10.96.0.0/28")));
    }
}
