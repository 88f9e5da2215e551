//! Removing records together with the records that belong to them.

use barge_proto::v1::{RecordRef, Refusal, RefusalReason};

use super::{
    delete, refusal, slices, terminate,
    walk::{Step, walk},
    work::Work,
};
use crate::{
    deletions::Cascade,
    kind::{Kind, RecordKind, Stored},
};

/// Removes a record and all that it owns; nothing when it is gone already. What is owned goes in these ways:
/// - pods that run are terminated gracefully and stay until their node reports that they are gone; others go
/// - templates stay as long as pods are made from them
/// - what has another owner stays
/// - a namespace loses all that is in it, and stays as long as pods are in it
/// - the pods of a removed node are removed at once, because no agent is left to report their end
///
/// What reaches more than a transaction may do is marked, and goes in slices; see [`slices`].
///
/// # Errors
/// INVALID when the reference names no kind.
pub fn remove(work: &mut Work<'_>, target: &RecordRef) -> Result<(), Refusal> {
    if RecordKind::from_number(target.kind).is_none() {
        return Err(refusal(
            RefusalReason::Invalid,
            "a reference without a kind",
        ));
    }
    let Some(found) = work.find(target) else {
        return Ok(());
    };
    match found {
        found if work.sliced && slices::is_large(work, &found) => {
            slices::begin(work, found, Cascade::Background);
        }
        Stored::Namespace(namespace) => {
            let inside = work.tables.in_namespace(&namespace.meta().name);
            walk(work, Step::Reach(inside));
            mark_namespace(work, namespace.uid());
        }
        Stored::Revision(revision) => walk(work, Step::Reach(vec![Stored::Revision(revision)])),
        other => {
            let left = delete(work, other);
            walk(work, Step::Reach(left));
        }
    }
    Ok(())
}

/// Removes a record at once with what belongs to it, or in slices when that is too much. A pod that runs is terminated gracefully.
pub fn take(work: &mut Work<'_>, record: Stored) {
    if let Stored::Pod(pod) = &record
        && terminate::is_running(work.tables, pod)
    {
        terminate::mark(work, pod, None, "");
        return;
    }
    if work.sliced && slices::is_large(work, &record) {
        slices::begin(work, record, Cascade::Background);
        return;
    }
    let left = delete(work, record);
    walk(work, Step::Reach(left));
}

/// Removes what only waited for its last pod, or for the last thing that it owned. Of owners in slices no more than fit into one:
/// the next slices find the others.
pub fn collect(work: &mut Work<'_>) {
    let most = match work.sliced {
        true => work.limits.slice,
        false => usize::MAX,
    };
    for _ in 0..most {
        collect_templates(work);
        let Some((kind, uid)) = work.loose_owners.pop_first() else {
            break;
        };
        match work.sliced {
            true => slices::finish(work, &uid),
            false => delete::finish(work, &kind, &uid),
        }
    }
    // Of those that went last.
    collect_templates(work);
    collect_namespaces(work);
}

fn collect_templates(work: &mut Work<'_>) {
    while let Some(uid) = work.loose_templates.pop_first() {
        let Some(template) = work.tables.revisions.by_uid(&uid).cloned() else {
            continue;
        };
        let unused = work.tables.pods_by_template.count(&uid) == 0;
        if unused && (is_terminating(template.as_ref()) || !has_owner(work, template.as_ref())) {
            take(work, Stored::Revision(template));
        }
    }
}

fn collect_namespaces(work: &mut Work<'_>) {
    while let Some(name) = work.loose_namespaces.pop_first() {
        let namespace = work.tables.namespaces.by_name("", &name).cloned();
        if let Some(namespace) = namespace.filter(|found| is_terminating(found.as_ref()))
            && !has_pods(work, &name)
            && !(work.sliced && slices::is_large(work, &Stored::Namespace(namespace.clone())))
        {
            let inside = work.tables.in_namespace(&name);
            walk(work, Step::Reach(inside));
            mark_namespace(work, namespace.uid());
        }
    }
}

/// Removes a namespace, or has it removed with its last pod.
fn mark_namespace(work: &mut Work<'_>, uid: &str) {
    let Some(namespace) = work.tables.namespaces.by_uid(uid).cloned() else {
        return;
    };
    if !has_pods(work, &namespace.meta().name) {
        work.delete(Stored::Namespace(namespace));
    } else if !is_terminating(namespace.as_ref()) {
        let mut marked = namespace.as_ref().clone();
        marked.meta_mut().deletion_timestamp = Some(work.now);
        marked.status.get_or_insert_default().phase = "Terminating".to_owned();
        work.write(Some(namespace), marked);
    }
}

fn is_terminating<K: Kind>(record: &K) -> bool {
    record.meta().deletion_timestamp.is_some()
}

fn has_owner<K: Kind>(work: &Work<'_>, record: &K) -> bool {
    record
        .meta()
        .owner_references
        .iter()
        .any(|owner| work.tables.exists(&owner.uid))
}

fn has_pods(work: &Work<'_>, namespace: &str) -> bool {
    work.tables
        .pods
        .list(Some(namespace), None)
        .next()
        .is_some()
}

/// Removes one record and returns what it leaves behind.
pub(super) fn delete(work: &mut Work<'_>, record: Stored) -> Vec<Stored> {
    let uid = record.uid().to_owned();
    let bound: Vec<Stored> = match &record {
        Stored::Node(_) => work
            .tables
            .pods_by_node
            .get(&uid)
            .cloned()
            .map(Stored::Pod)
            .collect(),
        _ => Vec::new(),
    };
    work.delete(record);
    let mut left = orphans(work, &uid);
    for pod in bound {
        let uid = pod.uid().to_owned();
        work.delete(pod);
        left.extend(orphans(work, &uid));
    }
    left
}

/// What belongs to this uid and to nothing else that exists.
pub fn orphans(work: &Work<'_>, uid: &str) -> Vec<Stored> {
    let stays = |record: &Stored| {
        let mut owners = record.owners().iter();
        owners.any(|owner| owner.uid != uid && work.tables.exists(&owner.uid))
    };
    let owned = work.tables.owned(uid);
    owned.filter(|record| !stays(record)).collect()
}
