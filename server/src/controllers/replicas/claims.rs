//! Which pods are an owner's: it releases those that its selector selects no longer, and adopts those that it selects and nobody counts as
//! its own.
//!
//! A released pod runs on, and the owner makes another one in its place. An adopted pod counts; when that is one too many, the pod goes
//! that is missed least. Both are changes of a pod's owner references only, on the condition that the pod is as the plan saw it. So of two owners
//! that select a pod the first one gets it.

use crate::controllers::{Name, plan::Plan, pods, stamp::Stamp};
use barge_proto::{
    selector::Labels,
    v1::{ObjectMeta, OwnerReference, PodRecord, Revision},
};
use barge_state::{Changed, Kind, PackedPod, State, labels_of};
use prost::Message;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Pods that one transaction claims at most. It is refused when one of them has changed meanwhile.
const BATCH: usize = 100;
/// Records that one transaction puts have at most so many bytes together, unless it is one record: an entry of the log is bounded.
const BATCH_BYTES: usize = 512 << 10;

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
        self.template_fits(uid)
    }

    /// Whether a template's own labels fit; they do not when it is gone.
    fn template_fits(&mut self, uid: &'a str) -> bool {
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
    /// What there is to be released of the pods that an owner has, if it may release those of their template, and to be adopted of those of
    /// `others` without a controller. A pod that is about to end stays with its owner. Only pods that serve or will serve are adopted.
    ///
    /// A pod that the owner made is released only when its labels have become other ones and fit no longer. As it was made it stays, whatever
    /// the selector says: another one would be made in its place, and released, without end.
    pub fn find(
        state: &'a State,
        owner: &ObjectMeta,
        owned: &[&'a Arc<PackedPod>],
        others: impl Iterator<Item = &'a Arc<PackedPod>>,
        fits: impl Fn(&Revision, &Labels) -> bool,
        releases: impl Fn(&Revision) -> bool,
    ) -> Self {
        let mut labelled = Labelled::new(state, fits);
        let ours = owned.iter().copied();
        let ours = ours.filter(|pod| !pods::is_terminating(pod) && is_controlled(pod, &owner.uid));
        let alone = others.filter(|pod| !pod.has_controller() && pods::is_live(pod));
        let mut claims = Self::default();
        for pod in ours {
            if !labelled.fits(pod)
                && let Some(template) = state.template(pod)
                && releases(template)
                && (!belongs(template, &owner.uid) || labelled.template_fits(pod.template_uid()))
            {
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
    pub fn make(
        &self,
        owner: &OwnerReference,
        stamp: &mut Stamp,
        plan: &mut Plan,
    ) -> [Vec<String>; 2] {
        let mut batch = Batch::new(most(stamp));
        let mut claim = |pods: &[&Arc<PackedPod>], reference: Option<&OwnerReference>| {
            let mut names = Vec::new();
            for pod in pods {
                let before = pod.record();
                let mut after = before.clone();
                // A put leaves the status as it is. Here it would only take room.
                after.status = None;
                let owners = &mut after.meta_mut().owner_references;
                owners.retain(|it| it.uid != owner.uid);
                owners.extend(reference.cloned());
                if !batch.takes(&after) {
                    break;
                }
                plan.draft.unchanged(&before);
                plan.draft.put(after);
                names.push(pod.name().to_owned());
            }
            names
        };
        let released = claim(&self.release, None);
        let adopted = claim(&self.adopt, Some(owner));
        plan.look_again(Duration::ZERO);
        [released, adopted]
    }
}

/// The pods that this look claims at most. Until all pods are where they belong the owner's plan does nothing else, and a transaction is refused
/// whole when one of its pods has changed. So some looks claim few: pods that change all the time hold up a large batch again and again, and
/// hardly one pod.
fn most(stamp: &mut Stamp) -> usize {
    match stamp.salt() % 4 {
        0 => 1,
        1 => 10,
        _ => BATCH,
    }
}

/// Whether a template is of this owner.
pub fn belongs(template: &Revision, owner: &str) -> bool {
    let mut owners = template.meta().owner_references.iter();
    owners.any(|it| it.uid == owner)
}

/// The records of one transaction, by number and bytes.
struct Batch {
    records: usize,
    bytes: usize,
    is_empty: bool,
}

impl Batch {
    fn new(records: usize) -> Self {
        Self {
            records,
            bytes: BATCH_BYTES,
            is_empty: true,
        }
    }

    /// Whether there is room for this record. There always is for one.
    fn takes(&mut self, record: &impl Message) -> bool {
        let bytes = record.encoded_len();
        let fits = self.is_empty || (self.records > 0 && bytes <= self.bytes);
        if fits {
            self.records = self.records.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_empty = false;
        }
        fits
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
    let mut batch = Batch::new(BATCH);
    for template in in_use {
        let mut alone = Revision::clone(template);
        let owners = &mut alone.meta_mut().owner_references;
        owners.retain(|it| it.uid != *uid);
        if !batch.takes(&alone) {
            break;
        }
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
