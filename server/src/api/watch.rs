//! Watching a kind of objects: every change after a revision, in order, as the watcher's filter sees it.

use std::{collections::VecDeque, time::Duration};

use barge_proto::{
    kinds::{Registry, custom},
    selector::{FieldSelector, Selector},
    v1::{ChangeType, Kind, Object, WatchRequest, WatchResponse},
};
use barge_state::{Changed, Parts, RecordKind, State, Stored};
use futures::{Stream, stream};
use tokio::time::timeout;
use tonic::Status;

use super::{gate, vault::Vault};
use crate::{
    calls::names,
    error::ApiError,
    security::auth::{
        Access, Caller,
        still::{Shown, still},
    },
    storage::lock::By,
    store::{Scope, Store, Watch},
};

/// How often a watcher that sees no change is told how far it is.
const BOOKMARK: Duration = Duration::from_secs(5);

/// Changes that are made into whole objects at once, and their bytes: a watcher that does not read holds them.
const AT_ONCE: usize = 32;
const AT_ONCE_BYTES: usize = 64 << 10;

/// What a watcher wants to see.
#[derive(Debug, Clone)]
struct Filter {
    /// What the names of the kind's records begin with: all registered kinds share one kind of record. Versions are not in it, so
    /// objects that were written under an older version of their kind are seen too.
    prefix: String,
    namespace: Option<String>,
    /// The name of the record.
    name: Option<String>,
    selector: Selector,
    fields: FieldSelector,
}

/// Whether the caller may still see what a watch shows.
///
/// # Errors
/// INVALID for an unknown kind.
pub fn right(
    store: Store,
    kinds: &Registry,
    caller: &Caller,
    request: &WatchRequest,
) -> Result<impl Fn() -> Result<(), Status> + Send + 'static, Status> {
    let kind = names::resolve(kinds, request.kind, request.custom.as_ref())?;
    let name = match request.name.as_str() {
        "" => gate::name_selected(request.kind, &request.field_selector),
        name => name.to_owned(),
    };
    let shown = Shown {
        verb: "watch",
        kind,
        part: "",
        namespace: request.namespace.clone(),
        name,
    };
    still(store, caller, shown)
}

/// Begins a watch.
///
/// # Errors
/// INVALID for an unknown kind or a selector that is none; EXPIRED when the history does not go back that far.
pub async fn open(
    store: &Store,
    vault: &Vault,
    kinds: &Registry,
    access: &Access,
    request: &WatchRequest,
) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + Send + use<>, Status> {
    let info = names::resolve(kinds, request.kind, request.custom.as_ref())?;
    let kind = info.kind;
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let prefix = match kind {
        Kind::Custom => custom::record_prefix(&info),
        _ => String::new(),
    };
    let filter = Filter {
        prefix,
        namespace: some(&request.namespace).filter(|_| info.namespaced),
        name: some(&request.name).map(|name| names::record(&info, &name).into_owned()),
        selector: names::selector(&request.label_selector)?,
        fields: names::field_selector(kind, &request.field_selector)?,
    };
    store.read_index().await.map_err(ApiError::from)?;
    let now = store.read(State::revision);
    let from = match request.revision {
        0 => now,
        revision => revision,
    };
    if from > now {
        // Of another cluster, or of one that was restored: there is nothing to go on from.
        return Err(ApiError::Expired { revision: from }.into());
    }
    let scope = Scope {
        namespace: filter.namespace.clone(),
        ..Scope::kinds(RecordKind::of(kind))
    };
    let watch = store
        .watch(from, scope)
        .map_err(|_| ApiError::Expired { revision: from })?;
    let watcher = Watcher {
        store: store.clone(),
        vault: vault.clone(),
        access: access.clone(),
        watch,
        filter,
        // The first bookmark at once: a watcher from now on learns where that is.
        ready: VecDeque::from([bookmark(from)]),
        changes: VecDeque::new(),
        ended: false,
    };
    Ok(stream::unfold(watcher, |mut watcher| async move {
        let next = watcher.next().await?;
        Some((next, watcher))
    }))
}

struct Watcher {
    store: Store,
    vault: Vault,
    access: Access,
    watch: Watch,
    filter: Filter,
    ready: VecDeque<WatchResponse>,
    /// Those that are still to be looked at: whole objects are made for a few at a time.
    changes: VecDeque<Changed>,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(mut response) = self.ready.pop_front() {
                let object = response.object.take();
                response.object = object.map(|it| gate::shown(&self.access, &self.store, it));
                let opened = self.vault.open_change(response);
                self.ended = opened.is_err();
                return Some(opened.map_err(Status::from));
            }
            if !self.changes.is_empty() {
                let mut bytes = 0;
                let fit = self.changes.iter().take(AT_ONCE).take_while(|change| {
                    bytes += change.size();
                    bytes <= AT_ONCE_BYTES
                });
                let few = fit.count().max(1);
                let few: Vec<_> = self.changes.drain(..few).collect();
                let few = with_parts(&self.store, few);
                let events = few.iter().filter_map(|seen| seen.event(&self.filter));
                self.ready = events.collect();
                continue;
            }
            match timeout(BOOKMARK, self.watch.next()).await {
                Ok(Ok(changes)) => {
                    let concerned = changes.into_iter().filter(|it| self.filter.concerns(it));
                    self.changes = concerned.collect();
                }
                Ok(Err(error)) => {
                    self.ended = true;
                    return Some(Err(ApiError::from(error).into()));
                }
                Err(_) => return Some(Ok(bookmark(self.watch.progress()))),
            }
        }
    }
}

fn bookmark(revision: u64) -> WatchResponse {
    WatchResponse {
        r#type: ChangeType::Bookmark.into(),
        object: None,
        revision,
    }
}

/// A change, and what its record is shown with before and after it.
struct Seen {
    change: Changed,
    before: Option<Parts>,
    after: Option<Parts>,
}

/// Only pods are shown with something that is in the state; nobody waits for the objects that are made of it.
fn with_parts(store: &Store, changes: Vec<Changed>) -> Vec<Seen> {
    let seen = |change: Changed, parts: &dyn Fn(&Stored) -> Parts| Seen {
        before: change.before.as_ref().map(parts),
        after: change.after.as_ref().map(parts),
        change,
    };
    let alone = |record: &Stored| Parts::alone(record.clone());
    let is_pod = |change: &Changed| change.kind() == Some(RecordKind::Pod);
    if !changes.iter().any(is_pod) {
        let changes = changes.into_iter();
        return changes.map(|change| seen(change, &alone)).collect();
    }
    store.read_by(By::Watch, |state| {
        let whole = |change: Changed| {
            let template = change.template.clone();
            seen(change, &|record| {
                state.parts(record.clone(), template.clone())
            })
        };
        changes.into_iter().map(whole).collect()
    })
}

impl Seen {
    /// As the filter sees it: an object that begins to match was added, one that ceases to was deleted.
    fn event(&self, filter: &Filter) -> Option<WatchResponse> {
        let before = self.before.as_ref().and_then(Parts::object);
        let matched = before.as_ref().is_some_and(|object| filter.matches(object));
        let (after, matches) = match self.after.as_ref().and_then(Parts::object) {
            Some(after) => {
                let matches = filter.matches(&after);
                (Some(after), matches)
            }
            None => (None, false),
        };
        let r#type = match (matched, matches) {
            (false, true) => ChangeType::Added,
            (true, true) => ChangeType::Modified,
            (true, false) => ChangeType::Deleted,
            (false, false) => return None,
        };
        Some(WatchResponse {
            r#type: r#type.into(),
            object: after.or(before).map(|object| self.change.shown(object)),
            revision: self.change.revision,
        })
    }
}

impl Filter {
    /// Whether the change is of an object that the watcher may want to see. Looks at what a record keeps for its lifetime, and copies
    /// nothing.
    fn concerns(&self, change: &Changed) -> bool {
        let wanted = |asked: &Option<String>, is: &str| asked.as_ref().is_none_or(|a| a == is);
        change.name().starts_with(&self.prefix)
            && wanted(&self.name, change.name())
            && wanted(&self.namespace, change.namespace())
    }

    fn matches(&self, object: &Object) -> bool {
        self.selector.matches(&object.metadata().labels) && self.fields.matches(object)
    }
}

#[cfg(test)]
mod tests;
