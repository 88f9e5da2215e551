#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{plan, *};
use crate::controllers::{
    deployment,
    testing::{World, nginx, nginx_service, set_image},
};
use barge_proto::v1::record::Record;
use barge_proto::v1::{
    ContainerPort, DeploymentSpec, EndpointSubset, IntOrString, ServicePort, int_or_string::Value,
};

fn key(name: &str) -> Name {
    Name {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn look(world: &mut World) -> Plan {
    let mut stamp = world.stamp();
    let plan = plan(&world.state, &key("nginx-service"), &mut stamp);
    world.follow(plan.clone());
    plan
}

fn roll(world: &mut World) {
    for _ in 0..10 {
        let mut stamp = world.stamp();
        let plan = deployment::plan(&world.state, &key("nginx-deployment"), &mut stamp);
        world.follow(plan);
    }
}

fn subsets(world: &World) -> Vec<EndpointSubset> {
    let endpoints = world.state.get::<Endpoints>("default", "nginx-service");
    endpoints.unwrap().subsets.clone()
}

/// A Deployment with that many pods, bound to a ready node, and a Service for them.
fn world(replicas: i32) -> World {
    let mut world = World::default();
    let uid = world.uid();
    world.put(nginx(&uid, replicas));
    let uid = world.uid();
    world.put(Record::Service(nginx_service(&uid)));
    let node = world.node("one", 8000, 8000, 100);
    roll(&mut world);
    for pod in world.live() {
        world.bind(&pod, &node);
    }
    world
}

fn ips(addresses: &[barge_proto::v1::EndpointAddress]) -> Vec<String> {
    addresses.iter().map(|address| address.ip.clone()).collect()
}

#[test]
fn ready_pods_are_addresses_and_others_are_not_ready_addresses() {
    let mut world = world(3);
    look(&mut world);
    assert_eq!(
        subsets(&world),
        [],
        "a pod without an address is behind nothing"
    );
    let pods = world.live();
    world.report(pods[0].uid(), "Running", true);
    world.report(pods[1].uid(), "Running", false);
    look(&mut world);
    let subsets = subsets(&world);
    assert_eq!(subsets.len(), 1);
    let ready = &subsets[0].addresses;
    assert_eq!((ready.len(), subsets[0].not_ready_addresses.len()), (1, 1));
    assert_eq!(ready[0].node_name, "one");
    let target = ready[0].target_ref.as_ref().unwrap();
    assert_eq!(
        (target.kind.as_str(), target.uid.as_str()),
        ("Pod", pods[0].uid())
    );
    assert_eq!(subsets[0].ports[0].port, 80);
    assert_eq!(subsets[0].ports[0].protocol, "TCP");
    assert_eq!(
        look(&mut world),
        Plan::default(),
        "nothing is written twice"
    );
}

#[test]
fn pods_that_name_the_service_have_their_name_in_it() {
    for (subdomain, found) in [("nginx-service", "web"), ("other", ""), ("", "")] {
        let mut world = world(0);
        world.raise(barge_state::LEVEL);
        let node = world.node("two", 8000, 8000, 100);
        world.edit("nginx-deployment", |spec| {
            spec.replicas = Some(1);
            let template = spec.template.as_mut().unwrap();
            let pod = template.spec.as_mut().unwrap();
            pod.hostname = "web".into();
            pod.subdomain = subdomain.into();
        });
        roll(&mut world);
        for pod in world.live() {
            world.bind(&pod, &node);
            world.report(pod.uid(), "Running", true);
        }
        look(&mut world);
        assert_eq!(subsets(&world)[0].addresses[0].hostname, found);
        assert_eq!(
            look(&mut world),
            Plan::default(),
            "nothing is written twice"
        );
    }
}

#[test]
fn pods_that_end_leave_at_once() {
    let mut world = world(2);
    for pod in world.live() {
        world.report(pod.uid(), "Running", true);
    }
    look(&mut world);
    assert_eq!(subsets(&world)[0].addresses.len(), 2);
    let pods = world.live();
    let mut plan = Plan::default();
    plan.draft.terminate(pods[0].uid(), "");
    world.follow(plan);
    look(&mut world);
    assert_eq!(subsets(&world)[0].addresses.len(), 1);
    world.report(pods[1].uid(), "Succeeded", false);
    look(&mut world);
    assert_eq!(subsets(&world), []);
}

#[test]
fn endpoints_go_with_their_service() {
    let mut world = world(1);
    look(&mut world);
    let service = world
        .state
        .get::<Service>("default", "nginx-service")
        .unwrap()
        .clone();
    world.remove(&*service);
    assert_eq!(world.state.count::<Endpoints>(), 0);
    assert_eq!(look(&mut world), Plan::default());
}

#[test]
fn a_service_without_selector_is_left_alone() {
    let mut world = world(1);
    let service = world
        .state
        .get::<Service>("default", "nginx-service")
        .unwrap()
        .clone();
    let mut service = Service::clone(&service);
    let spec = service.spec.as_mut().unwrap();
    spec.selector.clear();
    spec.r#type = "ClusterIP".into();
    world.put(Record::Service(service));
    assert_eq!(look(&mut world), Plan::default());
}

fn named_ports(spec: &mut DeploymentSpec, ports: &[(&str, i32)]) {
    let template = spec.template.as_mut().unwrap();
    let container = &mut template.spec.as_mut().unwrap().containers[0];
    let port = |(name, number): &(&str, i32)| ContainerPort {
        name: (*name).to_owned(),
        container_port: *number,
        protocol: "TCP".into(),
        ..ContainerPort::default()
    };
    container.ports = ports.iter().map(port).collect();
}

#[test]
fn named_ports_that_differ_make_several_subsets() {
    let mut world = world(0);
    let node = world.node("two", 8000, 8000, 100);
    let mut service = Service::clone(
        world
            .state
            .get::<Service>("default", "nginx-service")
            .unwrap(),
    );
    let target = |name: &str| {
        Some(IntOrString {
            value: Some(Value::String(name.into())),
        })
    };
    service.spec.as_mut().unwrap().ports = vec![
        ServicePort {
            name: "web".into(),
            port: 80,
            target_port: target("http"),
            ..ServicePort::default()
        },
        ServicePort {
            name: "metrics".into(),
            port: 9100,
            target_port: target("metrics"),
            ..ServicePort::default()
        },
    ];
    world.put(Record::Service(service));
    world.edit("nginx-deployment", |spec| {
        spec.replicas = Some(1);
        named_ports(spec, &[("http", 8080), ("metrics", 9100)]);
    });
    roll(&mut world);
    // Of the other revision: another number for one name, and the other name is missing.
    world.edit("nginx-deployment", |spec| {
        set_image(spec, "nginx:2");
        named_ports(spec, &[("http", 8081)]);
    });
    roll(&mut world);
    for pod in world.live() {
        world.bind(&pod, &node);
        world.report(pod.uid(), "Running", true);
    }
    look(&mut world);
    let subsets = subsets(&world);
    let shape: Vec<_> = subsets
        .iter()
        .map(|subset| {
            let ports = subset.ports.iter();
            let ports: Vec<_> = ports.map(|port| (port.name.as_str(), port.port)).collect();
            (ports, subset.addresses.len())
        })
        .collect();
    assert_eq!(
        shape,
        [
            (vec![("metrics", 9100), ("web", 8080)], 1),
            (vec![("web", 8081)], 1)
        ]
    );
    assert_ne!(ips(&subsets[0].addresses), ips(&subsets[1].addresses));
}

#[test]
fn a_load_balancer_is_answered_by_the_ready_nodes() {
    let mut world = world(0);
    let ingress = |world: &World| -> Vec<String> {
        let service = world
            .state
            .get::<Service>("default", "nginx-service")
            .unwrap();
        let balancer = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.clone());
        balancer
            .unwrap_or_default()
            .ingress
            .into_iter()
            .map(|ingress| ingress.ip)
            .collect()
    };
    look(&mut world);
    assert_eq!(ingress(&world), ["10.0.0.1"]);
    let two = world.node("two", 1, 1, 1);
    look(&mut world);
    assert_eq!(ingress(&world), ["10.0.0.1", "10.0.0.2"]);
    world.put_status(Record::Node(Node {
        metadata: two.metadata.clone(),
        ..Node::default()
    }));
    look(&mut world);
    assert_eq!(ingress(&world), ["10.0.0.1"]);
    assert_eq!(look(&mut world), Plan::default());
    // No longer a load balancer: no addresses.
    let mut service = Service::clone(
        world
            .state
            .get::<Service>("default", "nginx-service")
            .unwrap(),
    );
    service.spec.as_mut().unwrap().r#type = "ClusterIP".into();
    world.put(Record::Service(service));
    look(&mut world);
    assert!(ingress(&world).is_empty());
}

fn dirty(world: &mut World) -> Vec<String> {
    let mut dirty = Vec::new();
    for change in std::mem::take(&mut world.changes) {
        EndpointsOfServices.dirtied(&world.state, &change, &mut |key| dirty.push(key.name));
    }
    dirty
}

#[test]
fn a_pod_is_behind_the_services_that_select_its_own_labels() {
    let mut world = world(2);
    for pod in world.live() {
        world.report(pod.uid(), "Running", true);
    }
    look(&mut world);
    let [stays, goes] = &world.live()[..] else {
        panic!("two pods");
    };
    world.changes.clear();
    world.label(goes, &[("app", "debug")]);
    assert_eq!(
        dirty(&mut world),
        ["nginx-service"],
        "it is behind it no more"
    );
    look(&mut world);
    assert_eq!(ips(&subsets(&world)[0].addresses), [stays.pod_ip()]);
    // The Service of the others.
    let uid = world.uid();
    let mut debug = nginx_service(&uid);
    debug.metadata.as_mut().unwrap().name = "debug".into();
    debug.spec.as_mut().unwrap().selector = [("app".to_owned(), "debug".to_owned())].into();
    let found = |world: &World, service: &Service| {
        let mut pods = backends(&world.state, service).into_iter();
        pods.next().map(|found| found.pod.name)
    };
    assert_eq!(found(&world, &debug).as_deref(), Some(goes.name()));
    world.changes.clear();
    world.label(goes, &[("app", "nginx"), ("by", "ann")]);
    assert_eq!(dirty(&mut world), ["nginx-service"]);
    assert_eq!(found(&world, &debug), None);
    look(&mut world);
    assert_eq!(subsets(&world)[0].addresses.len(), 2);
    // The rest of its labels is nothing to the Service, and nor is the lack of all.
    world.label(goes, &[]);
    look(&mut world);
    assert_eq!(ips(&subsets(&world)[0].addresses), [stays.pod_ip()]);
    // A node is lost: the Services of all its pods are looked at, by their own labels.
    let mut behind_it = Vec::new();
    behind(&world.state, goes.node_uid(), &mut |key| {
        behind_it.push(key.name)
    });
    assert_eq!(behind_it, ["nginx-service"], "of the one that stays");
}

#[test]
fn only_services_that_select_a_pod_become_dirty_with_it() {
    let mut world = world(1);
    let uid = world.uid();
    let mut other = nginx_service(&uid);
    other.metadata.as_mut().unwrap().name = "other".into();
    other.spec.as_mut().unwrap().selector = [("app".to_owned(), "other".to_owned())].into();
    world.put(Record::Service(other));
    world.changes.clear();
    let pod = world.live()[0].clone();
    world.report(pod.uid(), "Running", true);
    assert_eq!(dirty(&mut world), ["nginx-service"]);
    world.advance(1);
    world.report(pod.uid(), "Running", true);
    assert!(
        dirty(&mut world).is_empty(),
        "nothing that Endpoints show has changed"
    );
    world.remove(&*pod);
    assert_eq!(dirty(&mut world), ["nginx-service"]);
}

fn with_spec(world: &mut World, change: impl FnOnce(&mut barge_proto::v1::ServiceSpec)) {
    let service = world.state.get::<Service>("default", "nginx-service");
    let mut service = Service::clone(service.unwrap());
    change(service.spec.as_mut().unwrap());
    world.put(Record::Service(service));
}

#[test]
fn a_service_may_publish_pods_that_are_not_ready() {
    let mut world = world(3);
    world.raise(barge_state::LEVEL);
    with_spec(&mut world, |spec| spec.publish_not_ready_addresses = true);
    let pods = world.live();
    world.report(pods[0].uid(), "Running", true);
    world.report(pods[1].uid(), "Running", false);
    look(&mut world);
    let found = &subsets(&world)[0];
    assert_eq!(found.addresses.len(), 2, "the third has no address yet");
    assert_eq!(found.not_ready_addresses, []);
    world.remove(&*pods[1]);
    look(&mut world);
    assert_eq!(subsets(&world)[0].addresses.len(), 1);
}

#[test]
fn a_load_balancer_that_keeps_to_its_nodes_is_answered_by_those_with_ready_pods() {
    let mut world = world(1);
    world.raise(barge_state::LEVEL);
    world.node("two", 8000, 8000, 100);
    with_spec(&mut world, |spec| {
        spec.external_traffic_policy = "Local".into()
    });
    let ingress = |world: &World| -> Vec<String> {
        let service = world.state.get::<Service>("default", "nginx-service");
        let status = service.unwrap().status.clone().unwrap_or_default();
        let ingress = status.load_balancer.unwrap_or_default().ingress.into_iter();
        ingress.map(|ingress| ingress.ip).collect()
    };
    look(&mut world);
    assert_eq!(ingress(&world), [""; 0]);
    let pod = world.live()[0].clone();
    world.report(pod.uid(), "Running", true);
    look(&mut world);
    assert_eq!(ingress(&world), ["10.0.0.1"]);
    assert_eq!(look(&mut world), Plan::default());
    world.report(pod.uid(), "Running", false);
    look(&mut world);
    assert_eq!(ingress(&world), [""; 0]);
}
