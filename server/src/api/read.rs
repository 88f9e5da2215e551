//! Answering reads from the state of this manager.

use barge_proto::v1::{
    Deployment, Endpoints, Event, GetRequest, GetResponse, Kind, ListRequest, ListResponse, Object,
    PodRecord, Service,
};
use barge_state::{Kind as Recorded, State};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

use barge_proto::selector::Selector;

use super::names;
use crate::error::ApiError;

/// Objects in one page.
pub const PAGE: usize = 500;
/// Bytes in one page, well below what gRPC takes; a page has at least one object.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Objects looked at for one page: a selector that matches little must not hold up the state.
const LOOKED_AT: usize = 20_000;

/// One object.
///
/// # Errors
/// NOT_FOUND; INVALID for an unknown kind.
pub fn get(state: &State, request: &GetRequest) -> Result<GetResponse, ApiError> {
    let (kind, info) = names::kind(request.kind)?;
    let namespace = names::namespace(info, &request.namespace);
    let object = state
        .object(kind, namespace, &request.name)
        .ok_or_else(|| names::not_found(info, namespace, &request.name))?;
    Ok(GetResponse {
        object: Some(object),
        revision: state.revision(),
    })
}

/// A list that is asked for, understood.
#[derive(Debug)]
pub struct Query {
    kind: Kind,
    namespace: Option<String>,
    selector: Selector,
    limit: usize,
    after: Option<(String, String)>,
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
            limit: if limit == 0 { PAGE } else { limit.min(PAGE) },
            after: after(&request.r#continue)?,
            owner_uid: request.owner_uid.clone(),
        })
    }

    /// One page.
    #[must_use]
    pub fn run(&self, state: &State) -> ListResponse {
        let mut objects = Vec::new();
        let mut bytes = 0;
        let mut r#continue = String::new();
        let mut last: Option<(String, String)> = None;
        for (looked, object) in self.candidates(state).enumerate() {
            let full = objects.len() >= self.limit || bytes > PAGE_BYTES || looked >= LOOKED_AT;
            if full {
                r#continue = last.as_ref().map(token).unwrap_or_default();
                break;
            }
            last = Some((object.namespace().to_owned(), object.name().to_owned()));
            if self.selector.matches(&object.metadata().labels) {
                bytes += object.encoded_len();
                objects.push(object);
            }
        }
        ListResponse {
            objects,
            revision: state.revision(),
            r#continue,
        }
    }

    fn candidates<'a>(&'a self, state: &'a State) -> Box<dyn Iterator<Item = Object> + 'a> {
        let namespace = self.namespace.as_deref();
        let after = self
            .after
            .as_ref()
            .map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        if self.owner_uid.is_empty() {
            return state.objects(self.kind, namespace, after);
        }
        match self.kind {
            Kind::Pod => self.owned::<PodRecord>(state),
            Kind::Event => self.owned::<Event>(state),
            Kind::Deployment => self.owned::<Deployment>(state),
            Kind::Service => self.owned::<Service>(state),
            Kind::Endpoints => self.owned::<Endpoints>(state),
            // Nothing owns these.
            Kind::Namespace | Kind::Node | Kind::Unspecified => Box::new(std::iter::empty()),
        }
    }

    /// What an object owns, by namespace and name, so that pages go on as others do.
    fn owned<'a, K: Recorded>(&'a self, state: &'a State) -> Box<dyn Iterator<Item = Object> + 'a> {
        let key = |record: &K| {
            let meta = record.meta();
            (meta.namespace.clone(), meta.name.clone())
        };
        let mut records: Vec<_> = state
            .owned::<K>(&self.owner_uid)
            .filter(|record| {
                let namespace = &record.meta().namespace;
                self.namespace
                    .as_ref()
                    .is_none_or(|asked| asked == namespace)
            })
            .map(|record| (key(record), record))
            .filter(|(key, _)| self.after.as_ref().is_none_or(|after| key > after))
            .collect();
        records.sort_by(|a, b| a.0.cmp(&b.0));
        Box::new(
            records
                .into_iter()
                .filter_map(|(_, record)| state.view(&K::stored(record.clone()), None)),
        )
    }
}

fn token((namespace, name): &(String, String)) -> String {
    URL_SAFE_NO_PAD.encode(format!("1/{namespace}/{name}"))
}

fn after(token: &str) -> Result<Option<(String, String)>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let decoded = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    decoded
        .as_deref()
        .and_then(|text| text.strip_prefix("1/")?.split_once('/'))
        .map(|(namespace, name)| Some((namespace.to_owned(), name.to_owned())))
        .ok_or_else(|| ApiError::invalid("continue", "take it from the page before, unchanged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back() {
        let at = ("default".to_owned(), "web-1".to_owned());
        assert_eq!(after(&token(&at)).unwrap(), Some(at));
        assert_eq!(after("").unwrap(), None);
        assert!(after("x!").is_err());
        assert!(after(&URL_SAFE_NO_PAD.encode("2/a/b")).is_err());
    }
}
