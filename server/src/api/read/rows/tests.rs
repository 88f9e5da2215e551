#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Pages of one revision, whatever changes between them and between their slices.

use barge_proto::kinds::Registry;
use barge_proto::v1::{Kind, ListRequest, ListResponse, Namespace, ObjectMeta};
use barge_state::{History, Kind as _};
use proptest::prelude::*;

use super::*;
use crate::store::transaction::Draft;

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
            draft.remove::<Namespace>(found.uid());
            self.apply(draft);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(name, label) => self.write(name, label),
            Step::Remove(name) => self.remove(name),
            Step::Page => {}
        }
    }

    /// A page of at most so many records, in slices between which the world goes on.
    fn page(
        &mut self,
        request: &ListRequest,
        most: usize,
        between: &mut impl Iterator<Item = Step>,
    ) -> ListResponse {
        let query = Query::new(&Registry::default(), request).unwrap();
        let begun = self.state.revision();
        let mut rows: Vec<Parts> = Vec::new();
        while rows.len() <= most {
            let last = rows.last().map(|row| &row.record);
            let slice = query.slice(&self.state, last, 2);
            if slice.is_empty() {
                break;
            }
            rows.extend(slice);
            if let Some(step) = between.next() {
                self.step(step);
            }
        }
        let mut taken = Taken {
            first: rows.len(),
            rows,
            end: None,
            revisions: (begun, self.state.revision()),
        };
        taken.cut(most);
        let revision = query.revision().unwrap_or(begun);
        let mut before = Before::default();
        if let Some(history) = &self.history {
            for change in history.since(revision).unwrap() {
                before.take_back(&query, taken.end.as_ref(), change);
            }
        }
        before.rewind(&mut taken.rows, |some| parts(&self.state, some));
        query.page(&Rows::new(revision, taken.rows, query.after(), taken.end))
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
        between in steps(),
        meanwhile in steps(),
        limit in 1..5_u32,
        selector in prop_oneof![Just(""), Just("v=1"), Just("v!=1")],
    ) {
        let mut world = World::default();
        before.into_iter().for_each(|step| world.step(step));
        let mut between = between.into_iter();
        let whole = world.page(&request(500, selector), 500, &mut std::iter::empty());
        let most = limit as usize;
        let mut asked = request(limit, selector);
        let first = world.page(&asked, most, &mut between);
        let mut listed = first.objects;
        asked.r#continue = first.r#continue;
        for step in meanwhile.into_iter().chain(std::iter::repeat_n(Step::Page, 13)) {
            match step {
                Step::Page if asked.r#continue.is_empty() => {}
                Step::Page => {
                    // An empty page goes on, too.
                    let page = world.page(&asked, most, &mut between);
                    prop_assert_eq!(page.revision, whole.revision);
                    listed.extend(page.objects);
                    asked.r#continue = page.r#continue;
                }
                step => world.step(step),
            }
        }
        prop_assert_eq!(asked.r#continue, "");
        prop_assert_eq!(listed, whole.objects);
    }
}

#[test]
fn a_page_looks_at_a_bounded_number_of_records_and_may_be_empty() {
    let namespace = |number: usize| {
        let metadata = ObjectMeta {
            name: format!("n{number:06}"),
            uid: number.to_string(),
            ..ObjectMeta::default()
        };
        Parts::alone(Namespace::stored(Arc::new(Namespace {
            metadata: Some(metadata),
            ..Namespace::default()
        })))
    };
    let mut asked = request(500, "nobody=has-it");
    let mut query = Query::new(&Registry::default(), &asked).unwrap();
    let rows = Rows::new(7, (0..50_000).map(namespace).collect(), None, None);
    for pages in [1, 2, 3] {
        let page = query.page(&rows);
        assert_eq!((page.objects.len(), page.revision), (0, 7));
        assert_eq!(page.r#continue.is_empty(), pages == 3, "page {pages}");
        asked.r#continue = page.r#continue;
        query = Query::new(&Registry::default(), &asked).unwrap();
    }
}
