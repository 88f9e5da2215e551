//! Creating and changing records.

use std::sync::Arc;

use barge_proto::{
    for_each_kind,
    v1::{
        Namespace, ObjectMeta, OwnerReference, Record, RecordRef, Refusal, RefusalReason,
        record::Record as Body,
    },
};

use super::{preconditions::describe, refusal, work::Work};
use crate::{
    claims::claims,
    kept::Kept,
    kind::{Kind, RecordKind, Stored},
    rules::Rules,
};

macro_rules! define {
    ($($variant:ident($message:ident) $table:ident = $number:literal [$($object:ident($shown:ident))?] $options:tt,)*) => {
        /// Creates or changes a record, its status apart. The status of a new one is taken as it is.
        ///
        /// # Errors
        /// EXISTS when another record has the name, TAKEN when another has an address or port of it, CONFLICT
        /// when its namespace or an owner is being deleted, INVALID when it breaks a rule of its kind.
        pub fn put(work: &mut Work<'_>, record: Record) -> Result<(), Refusal> {
            match record.record {
                $(Some(Body::$variant(record)) => put_record(work, record),)*
                None => Err(refusal(RefusalReason::Invalid, "a record without content")),
            }
        }

        /// Changes the status of a record; nothing when the record is gone.
        ///
        /// # Errors
        /// INVALID for kinds without a status.
        pub fn put_status(work: &mut Work<'_>, record: &Record) -> Result<(), Refusal> {
            match &record.record {
                $(Some(Body::$variant(record)) => put_record_status(work, record),)*
                None => Err(refusal(RefusalReason::Invalid, "a record without content")),
            }
        }
    };
}
for_each_kind!(define);

fn put_record<K: Rules>(work: &mut Work<'_>, mut new: K) -> Result<(), Refusal> {
    let kept = existing(work, &new)?;
    let old = kept.as_deref().map(Kept::message);
    if let Err(rule) = new.prepare(old.as_deref()) {
        return Err(refuse(&new, RefusalReason::Invalid, &rule));
    }
    stamp(&mut new, old.as_deref(), work);
    if old.as_deref() == Some(&new) {
        return Ok(());
    }
    if old.as_deref().is_some_and(|old| !new.same_spec(old)) {
        new.meta_mut().generation += 1;
    }
    let new = work.keep(new);
    for claim in claims(&K::stored(new.clone())) {
        if work
            .tables
            .claims
            .holder(&claim)
            .is_some_and(|holder| holder != new.uid())
        {
            return Err(refuse(
                &*new.message(),
                RefusalReason::Taken,
                &format!("{claim} is taken"),
            ));
        }
    }
    let owners = old
        .as_deref()
        .map_or(&[][..], |old| &old.meta().owner_references);
    if work.sliced
        && let Some(owner) = ending_owner(work, owners, new.owners())
    {
        let why = format!("its owner {owner} is being deleted");
        return Err(refuse(&*new.message(), RefusalReason::Conflict, &why));
    }
    if old.is_none() {
        work.created.push((K::KIND, new.uid().to_owned()));
    }
    drop(old);
    work.write_kept::<K>(kept, new);
    Ok(())
}

/// The record that a put changes; absent when it creates one.
fn existing<K: Rules>(work: &Work<'_>, record: &K) -> Result<Option<Arc<K::Kept>>, Refusal> {
    let meta = record.meta();
    if meta.uid.is_empty() || meta.name.is_empty() {
        let why = "a record has a uid and a name";
        return Err(refuse(record, RefusalReason::Invalid, why));
    }
    let table = K::table(work.tables);
    if let Some(old) = table.by_uid(&meta.uid) {
        let (namespace, name) = (old.namespace(), old.name());
        if (namespace, name) != (&meta.namespace, &meta.name) {
            let why = format!("the uid belongs to {namespace}/{name}");
            return Err(refuse(record, RefusalReason::Invalid, &why));
        }
        return Ok(Some(old.clone()));
    }
    if table.by_name(&meta.namespace, &meta.name).is_some() {
        return Err(refuse(
            record,
            RefusalReason::Exists,
            "something of that name exists",
        ));
    }
    let namespace: Option<&Arc<Namespace>> = work.tables.namespaces.by_name("", &meta.namespace);
    if namespace.is_some_and(|namespace| namespace.meta().deletion_timestamp.is_some()) {
        return Err(refuse(
            record,
            RefusalReason::Conflict,
            &format!("its namespace {} is being deleted", meta.namespace),
        ));
    }
    Ok(None)
}

/// An owner that is being deleted, among those that a record did not have before. What it owned then goes with it.
fn ending_owner(
    work: &Work<'_>,
    before: &[OwnerReference],
    after: &[OwnerReference],
) -> Option<String> {
    let known = |owner: &OwnerReference| before.iter().any(|known| known.uid == owner.uid);
    let new = after.iter().filter(|owner| !known(owner));
    new.filter_map(|owner| {
        let kind = work.tables.deletions.get(&owner.uid)?;
        let found = work.tables.find_uid(kind, &owner.uid)?;
        Some(describe(&RecordRef {
            kind: kind.number(),
            namespace: found.namespace().to_owned(),
            name: found.name().to_owned(),
            ..RecordRef::default()
        }))
    })
    .next()
}

/// Sets what only the state decides.
fn stamp<K: Rules>(new: &mut K, old: Option<&K>, work: &Work<'_>) {
    let old = old.map(Kind::meta);
    let now = work.now;
    let meta = new.meta_mut();
    match old {
        Some(old) => {
            let ObjectMeta {
                resource_version,
                generation,
                creation_timestamp,
                deletion_timestamp,
                deletion_grace_period_seconds,
                finalizers,
                ..
            } = old;
            meta.finalizers.clone_from(finalizers);
            meta.resource_version.clone_from(resource_version);
            meta.generation = *generation;
            meta.creation_timestamp = *creation_timestamp;
            meta.deletion_timestamp = *deletion_timestamp;
            meta.deletion_grace_period_seconds = *deletion_grace_period_seconds;
        }
        None => {
            meta.resource_version.clear();
            meta.finalizers.clear();
            meta.generation = 1;
            meta.creation_timestamp.get_or_insert(now);
            meta.deletion_timestamp = None;
            meta.deletion_grace_period_seconds = None;
        }
    }
}

fn put_record_status<K: Rules>(work: &mut Work<'_>, record: &K) -> Result<(), Refusal> {
    let Some(kept) = K::table(work.tables).by_uid(record.uid()).cloned() else {
        return Ok(());
    };
    let old = kept.message();
    let Some(new) = old.with_status(record) else {
        return Err(refuse(
            record,
            RefusalReason::Invalid,
            "this kind has no status",
        ));
    };
    if *old != new {
        drop(old);
        work.write(Some(kept), new);
    }
    Ok(())
}

/// Records and what they refer to may come in any order within a transaction; in the end all have to be there. An
/// owner that is gone means that the proposer had not seen its removal.
///
/// # Errors
/// CONFLICT when a new record's owners are all gone, INVALID when a pod's template is missing.
pub fn check_references(work: &Work<'_>) -> Result<(), Refusal> {
    for (kind, uid) in &work.created {
        let Some(record) = &work.tables.find_uid(*kind, uid) else {
            continue;
        };
        let owners = record.owners();
        if !owners.is_empty() && !owners.iter().any(|owner| work.tables.exists(&owner.uid)) {
            return Err(refuse_stored(
                record,
                RefusalReason::Conflict,
                "its owner is gone",
            ));
        }
        if let Stored::Pod(pod) = record
            && work.tables.revisions.by_uid(pod.template_uid()).is_none()
        {
            let why = format!("its template {} does not exist", pod.template_uid());
            return Err(refuse_stored(record, RefusalReason::Invalid, &why));
        }
    }
    Ok(())
}

fn refuse<K: Kind>(record: &K, reason: RefusalReason, why: &str) -> Refusal {
    refuse_meta(K::KIND, record.meta(), reason, why)
}

fn refuse_stored(record: &Stored, reason: RefusalReason, why: &str) -> Refusal {
    refuse_meta(record.kind(), &record.meta(), reason, why)
}

fn refuse_meta(kind: RecordKind, meta: &ObjectMeta, reason: RefusalReason, why: &str) -> Refusal {
    let target = RecordRef {
        kind: kind.number(),
        uid: meta.uid.clone(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
    };
    let message = format!("{}: {why}", describe(&target));
    Refusal {
        target: Some(target),
        ..refusal(reason, message)
    }
}
