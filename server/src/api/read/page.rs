//! A page of a list as it was at a revision: the records of now, with what changed since taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use barge_proto::v1::{ListResponse, Revision};
use barge_state::{Changed, State, Stored};
use prost::Message;

use super::query::{Position, Query, token};

#[cfg(test)]
mod tests;

/// Bytes in one page, well below what gRPC takes; a page has at least one object.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// A record, with what it takes to show it: a pod's template may be gone from the state by then.
#[derive(Debug, Clone)]
pub struct Row {
    pub record: Stored,
    template: Option<Arc<Revision>>,
}

impl Row {
    /// A record of a state.
    pub fn of(state: &State, record: Stored) -> Self {
        let template = match &record {
            Stored::Pod(pod) => state.template(pod).cloned(),
            _ => None,
        };
        Self { record, template }
    }

    /// Where it stands in a list.
    pub fn position(&self) -> Position {
        let (namespace, name) = (self.record.namespace(), self.record.name());
        (namespace.to_owned(), name.to_owned())
    }
}

/// A stretch of a list.
#[derive(Debug)]
pub struct Rows {
    rows: Vec<Row>,
    /// Where the stretch ends; none when it goes to the end of the list.
    end: Option<Position>,
    /// What changed since the revision, by uid: as it was there, if it was.
    then: BTreeMap<String, Option<Row>>,
}

impl Rows {
    /// Records in order; `all` when no more follow.
    pub fn new(rows: Vec<Row>, all: bool) -> Self {
        Self {
            end: rows.last().filter(|_| !all).map(Row::position),
            rows,
            then: BTreeMap::new(),
        }
    }

    /// Takes a change back. Changes come oldest first, so the first one of a record tells how it was.
    pub fn take_back(&mut self, query: &Query, change: &Changed) {
        let of_it = |record: &Option<Stored>| record.as_ref().is_some_and(|r| query.covers(r));
        if !of_it(&change.before) && !of_it(&change.after) {
            return;
        }
        let position = (change.namespace(), change.name());
        let end = self.end.as_ref();
        if end.is_some_and(|(namespace, name)| position > (namespace.as_str(), name.as_str())) {
            return;
        }
        self.then.entry(change.uid().to_owned()).or_insert_with(|| {
            let before = change.before.clone().filter(|before| query.covers(before));
            before.map(|record| Row {
                record,
                template: change.template.clone(),
            })
        });
    }

    /// The rows as they were, in order.
    fn rewound(self) -> (Vec<Row>, Option<Position>) {
        let changed: BTreeSet<_> = self.then.keys().cloned().collect();
        let mut rows = self.rows;
        if !changed.is_empty() {
            rows.retain(|row| !changed.contains(row.record.uid()));
            rows.extend(self.then.into_values().flatten());
            rows.sort_by_key(Row::position);
        }
        (rows, self.end)
    }
}

impl Query {
    /// One page of rows that are to be shown as they were at a revision.
    #[must_use]
    pub fn page(&self, state: &State, rows: Rows, revision: u64) -> ListResponse {
        let (rows, end) = rows.rewound();
        let mut objects = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        for row in &rows {
            if objects.len() >= self.limit || bytes > PAGE_BYTES {
                return ListResponse {
                    objects,
                    revision,
                    r#continue: last.map(|at| token(revision, &at)).unwrap_or_default(),
                };
            }
            last = Some(row.position());
            let object = state.view(&row.record, row.template.as_ref());
            if let Some(object) = object.filter(|object| self.selects(object)) {
                bytes += object.encoded_len();
                objects.push(object);
            }
        }
        ListResponse {
            objects,
            revision,
            r#continue: end.map(|at| token(revision, &at)).unwrap_or_default(),
        }
    }
}
