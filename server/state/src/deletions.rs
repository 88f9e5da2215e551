//! The index of records that are deleted in slices: the kind of each deletion, and the next records that belong to it.

use std::collections::BTreeMap;

use crate::{
    apply::terminate,
    kind::{RecordKind, Stored},
    state::State,
    tables::Tables,
};

/// The finalizer of what waits for what it owns.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of what goes as soon as all that it owned belongs to it no longer.
pub const ORPHAN: &str = "orphan";
/// The finalizer of what goes as soon as all that it owns is deleted, or ends.
pub const BACKGROUND: &str = "barge.dev/backgroundDeletion";

/// What becomes of what belongs to a record that is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cascade {
    /// It is deleted; the deletion does not wait for pods that end.
    Background,
    /// It is deleted, and the record stays until all of it that blocks is gone.
    Foreground,
    /// It stays, and belongs to the record no longer.
    Orphan,
    /// It is what is in a namespace: it is deleted, and the namespace stays until its pods are gone.
    Namespace,
}

impl Cascade {
    /// How a record is being deleted; absent when it is not, or has nothing to wait for but itself.
    pub fn of(record: &Stored) -> Option<Cascade> {
        if let Stored::Namespace(namespace) = record {
            let meta = namespace.metadata.as_ref()?;
            return meta.deletion_timestamp.map(|_| Cascade::Namespace);
        }
        record.finalizers().iter().find_map(|name| match &**name {
            FOREGROUND => Some(Cascade::Foreground),
            ORPHAN => Some(Cascade::Orphan),
            BACKGROUND => Some(Cascade::Background),
            _ => None,
        })
    }

    /// The finalizer that says so; namespaces need none.
    pub fn finalizer(self) -> Option<&'static str> {
        match self {
            Cascade::Background => Some(BACKGROUND),
            Cascade::Foreground => Some(FOREGROUND),
            Cascade::Orphan => Some(ORPHAN),
            Cascade::Namespace => None,
        }
    }
}

/// A place in the order of what belongs to a record: by kind, then by uid, or by name within a namespace. The default is the
/// beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The number of the kind.
    pub kind: u32,
    /// The uid or name of the last one before it.
    pub last: String,
}

impl Place {
    /// Right after a record, in the order of that cascade.
    pub fn after(record: &Stored, cascade: Cascade) -> Place {
        let last = match cascade {
            Cascade::Namespace => record.name(),
            _ => record.uid(),
        };
        Place {
            kind: record.kind().number(),
            last: last.to_owned(),
        }
    }

    /// After which uid or name the records of a kind are behind this place, "" for all; absent when none is.
    pub fn within(&self, kind: RecordKind) -> Option<&str> {
        match kind.number().cmp(&self.kind) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(&self.last),
            std::cmp::Ordering::Greater => Some(""),
        }
    }
}

/// Records that are being deleted, by uid.
#[derive(Debug, Default)]
pub struct Deletions(BTreeMap<String, RecordKind>);

impl Deletions {
    /// Follows a change of a record.
    pub fn swap(&mut self, before: Option<&Stored>, after: Option<&Stored>) {
        match (
            before.filter(|b| is_deleted(b)),
            after.filter(|a| is_deleted(a)),
        ) {
            (None, None) => {}
            (_, Some(after)) => {
                self.0.insert(after.uid().to_owned(), after.kind());
            }
            (Some(before), None) => {
                self.0.remove(before.uid());
            }
        }
    }

    /// The kind of a record that is being deleted.
    pub fn get(&self, uid: &str) -> Option<RecordKind> {
        self.0.get(uid).copied()
    }

    /// Uids and kinds, by uid.
    pub fn iter(&self) -> impl Iterator<Item = (&str, RecordKind)> {
        self.0.iter().map(|(uid, kind)| (uid.as_str(), *kind))
    }
}

fn is_deleted(record: &Stored) -> bool {
    Cascade::of(record).is_some()
}

/// What comes next of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A slice that begins at this place has something to do.
    Slice(Place),
    /// All up to this place is dealt with; look further from there.
    Further(Place),
    /// All is dealt with, and something of it still ends.
    Waits,
    /// There is no such deletion (any more).
    Gone,
}

impl State {
    /// The records that are being deleted together with what belongs to them: uids and kinds, by uid.
    pub fn deletions(&self) -> impl Iterator<Item = (&str, RecordKind)> {
        self.tables.deletions.iter()
    }

    /// The kind of a record that is being deleted together with what belongs to it.
    pub fn deletion(&self, uid: &str) -> Option<RecordKind> {
        self.tables.deletions.get(uid)
    }

    /// What comes next of the deletion of the record with this uid, when all up to `place` is dealt with. Looks at no more than
    /// `looks` records.
    pub fn next_of_deletion(&self, uid: &str, place: &Place, looks: usize) -> Next {
        let tables = &self.tables;
        let kind = tables.deletions.get(uid);
        let Some(record) = kind.and_then(|kind| tables.find_uid(kind, uid)) else {
            return Next::Gone;
        };
        let Some(cascade) = Cascade::of(&record) else {
            return Next::Gone;
        };
        let mut place = place.clone();
        let mut looked = 0;
        for found in tables.belonging(&record, &place) {
            if tables.is_pending(&record, &found, cascade) {
                return Next::Slice(place);
            }
            place = Place::after(&found, cascade);
            looked += 1;
            if looked == looks {
                return Next::Further(place);
            }
        }
        match tables.belonging(&record, &Place::default()).next() {
            Some(first) if !tables.is_pending(&record, &first, cascade) => Next::Waits,
            // Only the record itself is left, or records that are not refused during a deletion: events.
            _ => Next::Slice(Place::default()),
        }
    }
}

impl Tables {
    /// What belongs to a record that is being deleted, from a place on: what it owns; what is in a namespace; the pods on a node.
    pub fn belonging(
        &self,
        record: &Stored,
        place: &Place,
    ) -> Box<dyn Iterator<Item = Stored> + '_> {
        match record {
            Stored::Namespace(namespace) => {
                Box::new(self.in_namespace_after(crate::kept::Kept::name(&**namespace), place))
            }
            Stored::Node(_) => {
                let pods = self.pods_by_node.get(record.uid()).cloned();
                // They leave one after the other, so that the first ones are always the next.
                Box::new(
                    pods.map(Stored::Pod)
                        .chain(self.owned_after(record.uid(), place)),
                )
            }
            _ => Box::new(self.owned_after(record.uid(), place)),
        }
    }

    /// Whether something is left to be done about a record that belongs to one that is being deleted.
    pub fn is_pending(&self, owner: &Stored, found: &Stored, cascade: Cascade) -> bool {
        match cascade {
            // It leaves.
            Cascade::Background | Cascade::Orphan => true,
            Cascade::Foreground => {
                !blocks(found, owner.uid())
                    || self.has_other_owner(found, owner.uid())
                    || !self.ends(found)
            }
            // In the foreground, records that block each other would wait for ever.
            Cascade::Namespace => {
                !self.ends(found) || Cascade::of(found) == Some(Cascade::Foreground)
            }
        }
    }

    /// Whether a record is on its way out.
    fn ends(&self, record: &Stored) -> bool {
        match record {
            Stored::Pod(pod) => {
                Cascade::of(record).is_some()
                    || (pod.is_terminating() && terminate::is_running(self, pod))
            }
            Stored::Revision(template) => {
                let marked = template
                    .metadata
                    .as_ref()
                    .and_then(|meta| meta.deletion_timestamp);
                marked.is_some()
            }
            _ => Cascade::of(record).is_some(),
        }
    }

    /// Whether something else that exists owns the record, too.
    pub fn has_other_owner(&self, record: &Stored, owner: &str) -> bool {
        let mut owners = record.owners().iter();
        owners.any(|other| other.uid != owner && self.exists(&other.uid))
    }
}

/// Whether an owner has to wait for a record.
pub fn blocks(record: &Stored, owner: &str) -> bool {
    let mut owners = record.owners().iter();
    owners.any(|other| other.uid == owner && other.block_owner_deletion == Some(true))
}
