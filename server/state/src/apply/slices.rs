//! Deletions that reach more records than one transaction may delete.
//!
//! The request marks the record: a deletion timestamp, and a finalizer that names the kind of deletion. Then the leader proposes slices, one after
//! the other. A slice takes the next records that belong to the marked one. It deletes a record, or marks it when other records
//! belong to it, or removes its reference to the marked one. The marked record is deleted with the last record that belongs to it. A slice
//! needs nothing but the state, so a new leader goes on where the last one stopped.

use std::collections::BTreeSet;

use barge_proto::v1::{Collect, ObjectMeta, Refusal, RefusalReason};

use super::{refusal, remove, terminate, work::Work};
use crate::{
    deletions::{BACKGROUND, Cascade, FOREGROUND, ORPHAN, Place, blocks},
    kind::{Kind, Stored},
};

/// Whether a deletion reaches more records than this transaction may do: what belongs to the record, and to that in turn. Looks at
/// no more than these.
pub fn is_large(work: &Work<'_>, record: &Stored) -> bool {
    let room = work.room();
    let mut seen = BTreeSet::from([record.uid().to_owned()]);
    let mut queue = vec![record.clone()];
    let mut looked = 0;
    while let Some(next) = queue.pop() {
        for found in work.tables.belonging(&next, &Place::default()) {
            looked += 1;
            if looked > room {
                return true;
            }
            if seen.insert(found.uid().to_owned()) {
                queue.push(found);
            }
        }
    }
    false
}

/// Marks a record, which then waits for slices. A namespace and a node know one way only. What is marked in one way may be marked in
/// another: the last request counts.
pub fn begin(work: &mut Work<'_>, record: Stored, cascade: Cascade) {
    begin_without(work, record, cascade, None);
}

/// As [`begin`]; what is marked belongs to one of its owners no longer.
fn begin_without(work: &mut Work<'_>, record: Stored, cascade: Cascade, owner: Option<&str>) {
    let now = work.now;
    let mark = |meta: &mut ObjectMeta, cascade: Cascade| {
        meta.deletion_timestamp.get_or_insert(now);
        meta.finalizers
            .retain(|name| ![FOREGROUND, ORPHAN, BACKGROUND].contains(&&**name));
        meta.finalizers
            .extend(cascade.finalizer().map(str::to_owned));
        meta.owner_references
            .retain(|reference| Some(&*reference.uid) != owner);
    };
    match record {
        Stored::Namespace(before) => {
            let mut marked = before.as_ref().clone();
            mark(marked.meta_mut(), Cascade::Namespace);
            marked.status.get_or_insert_default().phase = "Terminating".to_owned();
            if marked != *before {
                work.write(Some(before), marked);
            }
        }
        Stored::Node(before) => {
            let mut marked = before.as_ref().clone();
            mark(marked.meta_mut(), Cascade::Background);
            // Nothing is bound to it any more.
            marked.spec.get_or_insert_default().unschedulable = true;
            if marked != *before {
                work.write(Some(before), marked);
            }
        }
        other => {
            let mut meta = other.meta().into_owned();
            mark(&mut meta, cascade);
            if meta != *other.meta() {
                work.write_meta(other, |meta| mark(meta, cascade));
            }
        }
    }
}

/// Does the next slice of a deletion; nothing when the record is gone.
///
/// # Errors
/// FEATURE_LEVEL while some manager may not know slices.
pub fn collect(work: &mut Work<'_>, asked: &Collect) -> Result<(), Refusal> {
    if !work.sliced {
        let why = "deletions go in slices from feature level 4 on";
        return Err(refusal(RefusalReason::FeatureLevel, why));
    }
    let place = Place {
        kind: asked.after_kind,
        last: asked.after.clone(),
    };
    let mut left = usize::try_from(asked.limit).unwrap_or(usize::MAX).max(1);
    // Those that a slice marks are next, as deep as it goes.
    let mut owners = vec![(asked.uid.clone(), place)];
    while left > 0
        && let Some((uid, place)) = owners.pop()
    {
        slice(work, &uid, place, &mut left, &mut owners);
    }
    Ok(())
}

type Owners = Vec<(String, Place)>;

fn slice(work: &mut Work<'_>, uid: &str, mut place: Place, left: &mut usize, owners: &mut Owners) {
    let kind = work.tables.deletions.get(uid);
    let Some(owner) = kind.and_then(|kind| work.tables.find_uid(kind, uid)) else {
        return;
    };
    let Some(cascade) = Cascade::of(&owner) else {
        return;
    };
    // In the end it is seen whether it can go.
    match &owner {
        Stored::Namespace(_) => {
            work.loose_namespaces.insert(owner.name().to_owned());
        }
        _ => {
            let loose = (owner.kind().name().to_owned(), uid.to_owned());
            work.loose_owners.insert(loose);
        }
    }
    while *left > 0 {
        let Some(found) = work.tables.belonging(&owner, &place).next() else {
            return;
        };
        *left -= 1;
        place = Place::after(&found, cascade);
        if work.tables.is_pending(&owner, &found, cascade) {
            step(work, &owner, found, cascade, owners);
        }
    }
}

/// Deals with one record that belongs to another one: afterwards it is gone, or belongs to it no longer, or is on its way out.
fn step(work: &mut Work<'_>, owner: &Stored, found: Stored, cascade: Cascade, owners: &mut Owners) {
    let uid = owner.uid();
    if let (Stored::Node(_), Stored::Pod(pod)) = (owner, &found)
        && pod.node_uid() == uid
    {
        return lose(work, found);
    }
    let leaves = match cascade {
        Cascade::Namespace => false,
        Cascade::Foreground => !blocks(&found, uid),
        Cascade::Background | Cascade::Orphan => true,
    };
    if cascade != Cascade::Namespace && work.tables.has_other_owner(&found, uid) {
        return disown(work, found, uid);
    }
    if cascade == Cascade::Orphan && !is_nothing_without(work, &found) {
        return disown(work, found, uid);
    }
    if cascade == Cascade::Namespace && Cascade::of(&found) == Some(Cascade::Foreground) {
        let next = (found.uid().to_owned(), Place::default());
        begin(work, found, Cascade::Background);
        owners.push(next);
        return;
    }
    if Cascade::of(&found).is_some() {
        if leaves {
            disown(work, found, uid);
        }
        return;
    }
    match &found {
        Stored::Pod(pod) if terminate::is_running(work.tables, pod) => {
            let mut marked = terminate::marked(work, pod, None, "");
            if leaves {
                let owners = &mut marked.meta_mut().owner_references;
                owners.retain(|owner| owner.uid != uid);
            }
            if marked != pod.record() {
                work.write(Some(pod.clone()), marked);
            }
        }
        _ if !is_light(work, &found) => {
            let how = match (cascade, &found) {
                (_, Stored::Pod(_) | Stored::Revision(_)) => Cascade::Background,
                (Cascade::Foreground, _) => Cascade::Foreground,
                _ => Cascade::Background,
            };
            let next = (found.uid().to_owned(), Place::default());
            begin_without(work, found, how, leaves.then_some(uid));
            owners.push(next);
        }
        Stored::Revision(template)
            if work.tables.pods_by_template.count(Kind::uid(&**template)) > 0 =>
        {
            // It goes with its last pod.
            let now = work.now;
            work.write_meta(found, |meta| {
                meta.deletion_timestamp.get_or_insert(now);
                meta.owner_references
                    .retain(|owner| !leaves || owner.uid != uid);
            });
        }
        _ => work.delete(found),
    }
}

/// Whether nothing is left behind when a record goes. The template of a pod goes with it by itself.
fn is_light(work: &Work<'_>, record: &Stored) -> bool {
    let mut belonging = work.tables.belonging(record, &Place::default());
    let is_own = |found: Stored| match record {
        Stored::Pod(pod) => {
            matches!(found, Stored::Revision(_)) && found.uid() == pod.template_uid()
        }
        _ => false,
    };
    belonging.next().is_none_or(is_own) && belonging.next().is_none()
}

/// Whether an orphan of this kind would be good for nothing.
fn is_nothing_without(work: &Work<'_>, record: &Stored) -> bool {
    match record {
        Stored::Revision(template) => {
            work.tables.pods_by_template.count(Kind::uid(&**template)) == 0
        }
        other => other.kind().ends_with_owner(),
    }
}

fn disown(work: &mut Work<'_>, record: Stored, owner: &str) {
    work.write_meta(record, |meta| {
        meta.owner_references
            .retain(|reference| reference.uid != owner);
    });
}

/// Removes a pod whose node is removed: no agent is left to report its end. A pod to which many records belong leaves the node first.
fn lose(work: &mut Work<'_>, record: Stored) {
    let Stored::Pod(pod) = &record else { return };
    if is_light(work, &record) {
        return work.delete(record);
    }
    let mut unbound = pod.record();
    unbound.node_uid.clear();
    let uid = pod.uid().to_owned();
    work.write(Some(pod.clone()), unbound);
    if let Some(pod) = work.tables.pods.by_uid(&uid).cloned() {
        begin(work, Stored::Pod(pod), Cascade::Background);
    }
}

/// Removes a marked record with which nothing is left to be done.
pub fn finish(work: &mut Work<'_>, uid: &str) {
    let kind = work.tables.deletions.get(uid);
    let Some(record) = kind.and_then(|kind| work.tables.find_uid(kind, uid)) else {
        return;
    };
    match Cascade::of(&record) {
        Some(Cascade::Background | Cascade::Orphan) => {
            let mut belonging = work.tables.belonging(&record, &Place::default());
            if belonging.next().is_none() {
                drop(belonging);
                end(work, record);
            }
        }
        Some(Cascade::Foreground) => {
            let most = work.limits.slice;
            let is_blocked = || work.tables.owned(uid).any(|found| blocks(&found, uid));
            if work.tables.owned_count(uid) > most || is_blocked() {
                return;
            }
            end(work, record);
            for left in remove::orphans(work, uid) {
                remove::take(work, left);
            }
        }
        // A namespace waits for its pods.
        Some(Cascade::Namespace) | None => {}
    }
}

/// The record itself; a template that pods are made from stays until the last of them is gone.
fn end(work: &mut Work<'_>, record: Stored) {
    let in_use = match &record {
        Stored::Revision(template) => {
            work.tables.pods_by_template.count(Kind::uid(&**template)) > 0
        }
        _ => false,
    };
    match in_use {
        true => work.write_meta(record, |meta| meta.finalizers.clear()),
        false => work.delete(record),
    }
}
