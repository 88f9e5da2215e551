//! Endpoints: the pods behind a Service, and the node addresses of a LoadBalancer Service.
//!
//! Every node answers for every Service, so the addresses of a LoadBalancer are those of the ready
//! nodes.

mod subsets;
#[cfg(test)]
mod tests;

use super::{
    Controller, Name, conditions,
    nodes::is_lost,
    plan::{Plan, controller_reference, is_going, object_reference, pod_reference},
    pods,
    stamp::Stamp,
};
use barge_proto::{
    selector::Labels,
    v1::{
        Endpoints, LoadBalancerIngress, LoadBalancerStatus, Node, ObjectMeta, ObjectReference,
        PodRecord, Revision, Service, ServiceStatus,
    },
};
use barge_state::{Changed, Kind, Own, PackedPod, RecordKind, State};
use std::{collections::BTreeSet, sync::Arc};
use subsets::Backend;

/// The feature level from which on addresses have host names. An older manager would drop them.
const HOSTNAMES: u32 = 9;

/// The controller of Endpoints and of the addresses of LoadBalancer Services.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndpointsOfServices;

impl Controller for EndpointsOfServices {
    type Key = Name;
    const NAME: &'static str = "endpoints";
    const KINDS: &'static [RecordKind] = &[
        RecordKind::Service,
        RecordKind::Endpoints,
        RecordKind::Pod,
        RecordKind::Node,
    ];

    fn all(&self, state: &State) -> Vec<Name> {
        state
            .list::<Service>(None)
            .map(|service| Name::of(service.meta()))
            .collect()
    }

    fn dirtied(&self, state: &State, changed: &Changed, dirty: &mut dyn FnMut(Name)) {
        match changed.kind() {
            Some(RecordKind::Service | RecordKind::Endpoints) => dirty(Name {
                namespace: changed.namespace().to_owned(),
                name: changed.name().to_owned(),
            }),
            Some(RecordKind::Pod) if pod_matters(changed) => {
                let labels = changed.labels();
                for service in state.list::<Service>(Some(changed.namespace())) {
                    let mut labels = labels.iter().flatten();
                    if labels.any(|labels| selects(service, labels)) {
                        dirty(Name::of(service.meta()));
                    }
                }
            }
            Some(RecordKind::Node) => {
                if node_matters(changed) {
                    for service in state.list::<Service>(None) {
                        if is_load_balancer(service) {
                            dirty(Name::of(service.meta()));
                        }
                    }
                }
                if loss_changed(changed) {
                    behind(state, changed.uid(), dirty);
                }
            }
            _ => {}
        }
    }

    fn plan(&self, state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
        plan(state, key, stamp)
    }

    fn concerned(&self, state: &State, key: &Name) -> Option<ObjectReference> {
        let service = state.get::<Service>(&key.namespace, &key.name)?;
        Some(object_reference("v1", "Service", service.meta()))
    }
}

/// Whether a pod's change can change any Endpoints: most (restarts, container states) can't.
fn pod_matters(changed: &Changed) -> bool {
    fn seen(pod: &Arc<PackedPod>) -> (String, bool, bool, &str, Own<'_>) {
        (
            pod.pod_ip(),
            pods::is_live(pod),
            pods::is_ready(pod),
            pod.node_uid(),
            pod.own_labels(),
        )
    }
    let (before, after) = changed.of::<PodRecord>();
    before.map(seen) != after.map(seen)
}

fn node_matters(changed: &Changed) -> bool {
    let (before, after) = changed.of::<Node>();
    before.and_then(|node| ingress(node)) != after.and_then(|node| ingress(node))
}

/// Whether the node was lost, or is not any more.
fn loss_changed(changed: &Changed) -> bool {
    let (before, after) = changed.of::<Node>();
    before.is_some_and(|node| is_lost(node)) != after.is_some_and(|node| is_lost(node))
}

/// The Services with pods on a node.
fn behind(state: &State, node_uid: &str, dirty: &mut dyn FnMut(Name)) {
    for pod in state.pods_on(node_uid) {
        let labels = state.labels(pod);
        for service in state.list::<Service>(Some(pod.namespace())) {
            if selects(service, &labels) {
                dirty(Name::of(service.meta()));
            }
        }
    }
}

fn selects(service: &Service, labels: &Labels) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    // Users write the Endpoints of a Service without a selector.
    !spec.selector.is_empty()
        && spec
            .selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}

fn is_load_balancer(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .is_some_and(|spec| spec.r#type == "LoadBalancer")
}

/// What should be done for a Service now.
pub fn plan(state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
    let mut plan = Plan::default();
    // Those of a Service that is gone went with it: it owned them.
    let Some(service) = state.get::<Service>(&key.namespace, &key.name) else {
        return plan;
    };
    if is_going(state, service.meta()) {
        return plan;
    }
    load_balancer(state, service, &mut plan);
    let has_selector = service
        .spec
        .as_ref()
        .is_some_and(|spec| !spec.selector.is_empty());
    if has_selector {
        endpoints(state, service, stamp, &mut plan);
    }
    if !plan.draft.is_empty() {
        plan.draft.same(&**service);
        plan.draft.same_generation(&**service);
    }
    plan
}

fn endpoints(state: &State, service: &Service, stamp: &mut Stamp, plan: &mut Plan) {
    let backends = backends(state, service);
    let ports = service.spec.as_ref().map_or(&[][..], |spec| &spec.ports);
    let owner = service.meta();
    let old = state.get::<Endpoints>(&owner.namespace, &owner.name);
    let metadata = ObjectMeta {
        name: owner.name.clone(),
        namespace: owner.namespace.clone(),
        uid: old.map_or_else(|| stamp.uid(), |old| old.uid().to_owned()),
        labels: owner.labels.clone(),
        owner_references: vec![controller_reference("v1", "Service", owner)],
        ..ObjectMeta::default()
    };
    let wanted = Endpoints {
        metadata: Some(metadata),
        subsets: subsets::subsets(&backends, ports),
        ..Endpoints::default()
    };
    match old {
        Some(old) if same(old, &wanted) => return,
        Some(old) => plan.draft.unchanged(&**old),
        None => {
            let Name { namespace, name } = Name::of(wanted.meta());
            plan.draft.absent::<Endpoints>(&namespace, &name);
        }
    }
    plan.draft.put(wanted);
}

/// Equal but for what `apply` fills in.
fn same(old: &Endpoints, wanted: &Endpoints) -> bool {
    let (left, right) = (old.meta(), wanted.meta());
    old.subsets == wanted.subsets
        && left.labels == right.labels
        && left.owner_references == right.owner_references
}

/// The pods that a Service selects and that have an address.
fn backends(state: &State, service: &Service) -> Vec<Backend> {
    let namespace = &service.meta().namespace;
    let spec = service.spec.as_ref();
    let publishes = spec.is_some_and(|spec| spec.publish_not_ready_addresses);
    let pods = state.pods_labelled(namespace, |labels| selects(service, labels));
    let mut backends = Vec::new();
    for (revision, pod) in pods.filter(|(_, pod)| pods::is_live(pod)) {
        let ip = pod.pod_ip();
        if ip.is_empty() {
            continue;
        }
        let node = state.by_uid::<Node>(pod.node_uid());
        backends.push(Backend {
            ip,
            node_name: node.map_or_else(String::new, |node| node.meta().name.clone()),
            pod: pod_reference(pod),
            hostname: hostname(state, revision, service),
            // A pod that tolerates the loss of its node stays, and is not to be reached meanwhile.
            ready: (publishes || pods::is_ready(pod)) && !node.is_some_and(|node| is_lost(node)),
            template: Arc::clone(revision),
        });
    }
    // By name, whatever revision they are of.
    backends.sort_by(|a, b| a.pod.name.cmp(&b.pod.name));
    backends
}

/// The host name of pods of a revision in a Service that they name as their subdomain.
fn hostname(state: &State, revision: &Revision, service: &Service) -> String {
    if state.feature_level() < HOSTNAMES {
        return String::new();
    }
    let spec = revision.template.as_ref().and_then(|it| it.spec.as_ref());
    let spec = spec.filter(|spec| spec.subdomain == service.meta().name);
    spec.map_or_else(String::new, |spec| spec.hostname.clone())
}

fn load_balancer(state: &State, service: &Service, plan: &mut Plan) {
    let ips: BTreeSet<String> = if is_load_balancer(service) {
        let serving = keeps_to_nodes(service).then(|| serving_nodes(state, service));
        let serves = |node: &Node| match &serving {
            Some(serving) => serving.contains(&node.meta().name),
            None => true,
        };
        state
            .list::<Node>(None)
            .filter(|node| serves(node))
            .filter_map(|node| ingress(node))
            .collect()
    } else {
        BTreeSet::new()
    };
    let old = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .map_or(&[][..], |balancer| &balancer.ingress);
    if old.iter().map(|ingress| &ingress.ip).eq(&ips) {
        return;
    }
    let ingress = ips.into_iter().map(|ip| LoadBalancerIngress { ip });
    plan.draft.put_status(Service {
        metadata: service.metadata.clone(),
        status: Some(ServiceStatus {
            load_balancer: Some(LoadBalancerStatus {
                ingress: ingress.collect(),
            }),
        }),
        ..Service::default()
    });
}

/// Whether a node answers clients from outside with its own pods only.
fn keeps_to_nodes(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.external_traffic_policy == "Local")
}

/// The names of the nodes that have endpoints.
fn serving_nodes(state: &State, service: &Service) -> BTreeSet<String> {
    let has_selector = service
        .spec
        .as_ref()
        .is_some_and(|spec| !spec.selector.is_empty());
    if has_selector {
        let ready = backends(state, service).into_iter();
        let ready = ready.filter(|backend| backend.ready);
        return ready.map(|backend| backend.node_name).collect();
    }
    let Name { namespace, name } = Name::of(service.meta());
    let endpoints = state.get::<Endpoints>(&namespace, &name);
    let subsets = endpoints.into_iter().flat_map(|it| &it.subsets);
    let addresses = subsets.flat_map(|subset| &subset.addresses);
    addresses.map(|address| address.node_name.clone()).collect()
}

/// The address at which a node answers for Services; none when it isn't ready.
fn ingress(node: &Node) -> Option<String> {
    let status = node.status.as_ref()?;
    if !conditions::is_true(&status.conditions, "Ready") {
        return None;
    }
    status
        .addresses
        .iter()
        .find(|address| address.r#type == "InternalIP")
        .map(|address| address.address.clone())
}
