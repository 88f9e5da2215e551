//! One page of a list, made of collected records. Making its objects holds no lock.

use barge_proto::v1::{ListResponse, Object};
use prost::Message;

use super::{
    query::{Query, token},
    rows::{Rows, place, position},
};

/// Bytes in one page, well below what gRPC takes; a page has at least one object.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

impl Query {
    /// The page behind where the one before ended. It may be empty and not the last one: it looks at a bounded number of records,
    /// and a selector may match none of them.
    #[must_use]
    pub fn page(&self, rows: &Rows) -> ListResponse {
        let after = self
            .after()
            .map(|(namespace, name)| (&**namespace, &**name));
        let from = rows
            .rows
            .partition_point(|row| after.is_some_and(|after| position(&row.record) <= after));
        let mut page = ListResponse {
            revision: rows.revision,
            ..ListResponse::default()
        };
        let (mut bytes, mut last) = (0, None);
        for (looked, row) in rows.rows.iter().skip(from).enumerate() {
            let full = page.objects.len() >= self.limit || bytes > PAGE_BYTES;
            if let Some(last) = last.filter(|_| full || looked >= self.most()) {
                page.r#continue = token(rows.revision, &place(last));
                return page;
            }
            last = Some(row);
            let asked = |object: &Object| self.selects(object) && self.owns(&row.record, object);
            if let Some(object) = row.object().filter(asked) {
                bytes += object.encoded_len();
                page.objects.push(object);
            }
        }
        let end = rows.end.as_ref().map(|end| token(rows.revision, end));
        page.r#continue = end.unwrap_or_default();
        page
    }
}
