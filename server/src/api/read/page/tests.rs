#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Pages of one revision, whatever changes between them.

use barge_proto::v1::{Kind, ListRequest, Namespace, ObjectMeta};
use barge_state::History;
use proptest::prelude::*;

use super::*;
use crate::transaction::Draft;

/// A cluster of namespaces that come, change and go.
#[derive(Default)]
struct World {
    state: State,
    history: Option<History>,
    uids: u32,
}

impl World {
    fn apply(&mut self, draft: Draft) {
        let applied = self.state.apply(1, draft.build("t".to_owned(), None));
        assert_eq!(applied.outcome.refusal, None);
        let history = self
            .history
            .get_or_insert_with(|| History::new(0, 1 << 20, 10_000));
        history.push(&applied.changes);
    }

    fn write(&mut self, name: u8, label: u8) {
        let name = format!("n{name}");
        let found = self.state.get::<Namespace>("", &name).cloned();
        let mut meta = found.map(|found| found.metadata.clone().unwrap());
        self.uids += 1;
        let meta = meta.get_or_insert_with(|| ObjectMeta {
            uid: self.uids.to_string(),
            name,
            ..ObjectMeta::default()
        });
        meta.labels.insert("v".to_owned(), label.to_string());
        let mut draft = Draft::new();
        draft.put(Namespace {
            metadata: Some(meta.clone()),
            ..Namespace::default()
        });
        self.apply(draft);
    }

    fn remove(&mut self, name: u8) {
        let found = self
            .state
            .get::<Namespace>("", &format!("n{name}"))
            .cloned();
        if let Some(found) = found {
            let mut draft = Draft::new();
            draft.remove::<Namespace>(&found.metadata.as_ref().unwrap().uid);
            self.apply(draft);
        }
    }

    fn page(&self, request: &ListRequest) -> ListResponse {
        let query = Query::new(request).unwrap();
        let mut rows = query.rows(&self.state);
        let now = self.state.revision();
        let revision = query.revision().unwrap_or(now);
        if let Some(history) = &self.history {
            for change in history.since(revision).unwrap() {
                rows.take_back(&query, change);
            }
        }
        query.page(&self.state, rows, revision)
    }
}

fn request(limit: u32, selector: &str) -> ListRequest {
    ListRequest {
        kind: Kind::Namespace.into(),
        limit,
        label_selector: selector.to_owned(),
        ..ListRequest::default()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u8, u8),
    Remove(u8),
    /// The next page.
    Page,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12_u8, 0..3_u8).prop_map(|(name, label)| Step::Write(name, label)),
        2 => (0..12_u8).prop_map(Step::Remove),
        2 => Just(Step::Page),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn all_pages_show_the_revision_of_the_first(
        before in steps(),
        meanwhile in steps(),
        limit in 1..5_u32,
        selector in prop_oneof![Just(""), Just("v=1"), Just("v!=1")],
    ) {
        let mut world = World::default();
        for step in before {
            match step {
                Step::Write(name, label) => world.write(name, label),
                Step::Remove(name) => world.remove(name),
                Step::Page => {}
            }
        }
        let whole = world.page(&request(500, selector));
        let mut asked = request(limit, selector);
        let first = world.page(&asked);
        let mut listed = first.objects;
        asked.r#continue = first.r#continue;
        for step in meanwhile.into_iter().chain(std::iter::repeat_n(Step::Page, 13)) {
            match step {
                Step::Write(name, label) => world.write(name, label),
                Step::Remove(name) => world.remove(name),
                Step::Page if asked.r#continue.is_empty() => {}
                Step::Page => {
                    let page = world.page(&asked);
                    prop_assert_eq!(page.revision, whole.revision);
                    listed.extend(page.objects);
                    asked.r#continue = page.r#continue;
                }
            }
        }
        prop_assert_eq!(asked.r#continue, "");
        prop_assert_eq!(listed, whole.objects);
    }
}
