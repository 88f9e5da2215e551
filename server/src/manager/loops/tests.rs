#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

//! All loops together: once as plans in a row without any I/O, once in their shells over a state in
//! memory.

mod failing;
mod memory;
mod shells;

use super::run;
use crate::{
    controllers::{
        Context, Controller, NODE_GRACE, NODE_LOSS_INTERVAL, NodeHeartbeats, deployment, endpoints,
        meters::Meters,
        nodes::{self, Heard, NodeTimes},
        plan::{self, Plan},
        pods,
        propose::{self, catch_up},
        replica::Replica,
        shell,
        stamp::Stamp,
        supervise::supervise,
        testing::{World, nginx, nginx_service, set_image},
    },
    scheduler::{
        aside::Aside,
        batch::place,
        cluster::{Cluster, Snapshot},
    },
};
use barge_proto::v1::{
    Change, Endpoints, Node, ObjectReference, PodRecord, Service, change, record::Record,
};
use barge_state::{Changed, Kind, PackedPod, RecordKind, State};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Everything the leader does, once around; returns whether anything changed.
fn lead(world: &mut World, silent: &BTreeSet<&str>) -> bool {
    let before = world.state.revision();
    let nodes: Vec<_> = world.state.list::<Node>(None).cloned().collect();
    for node in nodes {
        let heard = match silent.contains(node.meta().name.as_str()) {
            true => Heard::Silent,
            false => Heard::Lately,
        };
        let mut stamp = world.stamp();
        let plan = nodes::plan(&world.state, &node, heard, true, &mut stamp);
        world.follow(plan);
    }
    for key in deployment::Deployments.all(&world.state) {
        let mut stamp = world.stamp();
        let plan = deployment::plan(&world.state, &key, &mut stamp);
        world.follow(plan);
    }
    let mut cluster = Cluster::new(&Snapshot::of(&world.state));
    let binds = place(&mut cluster, &mut Aside::default(), 100, Instant::now()).into_iter();
    let binds = binds.map(|placement| Change {
        change: Some(change::Change::Bind(barge_proto::v1::Bind {
            pod_uid: placement.pod_uid,
            node_uid: placement.node_uid,
        })),
    });
    let outcome = world.submit(binds.collect());
    assert!(outcome.binds.iter().all(String::is_empty));
    for key in endpoints::EndpointsOfServices.all(&world.state) {
        let mut stamp = world.stamp();
        let plan = endpoints::plan(&world.state, &key, &mut stamp);
        world.follow(plan);
    }
    world.state.revision() != before
}

/// Agents that run what they are given, unless they are silent.
fn run_pods(world: &mut World, silent: &BTreeSet<&str>) {
    for pod in world.pods() {
        let Some(node) = world.state.by_uid::<Node>(pod.node_uid()) else {
            continue;
        };
        if silent.contains(node.meta().name.as_str()) {
            continue;
        }
        if pods::is_terminating(&pod) {
            world.remove(&*pod);
        } else if !pods::is_ready(&pod) {
            world.report(pod.uid(), "Running", true);
        }
    }
}

fn settle(world: &mut World, silent: &BTreeSet<&str>) {
    for _ in 0..100 {
        let changed = lead(world, silent);
        run_pods(world, silent);
        world.advance(1);
        if !changed {
            return;
        }
    }
    panic!("the cluster never settles");
}

fn cluster(nodes: &[&str]) -> World {
    let mut world = World::default();
    for name in nodes {
        world.node(name, 4000, 8000, 110);
    }
    let uid = world.uid();
    world.put(nginx(&uid, 3));
    let uid = world.uid();
    world.put(Record::Service(nginx_service(&uid)));
    world
}

/// Addresses behind the Service, and the nodes they are on.
fn serving(world: &World) -> Vec<(String, String)> {
    let endpoints = world.state.get::<Endpoints>("default", "nginx-service");
    let subsets = endpoints.unwrap().subsets.iter();
    subsets
        .flat_map(|subset| &subset.addresses)
        .map(|address| (address.ip.clone(), address.node_name.clone()))
        .collect()
}

fn ready(world: &World) -> usize {
    world
        .live()
        .iter()
        .filter(|pod| pods::is_ready(pod))
        .count()
}

#[test]
fn the_example_runs() {
    let mut world = cluster(&["one"]);
    let silent = BTreeSet::new();
    settle(&mut world, &silent);
    assert_eq!(ready(&world), 3);
    assert_eq!(serving(&world).len(), 3);
    let service = world
        .state
        .get::<Service>("default", "nginx-service")
        .unwrap();
    let balancer = service
        .status
        .as_ref()
        .unwrap()
        .load_balancer
        .as_ref()
        .unwrap();
    assert_eq!(balancer.ingress[0].ip, "10.0.0.1");
    let status = world.deployment("nginx-deployment").status.clone().unwrap();
    assert_eq!((status.replicas, status.available_replicas), (3, 3));
}

#[test]
fn replicas_are_spread_over_equal_nodes() {
    let mut world = cluster(&["one", "two", "three"]);
    settle(&mut world, &BTreeSet::new());
    let nodes: BTreeSet<_> = serving(&world).into_iter().map(|(_, node)| node).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn a_rollout_replaces_every_pod_and_the_endpoints_follow() {
    let mut world = cluster(&["one", "two"]);
    let silent = BTreeSet::new();
    settle(&mut world, &silent);
    let before: BTreeSet<_> = serving(&world).into_iter().collect();
    world.edit("nginx-deployment", |spec| set_image(spec, "nginx:2"));
    settle(&mut world, &silent);
    let after: BTreeSet<_> = serving(&world).into_iter().collect();
    assert_eq!((after.len(), world.pods().len()), (3, 3));
    assert!(before.is_disjoint(&after));
}

#[test]
fn the_pods_of_a_lost_machine_run_on_another() {
    let mut world = cluster(&["one", "two"]);
    settle(&mut world, &BTreeSet::new());
    let silent = BTreeSet::from(["two"]);
    settle(&mut world, &silent);
    assert_eq!(ready(&world), 3);
    assert!(serving(&world).iter().all(|(_, node)| node == "one"));
    // It is used again when it is back.
    settle(&mut world, &BTreeSet::new());
    world.edit("nginx-deployment", |spec| spec.replicas = Some(6));
    settle(&mut world, &BTreeSet::new());
    assert!(serving(&world).iter().any(|(_, node)| node == "two"));
}

#[test]
fn when_all_machines_are_lost_pods_wait() {
    let mut world = cluster(&["one"]);
    settle(&mut world, &BTreeSet::new());
    settle(&mut world, &BTreeSet::from(["one"]));
    assert_eq!((world.live().len(), ready(&world)), (3, 0));
    assert!(
        world
            .pods()
            .iter()
            .all(|pod: &Arc<PackedPod>| !pod.is_bound())
    );
    assert!(serving(&world).is_empty());
}

#[test]
fn deleting_the_deployment_leaves_nothing() {
    let mut world = cluster(&["one"]);
    settle(&mut world, &BTreeSet::new());
    let deployment = world.deployment("nginx-deployment");
    world.remove(&*deployment);
    settle(&mut world, &BTreeSet::new());
    assert_eq!(world.pods().len(), 0);
    assert_eq!(world.state.count::<barge_proto::v1::Revision>(), 0);
    assert!(serving(&world).is_empty());
}
