//! The controller of deletions that are too large for one transaction: it proposes their slices, one after the other, until the record is gone.
//!
//! `apply` decides the work of a slice from the state alone, so a new leader goes on where the last one stopped. The controller remembers only
//! how far a deletion got, so that it does not visit the 100,000 ending pods of a Deployment again for each of them.
//! A new leader begins at the first record and finds the same place.

use super::{Controller, plan::Plan, stamp::Stamp};
use barge_proto::v1::{Collect, Namespace, ObjectReference, RecordRef, change::Change};
use barge_state::{Changed, Kept, LOSS, Next, Place, RecordKind, State, Stored};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Records that one slice deals with. The state's lock is held for a few milliseconds.
const SLICE: u32 = 500;
/// Records that one look at the state looks at.
const LOOKS: usize = 1_000;

/// The controller of deletions, by the uid of the record that is deleted.
#[derive(Debug, Default)]
pub struct Deletions {
    /// Up to where everything of a deletion is dealt with, since the record was marked as it is in that version.
    places: Mutex<BTreeMap<String, (String, Place)>>,
}

impl Controller for Deletions {
    type Key = String;
    const NAME: &'static str = "deletion";
    /// Anything may own, and be owned.
    const KINDS: &'static [RecordKind] = RecordKind::ALL;
    /// Slices that are proposed together would be applied together, and others wait for all of them.
    const RUNNING: usize = 1;

    fn all(&self, state: &State) -> Vec<String> {
        state.deletions().map(|(uid, _)| uid.to_owned()).collect()
    }

    fn dirtied(&self, state: &State, changed: &Changed, dirty: &mut dyn FnMut(String)) {
        let Some(record) = changed.record() else {
            return;
        };
        if self.places().contains_key(record.uid()) {
            dirty(record.uid().to_owned());
        }
        if state.deletions().next().is_none() {
            return;
        }
        let namespace = state.get::<Namespace>("", record.namespace());
        let namespace = namespace.map(|namespace| Kept::uid(&**namespace));
        // An owner that it had may have lost it.
        let before = changed.before.iter().flat_map(|before| before.owners());
        let owners = before.chain(record.owners()).map(|owner| &*owner.uid);
        owners
            .chain([record.uid()])
            .chain(namespace)
            .filter(|uid| state.deletion(uid).is_some())
            .for_each(|uid| dirty(uid.to_owned()));
    }

    fn plan(&self, state: &State, key: &String, _stamp: &mut Stamp) -> Plan {
        let Some(found) = record(state, key) else {
            self.places().remove(key);
            return Plan::default();
        };
        let version = found.meta().resource_version.clone();
        let known = self.places().get(key).cloned();
        let place = known.filter(|(of, _)| *of == version);
        let (plan, place) = plan(
            state,
            key,
            place.map(|(_, place)| place).unwrap_or_default(),
        );
        self.places().insert(key.clone(), (version, place));
        plan
    }

    fn concerned(&self, state: &State, key: &String) -> Option<ObjectReference> {
        let found = record(state, key)?;
        Some(ObjectReference {
            kind: found.kind().name().to_owned(),
            namespace: found.namespace().to_owned(),
            name: found.name().to_owned(),
            uid: key.clone(),
            ..ObjectReference::default()
        })
    }
}

impl Deletions {
    fn places(&self) -> MutexGuard<'_, BTreeMap<String, (String, Place)>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The record that is deleted.
fn record(state: &State, uid: &str) -> Option<Stored> {
    state.find(&RecordRef {
        kind: state.deletion(uid)?.number(),
        uid: uid.to_owned(),
        ..RecordRef::default()
    })
}

/// What comes next of a deletion, and up to where all of it is dealt with.
fn plan(state: &State, uid: &str, place: Place) -> (Plan, Place) {
    let mut plan = Plan::default();
    let place = match state.next_of_deletion(uid, &place, LOOKS) {
        // It is looked at again when something that ends is gone.
        Next::Gone | Next::Waits => return (plan, place),
        Next::Further(place) => place,
        Next::Slice(place) if state.feature_level() < LOSS => return (plan, place),
        Next::Slice(place) => {
            plan.draft.change(Change::Collect(Collect {
                uid: uid.to_owned(),
                limit: SLICE,
                after_kind: place.kind,
                after: place.last.clone(),
            }));
            place
        }
    };
    plan.look_again(Duration::ZERO);
    (plan, place)
}

#[cfg(test)]
mod tests;
