//! In which order the objects of a request are planned.

use std::collections::HashMap;

use barge_proto::v1::{Kind, Object, Service, object};
use barge_state::{Kind as Recorded, State};

use super::Merged;

/// Namespaces come first: what is in them may stand before them in the manifest. A Service that has a node port which another one of the request asks for
/// comes before that: it may give the port away. All others keep their order. Each comes with its place in the request.
pub(super) fn in_order(state: &State, objects: Vec<Merged>) -> Vec<(usize, Merged)> {
    let services = objects.iter().enumerate().filter_map(|(at, merged)| {
        let object = &merged.object;
        let is_service = object.kind() == Kind::Service;
        let there = is_service.then(|| state.get::<Service>(object.namespace(), object.name()));
        Some((there??.uid().to_owned(), at))
    });
    let services: HashMap<String, usize> = services.collect();
    let mut ranks = vec![0; objects.len()];
    let mut begun = vec![false; objects.len()];
    let mut next = 0;
    for at in 0..objects.len() {
        // Those that wait for the ones above them. Each comes in once, so two that want each other's ports end the walk.
        let mut waiting = vec![(at, false)];
        while let Some((at, has_waited)) = waiting.pop() {
            if has_waited {
                ranks[at] = next;
                next += 1;
                continue;
            }
            if std::mem::replace(&mut begun[at], true) {
                continue;
            }
            waiting.push((at, true));
            if let Some(merged) = objects.get(at) {
                let givers = givers(state, &merged.object, &services);
                waiting.extend(givers.map(|giver| (giver, false)));
            }
        }
    }
    let ranked = objects.into_iter().enumerate().zip(ranks);
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|((_, merged), rank)| (merged.object.kind() != Kind::Namespace, *rank));
    ranked.into_iter().map(|(object, _)| object).collect()
}

/// The places of the Services that have a node port which this one asks for.
fn givers<'a>(
    state: &'a State,
    object: &'a Object,
    services: &'a HashMap<String, usize>,
) -> impl Iterator<Item = usize> + 'a {
    let spec = match &object.kind {
        Some(object::Kind::Service(service)) => service.spec.as_ref(),
        _ => None,
    };
    let ports = spec.into_iter().flat_map(|spec| &spec.ports);
    let asked = ports.filter(|port| port.node_port != 0);
    let holders =
        asked.filter_map(|port| state.service_with_node_port(port.node_port, &port.protocol));
    holders.filter_map(|holder| services.get(holder.uid()).copied())
}
