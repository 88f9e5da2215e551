//! Which pods are an owner's: it releases those that its selector selects no longer, and adopts those that it selects and nobody counts as
//! its own.
//!
//! A released pod runs on, and the owner makes another one in its place. An adopted pod counts; when that is one too many, the pod goes
//! that is missed least. Both are changes of a pod's owner references only, on the condition that the pod is as the plan saw it. So of two owners
//! that select a pod the first one gets it.

use crate::controllers::{Name, plan::Plan, pods};
use barge_proto::{
    selector::Labels,
    v1::{ObjectMeta, OwnerReference, PodRecord, Revision},
};
use barge_state::{Changed, Kind, PackedPod, State, labels_of};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Pods that one transaction claims at most. It is refused when one of them has changed meanwhile.
const BATCH: usize = 100;

/// Whether it is this owner's pod, and not only to end with it.
pub fn is_controlled(pod: &PackedPod, owner: &str) -> bool {
    let mut owners = pod.owners().iter();
    owners.any(|it| it.uid == owner && it.controller == Some(true))
}

/// A question about the labels of pods, answered once for all pods of a template that have no others.
pub struct Labelled<'a, F> {
    state: &'a State,
    fits: F,
    known: HashMap<&'a str, bool>,
    /// Pods next to each other are mostly of one template.
    last: Option<(&'a str, bool)>,
}

impl<'a, F: Fn(&Revision, &Labels) -> bool> Labelled<'a, F> {
    /// The question whether a template and the labels of a pod that is made from it fit.
    pub fn new(state: &'a State, fits: F) -> Self {
        Self {
            state,
            fits,
            known: HashMap::new(),
            last: None,
        }
    }

    /// Whether a pod fits; it does not without its template, which goes only with the pod.
    pub fn fits(&mut self, pod: &'a PackedPod) -> bool {
        let uid = pod.template_uid();
        if !pod.own_labels().is_none() {
            let template = self.state.by_uid::<Revision>(uid);
            return template.is_some_and(|it| (self.fits)(it, &self.state.labels(pod)));
        }
        if let Some((last, fits)) = self.last
            && last == uid
        {
            return fits;
        }
        let (state, question) = (self.state, &self.fits);
        let fits = *self.known.entry(uid).or_insert_with(|| {
            let template = state.by_uid::<Revision>(uid);
            template.is_some_and(|it| question(it, labels_of(it.template.as_ref())))
        });
        self.last = Some((uid, fits));
        fits
    }
}

/// Pods to be released and to be adopted.
#[derive(Debug, Default)]
pub struct Claims<'a> {
    release: Vec<&'a Arc<PackedPod>>,
    adopt: Vec<&'a Arc<PackedPod>>,
}

impl<'a> Claims<'a> {
    /// What there is to be released of the pods that an owner has, and to be adopted of those in its namespace. A pod that is about to end
    /// stays with its owner. Only pods that serve or will serve are adopted.
    pub fn find(
        state: &'a State,
        owner: &ObjectMeta,
        owned: &[&'a Arc<PackedPod>],
        fits: impl Fn(&Revision, &Labels) -> bool,
        adoptable: impl Fn(&PackedPod) -> bool,
    ) -> Self {
        let mut labelled = Labelled::new(state, fits);
        let ours = owned.iter().copied();
        let ours = ours.filter(|pod| !pods::is_terminating(pod) && is_controlled(pod, &owner.uid));
        let alone = state.pods_without_controller(&owner.namespace);
        let alone = alone.filter(|pod| pods::is_live(pod) && adoptable(pod));
        let mut claims = Self::default();
        for pod in ours {
            if !labelled.fits(pod) {
                claims.release.push(pod);
            }
        }
        for pod in alone {
            if labelled.fits(pod) {
                claims.adopt.push(pod);
            }
        }
        claims
    }

    /// Whether every pod is where it belongs.
    pub fn is_empty(&self) -> bool {
        self.release.is_empty() && self.adopt.is_empty()
    }

    /// Makes the changes, as many as one transaction may, and tells the names of the pods that are released and adopted.
    pub fn make(&self, owner: &OwnerReference, plan: &mut Plan) -> [Vec<String>; 2] {
        let mut room = BATCH;
        let mut claim = |pods: &[&Arc<PackedPod>], reference: Option<&OwnerReference>| {
            let now = pods.get(..room.min(pods.len())).unwrap_or_default();
            room -= now.len();
            let names = now.iter().map(|pod| {
                let before = pod.record();
                let mut after = before.clone();
                let owners = &mut after.meta_mut().owner_references;
                owners.retain(|it| it.uid != owner.uid);
                owners.extend(reference.cloned());
                plan.draft.unchanged(&before);
                plan.draft.put(after);
                pod.name().to_owned()
            });
            names.collect()
        };
        let released = claim(&self.release, None);
        let adopted = claim(&self.adopt, Some(owner));
        plan.look_again(Duration::ZERO);
        [released, adopted]
    }
}

/// Lets the templates of released pods go, once an owner that is being deleted has no pod of its own any more: its end would wait for those pods.
pub fn let_go(state: &State, owner: &ObjectMeta, plan: &mut Plan) {
    let uid = &owner.uid;
    if owner.deletion_timestamp.is_none() || state.owned_count::<PodRecord>(uid) > 0 {
        return;
    }
    let templates = state.owned::<Revision>(uid);
    let in_use = templates.filter(|it| state.pods_of(it.uid()).next().is_some());
    for template in in_use.take(BATCH) {
        let mut alone = Revision::clone(template);
        let owners = &mut alone.meta_mut().owner_references;
        owners.retain(|it| it.uid != *uid);
        plan.draft.unchanged(&**template);
        plan.draft.put(alone);
    }
}

/// The owners of this kind that a change of a pod or a template concerns: those that it has and had.
pub fn owners(changed: &Changed, kind: &str, dirty: &mut dyn FnMut(Name)) {
    let (before, after) = (changed.before.as_ref(), changed.after.as_ref());
    let has = after.map_or(&[][..], |after| after.owners());
    let had = before.map_or(&[][..], |before| before.owners());
    let left = had
        .iter()
        .filter(|it| !has.iter().any(|other| other.uid == it.uid));
    for owner in has.iter().chain(left).filter(|owner| owner.kind == kind) {
        dirty(Name {
            namespace: changed.namespace().to_owned(),
            name: owner.name.clone(),
        });
    }
}

/// A pod that nobody counts as its own, when a change may have made it one that an owner adopts: most (restarts, addresses) do not.
pub fn found_alone(changed: &Changed) -> Option<&Arc<PackedPod>> {
    let alone = |pod: &&Arc<PackedPod>| !pod.has_controller() && pods::is_live(pod);
    let (before, after) = changed.of::<PodRecord>();
    let pod = after.filter(alone)?;
    let was = before.filter(alone);
    was.is_none_or(|was| was.own_labels() != pod.own_labels())
        .then_some(pod)
}
