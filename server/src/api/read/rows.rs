//! The rows of a list, collected in slices: nothing is applied while a slice is taken, and much may be applied between two slices. Changes
//! in between are taken back with the history, so all rows are as they were at one revision.

use std::{collections::HashMap, sync::Arc};

use barge_proto::v1::Revision;
use barge_state::{Changed, Parts, State, Stored};
use tokio::runtime::Handle;

use super::query::{PRESENT, Position, Query, token};
use crate::{
    error::ApiError,
    storage::lock::By,
    store::{Store, StoreError},
};

/// Records that are taken while nothing is applied: about a millisecond of work.
pub const SLICE: usize = 1_000;

/// A stretch of a list: the records that it looks at, selected or not, by namespace and name, as they were at a revision.
#[derive(Debug)]
pub struct Rows {
    /// The revision.
    pub revision: u64,
    /// The records.
    pub rows: Vec<Parts>,
    /// They are all there are behind this; none when they begin with the first one.
    pub start: Option<Position>,
    /// More follow behind this one; none when they go to the end of the list.
    pub end: Option<Position>,
    /// Nearly what the records take in memory, in bytes, and the largest of them.
    size: (usize, usize),
}

impl Rows {
    pub fn new(
        revision: u64,
        rows: Vec<Parts>,
        start: Option<&Position>,
        end: Option<Position>,
    ) -> Self {
        let sizes = || rows.iter().map(|row| row.record.size());
        Self {
            size: (sizes().sum(), sizes().max().unwrap_or_default()),
            revision,
            rows,
            start: start.cloned(),
            end,
        }
    }

    /// Whether a page behind a position can be made of them.
    pub fn covers(&self, after: Option<&Position>) -> bool {
        self.start.as_ref() <= after && self.end.as_ref().is_none_or(|end| after < Some(end))
    }

    /// At most what they take in memory, in bytes, that the state does not have any more at a later revision. Each revision since
    /// replaced or removed one record at most.
    pub fn bytes(&self, now: u64) -> usize {
        let (total, largest) = self.size;
        let replaced = usize::try_from(now.saturating_sub(self.revision)).unwrap_or(usize::MAX);
        self.rows.len() * size_of::<Parts>() + total.min(largest.saturating_mul(replaced))
    }
}

/// Records as they were taken: those of a later slice are of a later revision.
#[derive(Default)]
struct Taken {
    rows: Vec<Parts>,
    end: Option<Position>,
    /// How many rows are of the first revision.
    first: usize,
    revisions: (u64, u64),
}

pub(super) fn position(record: &Stored) -> (&str, &str) {
    (record.namespace(), record.name())
}

pub(super) fn place(row: &Parts) -> Position {
    let (namespace, name) = position(&row.record);
    (namespace.to_owned(), name.to_owned())
}

impl Taken {
    /// Takes one more slice of at most so many records; of all that an owner has, which have no order by name. Answers whether that
    /// was the last slice.
    fn slice(&mut self, store: &Store, query: &Query, most: usize) -> bool {
        let owned = !query.owner_uid.is_empty();
        // One more tells whether there are more.
        let wanted = match owned {
            true => SLICE,
            false => SLICE.min(most + 1 - self.rows.len()),
        };
        let last = self.rows.last().map(|row| &row.record);
        let (rows, revision) = store.read_by(By::List, |state| {
            (query.slice(state, last, wanted), state.revision())
        });
        let all = rows.len() < wanted;
        self.rows.extend(rows);
        if self.revisions.0 == 0 {
            (self.revisions.0, self.first) = (revision, self.rows.len());
        }
        self.revisions.1 = revision;
        all || (!owned && self.rows.len() > most)
    }

    /// By namespace and name, and no more than so many; of an owner, all.
    fn sorted(mut self, query: &Query, most: usize) -> Self {
        if query.owner_uid.is_empty() {
            self.cut(most);
        } else {
            self.rows.retain(|row| query.covers(&row.record));
            sort(&mut self.rows);
        }
        self
    }

    /// All of them as they were at the revision that the list shows, the first one here when this is its first page.
    async fn at_one_revision(mut self, store: &Store, query: &Query) -> Result<Rows, ApiError> {
        let (begun, ended) = self.revisions;
        let revision = query.revision().unwrap_or(begun);
        let expired = || ApiError::ListExpired {
            revision,
            resume: query
                .after()
                .map(|after| token(PRESENT, after))
                .unwrap_or_default(),
        };
        if ended < revision {
            // A stale read of a manager that is behind, or the token of another cluster.
            return Err(expired());
        }
        if ended > revision {
            // The history follows the state closely, but not at once.
            store
                .wait_applied(ended)
                .await
                .map_err(|error| match error {
                    StoreError::Stopped => ApiError::Stopping,
                    other => other.into(),
                })?;
            let mut before = Before::default();
            let end = self.end.as_ref();
            let took_back = store.changes(revision, ended, |change| {
                before.take_back(query, end, change);
            });
            if took_back.is_ok() {
                before.rewind(&mut self.rows, |some| {
                    store.read_by(By::List, |state| parts(state, some))
                });
            } else if query.revision().is_some() || !query.owner_uid.is_empty() {
                return Err(expired());
            } else {
                // So much was written meanwhile that the slices cannot be made one. The first one is a page, too.
                self.cut(self.first);
            }
        }
        Ok(Rows::new(revision, self.rows, query.after(), self.end))
    }

    fn cut(&mut self, most: usize) {
        if self.rows.len() > most {
            self.rows.truncate(most);
            self.end = self.rows.last().map(place);
        }
        self.first = self.first.min(self.rows.len());
    }
}

fn sort(rows: &mut [Parts]) {
    rows.sort_by(|a, b| position(&a.record).cmp(&position(&b.record)));
}

/// A record of the history; for pods, with their template.
type Shown = (Stored, Option<Arc<Revision>>);

fn parts(state: &State, records: &[Shown]) -> Vec<Parts> {
    let records = records.iter().cloned();
    let parts = records.map(|(record, template)| state.parts(record, template));
    parts.collect()
}

/// How records were that changed since, by uid; none for those that were not there.
#[derive(Debug, Default)]
pub(super) struct Before(HashMap<String, Option<Shown>>);

impl Before {
    /// Takes a change back. Changes come oldest first, so the first one of a record tells how it was.
    pub(super) fn take_back(&mut self, query: &Query, end: Option<&Position>, change: &Changed) {
        let of_it = |record: &Option<Stored>| record.as_ref().is_some_and(|r| query.covers(r));
        if !of_it(&change.before) && !of_it(&change.after) {
            return;
        }
        let at = (change.namespace(), change.name());
        if end.is_some_and(|(namespace, name)| at > (namespace.as_str(), name.as_str())) {
            return;
        }
        self.0.entry(change.uid().to_owned()).or_insert_with(|| {
            let before = change.before.clone().filter(|before| query.covers(before));
            before.map(|record| (record, change.template.clone()))
        });
    }

    /// The rows as they were. `parts` adds to records what is shown with them.
    pub(super) fn rewind(
        self,
        rows: &mut Vec<Parts>,
        mut parts: impl FnMut(&[Shown]) -> Vec<Parts>,
    ) {
        if self.0.is_empty() {
            return;
        }
        rows.retain(|row| !self.0.contains_key(row.record.uid()));
        let before: Vec<_> = self.0.into_values().flatten().collect();
        for some in before.chunks(SLICE) {
            rows.extend(parts(some));
        }
        sort(rows);
    }
}

/// Collects at most so many records behind where the page before ended, as they were at the revision that it shows; none when that
/// is more than a slice, or much has changed since: [`collect`] them then.
///
/// # Errors
/// As [`collect`].
pub async fn collect_few(
    store: &Store,
    query: &Query,
    most: usize,
) -> Result<Option<Rows>, ApiError> {
    let mut taken = Taken::default();
    let is_all = taken.slice(store, query, most);
    let now = taken.revisions.1;
    let changes = now.saturating_sub(query.revision().unwrap_or(now));
    if !is_all || changes > SLICE as u64 {
        return Ok(None);
    }
    let taken = taken.sorted(query, most);
    taken.at_one_revision(store, query).await.map(Some)
}

/// Collects at most so many records behind where the page before ended, as they were at the revision that it shows. It takes a
/// while: call it on a thread for that.
///
/// # Errors
/// EXPIRED when the history does not go back to that revision any more, with a token that goes on at the present.
pub fn collect(store: &Store, query: &Query, most: usize) -> Result<Rows, ApiError> {
    let mut taken = Taken::default();
    while !taken.slice(store, query, most) {
        // A waiting `apply` gets the lock before the next slice.
        std::thread::yield_now();
    }
    let taken = taken.sorted(query, most);
    Handle::current().block_on(taken.at_one_revision(store, query))
}

#[cfg(test)]
mod tests;
