//! The definition of the best node, computed directly: slow and without a cache.

use super::*;
use barge_proto::host_ports::{HostPort, Protocol};
use barge_state::{PackedPod, State};
use std::cmp::Ordering;

/// Pods on their way: pod and node uid.
pub type Assumed = BTreeMap<String, String>;

/// What a pod asks for: millicores and bytes.
fn request(state: &State, template_uid: &str) -> (i128, i128) {
    let revision = state.by_uid::<Revision>(template_uid).unwrap();
    let spec = revision.template.as_ref().unwrap().spec.as_ref().unwrap();
    let mut sum = (0, 0);
    for container in &spec.containers {
        let resources = container.resources.clone().unwrap_or_default();
        sum.0 += resources.requests.get("cpu").map_or(0, amount) / 1000;
        sum.1 += resources.requests.get("memory").map_or(0, amount) / 1_000_000;
    }
    sum
}

/// What a pod claims of its node.
pub fn ports(state: &State, template_uid: &str) -> Vec<HostPort> {
    let revision = state.by_uid::<Revision>(template_uid).unwrap();
    let spec = revision.template.as_ref().unwrap().spec.as_ref().unwrap();
    let ports = spec.containers.iter().flat_map(|it| &it.ports);
    let claimed = ports.filter(|it| it.host_port > 0).map(|it| HostPort {
        port: u16::try_from(it.host_port).unwrap(),
        protocol: Protocol::Tcp,
        ip: it.host_ip.parse().ok(),
    });
    claimed.collect()
}

/// In millionths.
fn amount(quantity: &Quantity) -> i128 {
    let text = &quantity.value;
    let (number, unit) = match (text.strip_suffix("Mi"), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1024 * 1024 * 1_000_000),
        (_, Some(number)) => (number, 1000),
        _ => (text.as_str(), 1_000_000),
    };
    number.parse::<i128>().unwrap() * unit
}

fn counted(request: (i128, i128)) -> (i128, i128) {
    match request {
        (0, 0) => (100, 200 * 1024 * 1024),
        request => request,
    }
}

fn finished(pod: &PackedPod) -> bool {
    let phase = pod.phase();
    phase == "Succeeded" || phase == "Failed"
}

struct View {
    fits: bool,
    score: (i128, i128),
    alike: usize,
    pods: usize,
    name: String,
    uid: String,
}

fn view(state: &State, assumed: &Assumed, template_uid: &str, node: &Node) -> View {
    let there: Vec<_> = state
        .list::<PodRecord>(None)
        .filter(|pod| !finished(pod))
        .filter(|pod| {
            let on_its_way =
                !pod.is_bound() && assumed.get(pod.uid()).is_some_and(|uid| uid == node.uid());
            pod.node_uid() == node.uid() || on_its_way
        })
        .collect();
    let status = node.status.clone().unwrap_or_default();
    let allocatable = |name: &str, unit| status.allocatable.get(name).map_or(0, amount) / unit;
    let (cpu, memory) = (allocatable("cpu", 1000), allocatable("memory", 1_000_000));
    let places = allocatable("pods", 1_000_000);
    let (mut used, mut counts) = ((0, 0), (0, 0));
    for pod in &there {
        let request = request(state, pod.template_uid());
        used = (used.0 + request.0, used.1 + request.1);
        let count = counted(request);
        counts = (counts.0 + count.0, counts.1 + count.1);
    }
    let wanted = request(state, template_uid);
    let revision = state.by_uid::<Revision>(template_uid).unwrap();
    let spec = revision.template.as_ref().unwrap().spec.as_ref().unwrap();
    let pods = i128::try_from(there.len()).unwrap();
    let ready = status
        .conditions
        .iter()
        .any(|condition| condition.r#type == "Ready" && condition.status == "True");
    let fits = ready
        && !node.spec.as_ref().unwrap().unschedulable
        // The one taint that there is, and the one toleration.
        && (node.spec.as_ref().unwrap().taints.is_empty() || !spec.tolerations.is_empty())
        && spec
            .node_selector
            .iter()
            .all(|(key, value)| node.meta().labels.get(key) == Some(value))
        && there.iter().all(|pod| {
            let taken = ports(state, pod.template_uid());
            let wanted = ports(state, template_uid);
            !wanted.iter().any(|port| taken.iter().any(|it| it.conflicts(port)))
        })
        && places - pods >= 1
        && (wanted.0 == 0 || wanted.0 <= cpu - used.0)
        && (wanted.1 == 0 || wanted.1 <= memory - used.1);
    let count = counted(wanted);
    let fractions = [
        (count.0, cpu - counts.0),
        (count.1, memory - counts.1),
        (1, places - pods),
    ];
    View {
        fits,
        score: fractions
            .into_iter()
            .max_by(|a, b| compare(*a, *b))
            .unwrap(),
        alike: there
            .iter()
            .filter(|pod| pod.template_uid() == template_uid)
            .count(),
        pods: there.len(),
        name: node.meta().name.clone(),
        uid: node.uid().to_owned(),
    }
}

/// Required over available; nothing available is more than any number, nothing required is less.
fn compare(a: (i128, i128), b: (i128, i128)) -> Ordering {
    let class = |(required, available): (i128, i128)| match (required, available) {
        (0, _) => 0,
        (_, available) if available <= 0 => 2,
        _ => 1,
    };
    class(a).cmp(&class(b)).then_with(|| match class(a) {
        1 => (a.0 * b.1).cmp(&(b.0 * a.1)),
        _ => Ordering::Equal,
    })
}

/// The node that a pod of the template has to go to.
pub fn best(state: &State, assumed: &Assumed, template_uid: &str) -> Option<String> {
    state
        .list::<Node>(None)
        .map(|node| view(state, assumed, template_uid, node))
        .filter(|view| view.fits)
        .min_by(|a, b| {
            compare(a.score, b.score)
                .then(a.alike.cmp(&b.alike))
                .then(a.pods.cmp(&b.pods))
                .then(a.name.cmp(&b.name))
        })
        .map(|view| view.uid)
}

/// Pods that wait, in the order of their turns.
pub fn waiting(state: &State, assumed: &Assumed) -> Vec<Arc<PackedPod>> {
    let mut pods: Vec<_> = state
        .list::<PodRecord>(None)
        .filter(|pod| !pod.is_bound() && !finished(pod))
        .filter(|pod| !assumed.contains_key(pod.uid()))
        .cloned()
        .collect();
    pods.sort_by_key(|pod| {
        let created = pod.meta().creation_timestamp.unwrap();
        (created.seconds, created.nanos, pod.uid().to_owned())
    });
    pods
}
