//! PodDisruptionBudgets: how many pods of an application may be ended on purpose now.
//!
//! The leader counts; whoever ends pods on purpose (a drain, an eviction) asks.

#[cfg(test)]
mod tests;

use super::{
    Controller, Name, conditions,
    plan::{Plan, is_going, object_reference},
    pods,
    replicas::{count, number},
    stamp::Stamp,
};
use barge_proto::{
    selector::{Labels, Selector},
    v1::{
        Deployment, IntOrString, ObjectReference, OwnerReference, PodDisruptionBudget,
        PodDisruptionBudgetSpec, PodDisruptionBudgetStatus, PodRecord, ReplicaSet, Revision,
        int_or_string::Value,
    },
};
use barge_state::{Changed, Kind, Own, PackedPod, RecordKind, State, Stored, labels_of};
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

/// The condition that says whether a pod may be ended.
const ALLOWED: &str = "DisruptionAllowed";

/// The controller of PodDisruptionBudgets.
#[derive(Debug, Clone, Copy, Default)]
pub struct DisruptionBudgets;

impl Controller for DisruptionBudgets {
    type Key = Name;
    const NAME: &'static str = "disruption";
    const KINDS: &'static [RecordKind] = &[
        RecordKind::PodDisruptionBudget,
        RecordKind::Pod,
        RecordKind::Deployment,
        RecordKind::ReplicaSet,
    ];

    fn all(&self, state: &State) -> Vec<Name> {
        let budgets = state.list::<PodDisruptionBudget>(None);
        budgets.map(|budget| Name::of(budget.meta())).collect()
    }

    fn dirtied(&self, state: &State, changed: &Changed, dirty: &mut dyn FnMut(Name)) {
        match changed.kind() {
            Some(RecordKind::PodDisruptionBudget) => dirty(Name {
                namespace: changed.namespace().to_owned(),
                name: changed.name().to_owned(),
            }),
            Some(RecordKind::Pod) if pod_matters(changed) => {
                let labels = changed.labels();
                let labels = labels.iter().flatten().map(Cow::as_ref);
                selecting(state, changed.namespace(), labels, dirty);
            }
            Some(RecordKind::Deployment | RecordKind::ReplicaSet) if scale_matters(changed) => {
                let labels = changed.record().map(owner_labels).into_iter();
                selecting(state, changed.namespace(), labels, dirty);
            }
            _ => {}
        }
    }

    fn plan(&self, state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
        plan(state, key, stamp)
    }

    fn concerned(&self, state: &State, key: &Name) -> Option<ObjectReference> {
        let budget = state.get::<PodDisruptionBudget>(&key.namespace, &key.name)?;
        Some(object_reference(
            "policy/v1",
            "PodDisruptionBudget",
            budget.meta(),
        ))
    }
}

/// The budgets of a namespace that select any of these labels.
fn selecting<'a>(
    state: &State,
    namespace: &str,
    labels: impl Iterator<Item = &'a Labels> + Clone,
    dirty: &mut dyn FnMut(Name),
) {
    for budget in state.list::<PodDisruptionBudget>(Some(namespace)) {
        let Some(selector) = budget.spec.as_ref().and_then(selector) else {
            continue;
        };
        if labels.clone().any(|labels| selector.matches(labels)) {
            dirty(Name::of(budget.meta()));
        }
    }
}

/// Whether a pod's change can change any budget: most (restarts, addresses) can't.
fn pod_matters(changed: &Changed) -> bool {
    fn seen(pod: &Arc<PackedPod>) -> (bool, bool, Own<'_>, &[OwnerReference]) {
        (
            is_counted(pod),
            is_healthy(pod),
            pod.own_labels(),
            pod.owners(),
        )
    }
    let (before, after) = changed.of::<PodRecord>();
    before.map(seen) != after.map(seen)
}

fn scale_matters(changed: &Changed) -> bool {
    let (before, after) = (changed.before.as_ref(), changed.after.as_ref());
    before.map(wanted) != after.map(wanted)
}

/// The labels of the pods that an owner makes.
fn owner_labels(owner: &Stored) -> &Labels {
    let template = match owner {
        Stored::Deployment(it) => it.spec.as_ref().and_then(|spec| spec.template.as_ref()),
        Stored::ReplicaSet(it) => it.spec.as_ref().and_then(|spec| spec.template.as_ref()),
        _ => None,
    };
    labels_of(template)
}

/// How many pods an owner asks for; None for what makes no pods.
fn wanted(owner: &Stored) -> Option<i32> {
    let replicas = match owner {
        Stored::Deployment(it) => it.spec.as_ref()?.replicas,
        Stored::ReplicaSet(it) => it.spec.as_ref()?.replicas,
        _ => return None,
    };
    Some(replicas.unwrap_or(1))
}

/// What a budget selects; `None` when that is nothing.
fn selector(spec: &PodDisruptionBudgetSpec) -> Option<Selector> {
    // Validation let in nothing that is none.
    Selector::try_from(spec.selector.as_ref()?).ok()
}

/// Whether it is a pod of the application: one that has ended for good is not.
fn is_counted(pod: &PackedPod) -> bool {
    !pods::is_finished(pod)
}

/// Whether it serves, and is not about to end.
fn is_healthy(pod: &PackedPod) -> bool {
    pods::is_ready(pod) && !pods::is_terminating(pod)
}

/// What should be done for a budget now.
pub fn plan(state: &State, key: &Name, stamp: &mut Stamp) -> Plan {
    let mut plan = Plan::default();
    let Some(budget) = state.get::<PodDisruptionBudget>(&key.namespace, &key.name) else {
        return plan;
    };
    if is_going(state, budget.meta()) {
        return plan;
    }
    let Some(spec) = &budget.spec else {
        return plan;
    };
    let counts = counts(state, &key.namespace, spec);
    let old = budget.status.clone().unwrap_or_default();
    let mut status = PodDisruptionBudgetStatus {
        observed_generation: budget.meta().generation,
        disruptions_allowed: number(counts.allowed()),
        current_healthy: number(counts.healthy),
        desired_healthy: number(counts.desired),
        expected_pods: number(counts.expected),
        conditions: old.conditions.clone(),
    };
    let (value, reason) = match counts.allowed() {
        0 => ("False", "InsufficientPods"),
        _ => ("True", "SufficientPods"),
    };
    conditions::set(
        &mut status.conditions,
        ALLOWED,
        value,
        reason,
        "",
        stamp.now,
    );
    if status == old {
        return plan;
    }
    plan.draft.put_status(PodDisruptionBudget {
        metadata: budget.metadata.clone(),
        status: Some(status),
        ..PodDisruptionBudget::default()
    });
    plan.draft.same(&**budget);
    plan.draft.same_generation(&**budget);
    plan
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    healthy: usize,
    desired: usize,
    expected: usize,
}

impl Counts {
    fn allowed(self) -> usize {
        match self.expected {
            0 => 0,
            _ => self.healthy.saturating_sub(self.desired),
        }
    }
}

/// As the disruption controller of Kubernetes counts. A percentage, and what may be missing, are of the pods that the owners want; a number
/// that must stay is of the pods that there are. A pod without an owner counts as one that is wanted.
fn counts(state: &State, namespace: &str, spec: &PodDisruptionBudgetSpec) -> Counts {
    let (mut pods, mut healthy, mut wanted) = (0, 0, 0);
    let mut owners = BTreeSet::new();
    let selector = selector(spec);
    let selects = |labels: &Labels| {
        let selector = selector.as_ref();
        selector.is_some_and(|selector| selector.matches(labels))
    };
    // How many pods an owner wants, the first time that it is met; None without an owner that makes pods.
    let mut wanted_by = |references: &[OwnerReference]| {
        let mut references = references.iter().filter(|it| it.controller == Some(true));
        let owner = references.find_map(|it| owner(state, it))?;
        match owners.insert(owner.uid().to_owned()) {
            true => Some(replicas(state, &owner)),
            false => Some(0),
        }
    };
    // An owner wants some also while it has none.
    let templates = state.list::<Revision>(Some(namespace));
    for template in templates.filter(|template| selects(labels_of(template.template.as_ref()))) {
        wanted += wanted_by(&template.meta().owner_references).unwrap_or(0);
    }
    // Pods next to each other mostly have the same owner.
    let mut last: (&[OwnerReference], bool) = (&[], false);
    let selected = state.pods_labelled(namespace, selects);
    for (_, pod) in selected.filter(|(_, pod)| is_counted(pod)) {
        pods += 1;
        healthy += usize::from(is_healthy(pod));
        if pod.owners() != last.0 {
            let more = wanted_by(pod.owners());
            last = (pod.owners(), more.is_some());
            wanted += more.unwrap_or(0);
        }
        wanted += usize::from(!last.1);
    }
    let (desired, expected) = match (&spec.min_available, &spec.max_unavailable) {
        (Some(least), _) => match least.value {
            Some(Value::String(_)) => (share(least, wanted), wanted),
            _ => (share(least, pods), pods),
        },
        (None, Some(most)) => (wanted.saturating_sub(share(most, wanted)), wanted),
        (None, None) => (0, wanted),
    };
    Counts {
        healthy,
        desired,
        expected,
    }
}

/// The owner of pods that is referred to.
fn owner(state: &State, reference: &OwnerReference) -> Option<Stored> {
    let uid = &reference.uid;
    match reference.kind.as_str() {
        "Deployment" => Some(Stored::Deployment(state.by_uid::<Deployment>(uid)?.clone())),
        "ReplicaSet" => Some(Stored::ReplicaSet(state.by_uid::<ReplicaSet>(uid)?.clone())),
        _ => None,
    }
}

/// The pods that an owner wants; none when it is on its way out.
fn replicas(state: &State, owner: &Stored) -> usize {
    match is_going(state, &owner.meta()) {
        true => 0,
        false => wanted(owner).map_or(0, count),
    }
}

/// A number, or so much of `whole`, rounded up.
fn share(share: &IntOrString, whole: usize) -> usize {
    match &share.value {
        Some(Value::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(Value::String(text)) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|digits| digits.parse::<usize>().ok());
            // Validation lets only percentages in.
            percent.unwrap_or(0).saturating_mul(whole).div_ceil(100)
        }
        None => 0,
    }
}
