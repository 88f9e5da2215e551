//! Deletions that clients ask for: in the background, in the foreground, or with the dependents orphaned.

use barge_proto::v1::{DeleteRecord, DeletionPropagation, Refusal};

use super::{
    remove, slices,
    walk::{Step, walk},
    work::Work,
};
use crate::{
    deletions::{BACKGROUND, Cascade, FOREGROUND, ORPHAN},
    kind::{Kind as _, RecordKind, Stored},
};

/// Deletes a record; nothing when it is gone already.
///
/// - in the background it goes at once, and what it owns as [`remove::remove`] says
/// - in the foreground it is marked, and goes with the last record whose owner reference blocks its deletion
/// - orphaned, what it owns stays and belongs to it no longer; but templates without pods and endpoints, which are nothing
///   without it
///
/// Namespaces and nodes know one way only. What reaches more than a transaction may do is marked; see [`slices`].
///
/// # Errors
/// INVALID when the reference names no kind.
pub fn delete(work: &mut Work<'_>, asked: &DeleteRecord) -> Result<(), Refusal> {
    let target = asked.target.clone().unwrap_or_default();
    let found = work.find(&target);
    let in_one_way = matches!(found, Some(Stored::Namespace(_) | Stored::Node(_)));
    match (asked.propagation(), found) {
        (DeletionPropagation::Foreground, Some(found)) if !in_one_way => {
            match work.sliced && slices::is_large(work, &found) {
                true => slices::begin(work, found, Cascade::Foreground),
                false => walk(work, Step::Mark(found)),
            }
            return Ok(());
        }
        (DeletionPropagation::Orphan, Some(found)) if !in_one_way => {
            if work.sliced && work.tables.owned_count(found.uid()) > work.room() {
                slices::begin(work, found, Cascade::Orphan);
                return Ok(());
            }
            disown(work, found.uid());
        }
        _ => {}
    }
    remove::remove(work, &target)
}

/// Marks a record. Whether it can go at once is seen in the end.
pub fn mark(work: &mut Work<'_>, record: Stored) {
    let now = work.now;
    let owner = (record.kind().name().to_owned(), record.uid().to_owned());
    work.loose_owners.insert(owner);
    work.write_meta(record, |meta| {
        meta.deletion_timestamp.get_or_insert(now);
        meta.finalizers.push(FOREGROUND.to_owned());
    });
}

/// Whether a record waits for what it owns.
pub fn is_marked(record: &Stored) -> bool {
    let ours = [FOREGROUND, BACKGROUND, ORPHAN];
    let mut finalizers = record.finalizers().iter();
    finalizers.any(|name| ours.contains(&&**name))
}

/// Removes a marked record that nothing blocks any more.
pub fn finish(work: &mut Work<'_>, kind: &str, uid: &str) {
    let kind = RecordKind::ALL.iter().find(|known| known.name() == kind);
    let Some(record) = kind.and_then(|kind| work.tables.find_uid(*kind, uid)) else {
        return;
    };
    let is_blocked = || {
        work.tables.owned(uid).any(|owned| {
            let mut owners = owned.owners().iter();
            owners.any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        })
    };
    if is_marked(&record) && !is_blocked() {
        let left = remove::delete(work, record);
        walk(work, Step::Reach(left));
    }
}

fn disown(work: &mut Work<'_>, uid: &str) {
    let owned: Vec<_> = work.tables.owned(uid).collect();
    for owned in owned {
        let goes = match &owned {
            Stored::Revision(template) => work.tables.pods_by_template.count(template.uid()) == 0,
            other => other.kind().ends_with_owner(),
        };
        if !goes {
            work.write_meta(owned, |meta| {
                meta.owner_references.retain(|owner| owner.uid != uid);
            });
        }
    }
}
