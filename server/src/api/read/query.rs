//! The query of a list, and the token by which it goes on.

use std::sync::Arc;

use barge_proto::{
    for_each_kind,
    kinds::{Registry, custom::record_prefix},
    selector::{FieldSelector, Selector},
    v1::{self, Kind, ListRequest, Object},
};
use barge_state::{Kept as _, Kind as Recorded, Parts, RecordKind, State, Stored};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

mod sets;

use crate::{calls::names, error::ApiError};

/// Objects in one page.
pub const PAGE: usize = 500;
/// Records looked at for one page with a selector. What is selected may be few of them, or none.
const LOOKED_AT: usize = 20_000;

/// Namespace and name: the order of a list.
pub type Position = (String, String);

/// A list that is asked for, understood.
#[derive(Debug)]
pub struct Query {
    /// The kind of its objects.
    pub kind: Kind,
    /// Of a registered kind, what the names of its records begin with.
    pub prefix: Option<String>,
    /// The only namespace that it is about.
    pub namespace: Option<String>,
    selector: Selector,
    fields: FieldSelector,
    /// Objects in one page.
    pub limit: usize,
    after: Option<(u64, Position)>,
    /// The only owner that it is about; empty for all.
    pub owner_uid: String,
}

macro_rules! define {
    ($($variant:ident($record:ident) $table:ident = $number:literal [$($object:ident($message:ident))?] $options:tt,)*) => {
        impl Query {
            /// At most so many records of those that the list looks at, behind `last` or where the page before ended. By namespace and
            /// name; of an owner, by uid.
            #[must_use]
            pub fn slice(&self, state: &State, last: Option<&Stored>, most: usize) -> Vec<Parts> {
                if self.kind == Kind::ReplicaSet {
                    return self.replica_sets(state, last, most);
                }
                if self.kind == Kind::Pod && self.is_of_revision(state) {
                    return self.pods_of(state, last, most);
                }
                match self.kind {
                    $($(Kind::$object => self.records::<v1::$record>(state, last, most),)?)*
                    Kind::Unspecified => Vec::new(),
                }
            }
        }
    };
}
for_each_kind!(define);

impl Query {
    /// Understands a request.
    ///
    /// # Errors
    /// INVALID for an unknown kind, a selector that is none, or a `continue` that we did not give.
    pub fn new(kinds: &Registry, request: &ListRequest) -> Result<Self, ApiError> {
        let info = names::resolve(kinds, request.kind, request.custom.as_ref())?;
        let kind = info.kind;
        let limit = usize::try_from(request.limit).unwrap_or(PAGE);
        Ok(Self {
            kind,
            prefix: (kind == Kind::Custom).then(|| record_prefix(&info)),
            namespace: (info.namespaced && !request.namespace.is_empty())
                .then(|| request.namespace.clone()),
            selector: names::selector(&request.label_selector)?,
            fields: names::field_selector(kind, &request.field_selector)?,
            limit: if limit == 0 { PAGE } else { limit.min(PAGE) },
            after: after(&request.r#continue)?,
            owner_uid: request.owner_uid.clone(),
        })
    }

    /// The revision that the pages before show; none when this one shows the present, as the first one does.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        let revision = self.after.as_ref().map(|(revision, _)| *revision);
        revision.filter(|revision| *revision != PRESENT)
    }

    /// Where the page before ended; none for the first one.
    #[must_use]
    pub fn after(&self) -> Option<&Position> {
        self.after.as_ref().map(|(_, position)| position)
    }

    /// Whether not everything that it looks at is shown.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        // Among ReplicaSets are templates that are none.
        !(self.selector.is_empty() && self.fields.is_empty()) || self.kind == Kind::ReplicaSet
    }

    /// Records that one page looks at.
    #[must_use]
    pub fn most(&self) -> usize {
        match self.is_filtered() {
            true => LOOKED_AT,
            false => self.limit,
        }
    }

    fn records<K: Recorded>(
        &self,
        state: &State,
        last: Option<&Stored>,
        most: usize,
    ) -> Vec<Parts> {
        let parts = |record: &Arc<K::Kept>| state.parts(K::stored(record.clone()), None);
        if !self.owner_uid.is_empty() {
            let owned = state.owned_after::<K>(&self.owner_uid, last.map_or("", Stored::uid));
            let asked = owned.filter(|record| self.is_of_kind(record.name()));
            return asked.take(most).map(parts).collect();
        }
        let before = self
            .after()
            .map(|(namespace, name)| (&**namespace, &**name));
        let after = last.map(|last| (last.namespace(), last.name()));
        let (namespace, after) = (self.namespace.as_deref(), after.or(before));
        match &self.prefix {
            None => {
                let records = state.list_after::<K>(namespace, after);
                records.take(most).map(parts).collect()
            }
            Some(prefix) => {
                let records = state.list_prefixed::<K>(prefix, namespace, after);
                records.take(most).map(parts).collect()
            }
        }
    }

    /// Whether a record is one that the list looks at, selected or not.
    #[must_use]
    pub fn covers(&self, record: &Stored) -> bool {
        let namespace = self.namespace.as_deref();
        let after = self.after();
        let is_revision = record.kind() == RecordKind::Revision;
        (self.record_kind() == Some(record.kind()) || is_revision && self.kind == Kind::ReplicaSet)
            && self.is_of_kind(record.name())
            && namespace.is_none_or(|asked| asked == record.namespace())
            && after.is_none_or(|(namespace, name)| {
                (record.namespace(), record.name()) > (namespace, name)
            })
            && (self.owner_uid.is_empty() || self.may_own(record))
    }

    /// Whether a record belongs to the owner that is asked for, or may be shown as if: a pod belongs to the ReplicaSet that its template is
    /// shown as, while its record names the Deployment.
    fn may_own(&self, record: &Stored) -> bool {
        let is_of_template = match record {
            Stored::Pod(pod) => pod.template_uid() == self.owner_uid,
            _ => false,
        };
        is_of_template || owners(record).any(|uid| uid == self.owner_uid)
    }

    /// Whether a record that the list looks at belongs to the owner that is asked for, as it is recorded or as it is shown.
    #[must_use]
    pub fn owns(&self, record: &Stored, object: &Object) -> bool {
        let mut shown = object.metadata().owner_references.iter();
        self.owner_uid.is_empty()
            || owners(record).any(|uid| uid == self.owner_uid)
            || shown.any(|owner| owner.uid == self.owner_uid)
    }

    /// Whether a record of this name is of the kind, and not of another registered one.
    fn is_of_kind(&self, name: &str) -> bool {
        let prefix = self.prefix.as_ref();
        prefix.is_none_or(|prefix| name.starts_with(prefix))
    }

    fn record_kind(&self) -> Option<RecordKind> {
        RecordKind::of(self.kind)
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn selects(&self, object: &Object) -> bool {
        self.selector.matches(&object.metadata().labels) && self.fields.matches(object)
    }
}

fn owners(record: &Stored) -> impl Iterator<Item = &str> {
    let about = match record {
        Stored::Event(event) => event.involved_object.as_ref(),
        _ => None,
    };
    let owners = record.owners().iter();
    owners
        .map(|owner| owner.uid.as_str())
        .chain(about.map(|about| about.uid.as_str()))
}

/// Stands in a token for the revision of the page that it asks for.
pub const PRESENT: u64 = 0;

/// Where the next page goes on.
pub fn token(revision: u64, (namespace, name): &Position) -> String {
    URL_SAFE_NO_PAD.encode(format!("2/{revision}/{namespace}/{name}"))
}

fn after(token: &str) -> Result<Option<(u64, Position)>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let decoded = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let read = |text: &str| {
        let (revision, position) = text.strip_prefix("2/")?.split_once('/')?;
        let (namespace, name) = position.split_once('/')?;
        let position = (namespace.to_owned(), name.to_owned());
        Some((revision.parse().ok()?, position))
    };
    decoded
        .as_deref()
        .and_then(read)
        .map(Some)
        .ok_or_else(|| ApiError::invalid("continue", "take it from the page before, unchanged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back() {
        let at = ("default".to_owned(), "web-1".to_owned());
        assert_eq!(after(&token(7, &at)).unwrap(), Some((7, at)));
        assert_eq!(after("").unwrap(), None);
        assert!(after("x!").is_err());
        assert!(after(&URL_SAFE_NO_PAD.encode("2/x/a/b")).is_err());
        assert!(after(&URL_SAFE_NO_PAD.encode("1/a/b")).is_err());
    }
}
