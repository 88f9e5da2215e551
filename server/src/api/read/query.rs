//! What a list asks for, and where it goes on.

use barge_proto::{
    selector::{FieldSelector, Selector},
    v1::{
        ClusterRole, ClusterRoleBinding, ConfigMap, Deployment, Endpoints, Event, Kind,
        ListRequest, Namespace, Node, Object, PodRecord, RbacRole, RoleBinding, Secret, Service,
        ServiceAccount,
    },
};
use barge_state::{Kind as Recorded, RecordKind, State, Stored};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::page::{Row, Rows};
use crate::{api::names, error::ApiError};

/// Objects in one page.
pub const PAGE: usize = 500;
/// Records looked at for one page: a selector that matches little must not hold up the state.
const LOOKED_AT: usize = 20_000;

/// Namespace and name: the order of a list.
pub type Position = (String, String);

/// A list that is asked for, understood.
#[derive(Debug)]
pub struct Query {
    kind: Kind,
    namespace: Option<String>,
    selector: Selector,
    fields: FieldSelector,
    /// Objects in one page.
    pub limit: usize,
    after: Option<(u64, Position)>,
    owner_uid: String,
}

impl Query {
    /// Understands a request.
    ///
    /// # Errors
    /// INVALID for an unknown kind, a selector that is none, or a `continue` that we did not give.
    pub fn new(request: &ListRequest) -> Result<Self, ApiError> {
        let (kind, info) = names::kind(request.kind)?;
        let limit = usize::try_from(request.limit).unwrap_or(PAGE);
        Ok(Self {
            kind,
            namespace: (info.namespaced && !request.namespace.is_empty())
                .then(|| request.namespace.clone()),
            selector: names::selector(&request.label_selector)?,
            fields: names::field_selector(kind, &request.field_selector)?,
            limit: if limit == 0 { PAGE } else { limit.min(PAGE) },
            after: after(&request.r#continue)?,
            owner_uid: request.owner_uid.clone(),
        })
    }

    /// The revision that is shown; none for the first page, which shows the present one.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        self.after.as_ref().map(|(revision, _)| *revision)
    }

    /// The records there are, selected or not, from where the last page ended; not all if they are many.
    #[must_use]
    pub fn rows(&self, state: &State) -> Rows {
        let mut rows = match self.kind {
            Kind::Namespace => self.records::<Namespace>(state),
            Kind::Node => self.records::<Node>(state),
            Kind::Deployment => self.records::<Deployment>(state),
            Kind::Pod => self.records::<PodRecord>(state),
            Kind::Service => self.records::<Service>(state),
            Kind::Endpoints => self.records::<Endpoints>(state),
            Kind::Event => self.records::<Event>(state),
            Kind::Secret => self.records::<Secret>(state),
            Kind::ConfigMap => self.records::<ConfigMap>(state),
            Kind::Role => self.records::<RbacRole>(state),
            Kind::ClusterRole => self.records::<ClusterRole>(state),
            Kind::RoleBinding => self.records::<RoleBinding>(state),
            Kind::ClusterRoleBinding => self.records::<ClusterRoleBinding>(state),
            Kind::ServiceAccount => self.records::<ServiceAccount>(state),
            Kind::Unspecified => Vec::new(),
        };
        let all = rows.len() <= self.most();
        rows.truncate(self.most());
        Rows::new(rows, all)
    }

    /// Records that one page looks at.
    fn most(&self) -> usize {
        match self.selector.is_empty() && self.fields.is_empty() {
            true => self.limit,
            false => LOOKED_AT,
        }
    }

    fn records<K: Recorded>(&self, state: &State) -> Vec<Row> {
        let row = |record: &std::sync::Arc<K::Kept>| Row::of(state, K::stored(record.clone()));
        let namespace = self.namespace.as_deref();
        if self.owner_uid.is_empty() {
            let after = self.after.as_ref();
            let after = after.map(|(_, (namespace, name))| (namespace.as_str(), name.as_str()));
            let records = state.list_after::<K>(namespace, after);
            return records.take(self.most() + 1).map(row).collect();
        }
        let mut rows: Vec<_> = state
            .owned::<K>(&self.owner_uid)
            .map(row)
            .filter(|row| self.covers(&row.record))
            .collect();
        rows.sort_by_key(Row::position);
        rows
    }

    /// Whether a record is one that the list looks at, selected or not.
    #[must_use]
    pub fn covers(&self, record: &Stored) -> bool {
        let namespace = self.namespace.as_deref();
        let after = self.after.as_ref();
        self.record_kind() == Some(record.kind())
            && namespace.is_none_or(|asked| asked == record.namespace())
            && after.is_none_or(|(_, (namespace, name))| {
                (record.namespace(), record.name()) > (namespace, name)
            })
            && (self.owner_uid.is_empty() || owners(record).any(|uid| uid == self.owner_uid))
    }

    fn record_kind(&self) -> Option<RecordKind> {
        names::record_kind(self.kind)
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
