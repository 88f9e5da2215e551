//! Which taints of a node a pod tolerates, and for how long: Kubernetes' rules.

use super::stamp;
use barge_proto::v1::{Node, NodeSpec, Taint, Time, Toleration};
use std::time::Duration;

/// The effect that keeps new pods away.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// The effect that ends pods as well.
pub const NO_EXECUTE: &str = "NoExecute";
/// The taint of a node that is lost: the leader sets it when the node is silent, and removes it when the node is back.
pub const UNREACHABLE: &str = "node.barge.dev/unreachable";
/// The taint by which a person says that the machine of a silent node is off. The leader removes it when the node is back.
pub const OUT_OF_SERVICE: &str = "node.barge.dev/out-of-service";

/// The taint of a node whose disk is short: Kubernetes' own. It keeps new pods away, and those that are there stay.
pub const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";

/// Prefixes that mean the same in tolerations: manifests name Kubernetes' own taints.
const OURS: &str = "node.barge.dev/";
const KUBERNETES: &str = "node.kubernetes.io/";

/// The taints of a node.
pub fn of(node: &Node) -> &[Taint] {
    node.spec.as_ref().map_or(&[], |spec| &spec.taints)
}

/// Whether the node has the taint with that key and the effect NoExecute.
pub fn has(node: &Node, key: &str) -> bool {
    of(node).iter().any(|taint| is(taint, key))
}

/// Whether it is the taint with that key and the effect NoExecute.
pub fn is(taint: &Taint, key: &str) -> bool {
    taint.key == key && taint.effect == NO_EXECUTE
}

/// The taint that makes a node lost.
pub fn unreachable(now: Time) -> Taint {
    Taint {
        key: UNREACHABLE.to_owned(),
        effect: NO_EXECUTE.to_owned(),
        time_added: Some(now),
        ..Taint::default()
    }
}

/// Whether the leader sets this taint, or removes it when the node is back.
pub fn is_managed(taint: &Taint) -> bool {
    is(taint, UNREACHABLE) || is(taint, OUT_OF_SERVICE)
}

/// The spec with the taints that follow from what the agent says of the machine.
pub fn with_pressure(mut spec: NodeSpec, disk: bool, now: Time) -> NodeSpec {
    let is_pressure = |taint: &Taint| taint.key == DISK_PRESSURE && taint.effect == NO_SCHEDULE;
    match disk {
        false => spec.taints.retain(|taint| !is_pressure(taint)),
        true if spec.taints.iter().any(is_pressure) => {}
        true => spec.taints.push(Taint {
            key: DISK_PRESSURE.to_owned(),
            effect: NO_SCHEDULE.to_owned(),
            time_added: Some(now),
            ..Taint::default()
        }),
    }
    spec
}

/// The spec without the taints that end when the node is back.
pub fn without_managed(spec: &NodeSpec) -> NodeSpec {
    let mut spec = spec.clone();
    spec.taints.retain(|taint| !is_managed(taint));
    spec
}

/// Whether a new pod may go where that taint is.
pub fn admits(tolerations: &[Toleration], taint: &Taint) -> bool {
    let keeps_away = matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE);
    !keeps_away || tolerations.iter().any(|it| tolerates(it, taint))
}

/// How long a pod may still stay where these taints are, of which only those with NoExecute count: zero when it has to go
/// now, None when it may stay for ever. Where several tolerations fit one taint, the shortest counts.
pub fn stays<'a>(
    tolerations: &[Toleration],
    taints: impl IntoIterator<Item = &'a Taint>,
    now: &Time,
) -> Option<Duration> {
    let taints = taints.into_iter();
    let expelling = taints.filter(|taint| taint.effect == NO_EXECUTE);
    expelling
        .filter_map(|taint| {
            let mut fitting = tolerations
                .iter()
                .filter(|it| tolerates(it, taint))
                .peekable();
            if fitting.peek().is_none() {
                return Some(Duration::ZERO);
            }
            let seconds = fitting.filter_map(|it| it.toleration_seconds).min()?;
            let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let age = taint
                .time_added
                .map_or(Duration::MAX, |then| stamp::age(now, &then));
            Some(patience.saturating_sub(age))
        })
        .min()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any_value = toleration.operator == "Exists";
    let key = match toleration.key.as_str() {
        "" => any_value,
        key if key == taint.key => true,
        key => {
            let names = (key.strip_prefix(KUBERNETES), taint.key.strip_prefix(OURS));
            matches!(names, (Some(tolerated), Some(tainted)) if tolerated == tainted)
        }
    };
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    key && effect && (any_value || toleration.value == taint.value)
}

#[cfg(test)]
mod tests;
