//! The objects that a watcher has reported, so that it can report a new list as differences.

use std::collections::BTreeMap;

use super::WatchEvent;
use crate::v1::Object;

/// Objects by uid: a name that is used again is another object.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, Object>);

impl Known {
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.0.values()
    }

    /// The events that lead from what was told to a new list: first what went, so that a name is free before it is
    /// used again.
    pub(super) fn replace(&mut self, objects: Vec<Object>) -> Vec<WatchEvent> {
        let mut old = std::mem::take(&mut self.0);
        let mut events = Vec::new();
        for object in objects {
            let uid = object.uid().to_owned();
            match old.remove(&uid) {
                None => events.push(WatchEvent::Added(object.clone())),
                Some(before) if version(&before) != version(&object) => {
                    events.push(WatchEvent::Modified(object.clone()));
                }
                Some(_) => {}
            }
            self.0.insert(uid, object);
        }
        let gone = old.into_values().map(WatchEvent::Deleted);
        gone.chain(events).collect()
    }

    /// A change that is news; `None` when it was told already (a resumed watch may repeat).
    pub(super) fn upsert(&mut self, object: Object) -> Option<WatchEvent> {
        match self.0.insert(object.uid().to_owned(), object.clone()) {
            None => Some(WatchEvent::Added(object)),
            Some(before) if version(&before) == version(&object) => None,
            Some(_) => Some(WatchEvent::Modified(object)),
        }
    }

    pub(super) fn remove(&mut self, object: Object) -> Option<WatchEvent> {
        self.0
            .remove(object.uid())
            .map(|_| WatchEvent::Deleted(object))
    }
}

fn version(object: &Object) -> &str {
    &object.metadata().resource_version
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Namespace, ObjectMeta};

    fn object(uid: &str, version: &str) -> Object {
        Object::from(Namespace {
            metadata: Some(ObjectMeta {
                name: "n".into(),
                uid: uid.into(),
                resource_version: version.into(),
                ..ObjectMeta::default()
            }),
            ..Namespace::default()
        })
    }

    #[test]
    fn a_new_list_becomes_differences() {
        let mut known = Known::default();
        known.replace(vec![object("a", "1"), object("b", "1"), object("c", "1")]);
        let events = known.replace(vec![object("a", "1"), object("b", "2"), object("d", "2")]);
        assert_eq!(
            events,
            [
                WatchEvent::Deleted(object("c", "1")),
                WatchEvent::Modified(object("b", "2")),
                WatchEvent::Added(object("d", "2")),
            ]
        );
        assert_eq!(known.objects().count(), 3);
    }

    #[test]
    fn repetitions_are_not_news() {
        let mut known = Known::default();
        assert!(known.upsert(object("a", "1")).is_some());
        assert!(known.upsert(object("a", "1")).is_none());
        assert!(matches!(
            known.upsert(object("a", "2")),
            Some(WatchEvent::Modified(_))
        ));
        assert!(known.remove(object("a", "3")).is_some());
        assert!(known.remove(object("a", "3")).is_none());
    }
}
