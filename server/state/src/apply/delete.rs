//! Deleting as a client asks: what becomes of what the record owns.

use barge_proto::v1::{DeleteRecord, DeletionPropagation, Refusal};

use super::{remove, work::Work};
use crate::kind::{Kind as _, RecordKind, Stored};

/// The finalizer of what waits for what it owns.
pub const FOREGROUND: &str = "foregroundDeletion";

/// Deletes a record; nothing when it is gone already.
///
/// - in the background it goes at once, and what it owns as [`remove::remove`] says
/// - in the foreground it is marked, and goes with the last record whose owner reference blocks its deletion
/// - orphaned, what it owns stays and belongs to it no longer; but templates without pods and endpoints, which are nothing
///   without it
///
/// Namespaces and nodes know one way only.
///
/// # Errors
/// INVALID when the reference names no kind.
pub fn delete(work: &mut Work<'_>, asked: &DeleteRecord) -> Result<(), Refusal> {
    let target = asked.target.clone().unwrap_or_default();
    let found = work.find(&target);
    let in_one_way = matches!(found, Some(Stored::Namespace(_) | Stored::Node(_)));
    match (asked.propagation(), found) {
        (DeletionPropagation::Foreground, Some(found)) if !in_one_way => {
            mark(work, found);
            return Ok(());
        }
        (DeletionPropagation::Orphan, Some(found)) if !in_one_way => {
            disown(work, found.uid());
        }
        _ => {}
    }
    remove::remove(work, &target)
}

/// Marks a record, and ends what it owns. Whether it can go at once is seen in the end.
fn mark(work: &mut Work<'_>, record: Stored) {
    if is_marked(&record) {
        return;
    }
    let uid = record.uid().to_owned();
    let now = work.now;
    work.loose_owners
        .insert((record.kind().name().to_owned(), uid.clone()));
    work.write_meta(record, |meta| {
        meta.deletion_timestamp.get_or_insert(now);
        meta.finalizers.push(FOREGROUND.to_owned());
    });
    let (simple, owners): (Vec<_>, Vec<_>) = remove::orphans(work, &uid)
        .into_iter()
        .partition(|owned| matches!(owned, Stored::Pod(_) | Stored::Revision(_)));
    for owner in owners {
        mark(work, owner);
    }
    remove::cascade(work, simple);
}

fn is_marked(record: &Stored) -> bool {
    let meta = record.meta();
    meta.finalizers.iter().any(|name| name == FOREGROUND)
}

/// Removes a marked record that nothing blocks any more.
pub fn finish(work: &mut Work<'_>, kind: &str, uid: &str) {
    let kind = RecordKind::ALL.iter().find(|known| known.name() == kind);
    let Some(record) = kind.and_then(|kind| work.tables.find_uid(*kind, uid)) else {
        return;
    };
    let is_blocked = || {
        work.tables.owned(uid).iter().any(|owned| {
            let mut owners = owned.owners().iter();
            owners.any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        })
    };
    if is_marked(&record) && !is_blocked() {
        let left = remove::delete(work, record);
        remove::cascade(work, left);
    }
}

fn disown(work: &mut Work<'_>, uid: &str) {
    for owned in work.tables.owned(uid) {
        let goes = match &owned {
            Stored::Revision(template) => work.tables.pods_by_template.count(template.uid()) == 0,
            Stored::Endpoints(_) => true,
            _ => false,
        };
        if !goes {
            work.write_meta(owned, |meta| {
                meta.owner_references.retain(|owner| owner.uid != uid);
            });
        }
    }
}
