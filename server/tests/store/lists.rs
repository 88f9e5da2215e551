//! Lists in pages while others write: of one revision, or gone on with what there is; and never for long under the state's lock.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, mpsc::channel},
};

use barge_proto::kinds::Registry as KindRegistry;
use barge_proto::v1::{Change, Kind, ListRequest, ListResponse, Object, RecordRef, Transaction};
use barge_proto::v1::{Record, change::Change as Action, record::Record as Body};
use barge_server::{
    api::read::{Limits, Pins, list},
    error::ApiError,
    store::Store,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

use crate::harness::{Cluster, create, soon};

const BY: &str = "admin/test";
/// Changes that the history keeps: far fewer than are made.
const HISTORY: usize = 400;

/// Creates or changes namespaces of these numbers.
fn put(numbers: std::ops::Range<usize>, label: usize) -> Transaction {
    let record = |number: usize| {
        let name = format!("n{number:06}");
        let mut change = create(&name).changes.remove(0);
        if let Some(Action::Put(Record {
            record: Some(Body::Namespace(namespace)),
        })) = &mut change.change
        {
            let meta = namespace.metadata.as_mut().unwrap();
            meta.labels.insert("v".to_owned(), label.to_string());
        }
        change
    };
    Transaction {
        preconditions: Vec::new(),
        changes: numbers.map(record).collect(),
        ..create("many")
    }
}

fn remove(number: usize) -> Transaction {
    let target = RecordRef {
        kind: 1,
        uid: format!("uid-of-n{number:06}"),
        ..RecordRef::default()
    };
    Transaction {
        preconditions: Vec::new(),
        changes: vec![Change {
            change: Some(Action::Remove(target)),
        }],
        ..create("one")
    }
}

async fn write(store: &Store, transaction: Transaction) {
    let outcome = soon("a write", store.propose(transaction)).await.unwrap();
    assert_eq!(outcome.refusal, None);
}

async fn write_all(store: &Store, count: usize, label: usize) {
    for from in (0..count).step_by(500) {
        write(store, put(from..count.min(from + 500), label)).await;
    }
}

fn request(limit: u32, labels: &str) -> ListRequest {
    ListRequest {
        kind: Kind::Namespace.into(),
        limit,
        label_selector: labels.to_owned(),
        ..ListRequest::default()
    }
}

async fn page(store: &Store, pins: &Pins, request: &ListRequest) -> Result<ListResponse, ApiError> {
    soon(
        "a page",
        list(store, pins, &KindRegistry::default(), BY, request),
    )
    .await
}

fn names(objects: &[Object]) -> Vec<String> {
    objects.iter().map(|it| it.name().to_owned()).collect()
}

/// How often lists held the state's lock.
fn holds(store: &Store) -> u64 {
    let mut registry = Registry::default();
    registry.register("held", "Holds", store.instruments().lock.holds);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let series = "held_count{by=\"list\"} ";
    let count = text.lines().find_map(|line| line.strip_prefix(series));
    count.unwrap().parse().unwrap()
}

fn resume(error: ApiError) -> String {
    match error {
        ApiError::ListExpired { resume, .. } => resume,
        other => panic!("{other}"),
    }
}

/// One manager whose history is short, with so many namespaces.
async fn filled(count: usize) -> (Cluster, Store) {
    let cluster = Cluster::new(1)
        .await
        .history_changes(HISTORY)
        .started()
        .await;
    let store = cluster.store(1);
    write_all(&store, count, 1).await;
    (cluster, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_was_begun_is_kept_when_the_history_is_long_gone() {
    let (_cluster, store) = filled(1500).await;
    let pins = Pins::default();
    let mut asked = request(100, "v=1");
    let first = page(&store, &pins, &asked).await.unwrap();
    let mut listed = first.objects;
    asked.r#continue = first.r#continue;
    for round in 0_usize.. {
        let answer = page(&store, &pins, &asked).await.unwrap();
        assert_eq!(answer.revision, first.revision);
        listed.extend(answer.objects);
        if answer.r#continue.is_empty() {
            break;
        }
        asked.r#continue = answer.r#continue;
        // Far more than the history has, before and behind the place where the next page begins.
        write_all(&store, 1400, round + 2).await;
        write(&store, remove(1499 - round)).await;
    }
    let expected: Vec<_> = (0..1500).map(|number| format!("n{number:06}")).collect();
    assert_eq!(names(&listed), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_list_does_not_end_another_of_the_same_caller() {
    let (_cluster, store) = filled(300).await;
    let pins = Pins::default();
    let mut asked = request(100, "");
    let first = page(&store, &pins, &asked).await.unwrap();
    asked.r#continue = first.r#continue;
    let other = asked.clone();
    while !asked.r#continue.is_empty() {
        let answer = page(&store, &pins, &asked).await.unwrap();
        asked.r#continue = answer.r#continue;
    }
    write_all(&store, 300, 2).await;
    write_all(&store, 300, 3).await;
    let answer = page(&store, &pins, &other).await.unwrap();
    assert_eq!(
        (answer.objects.len(), answer.revision),
        (100, first.revision)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_room_is_not_collected_for_each_page() {
    const COUNT: usize = 4500;
    let (_cluster, store) = filled(COUNT).await;
    let pins = Pins::new(Limits {
        bytes: 0,
        ..Limits::default()
    });
    let mut asked = request(500, "");
    let mut listed = Vec::new();
    for pages in 1.. {
        let before = holds(&store);
        let answer = page(&store, &pins, &asked).await.unwrap();
        let holds = holds(&store) - before;
        assert!(pages == 2 || holds == 1, "page {pages}: {holds}");
        listed.extend(names(&answer.objects));
        if answer.r#continue.is_empty() {
            break;
        }
        asked.r#continue = answer.r#continue;
    }
    let expected: Vec<_> = (0..COUNT).map(|number| format!("n{number:06}")).collect();
    assert_eq!(listed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_list_waits_for_no_long_ones() {
    let (_cluster, store) = filled(900).await;
    let pins = Pins::default();
    let (release, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    // More than the workers that go on at a time.
    for _ in 0..8 {
        let (pins, wait) = (pins.clone(), wait.clone());
        tokio::spawn(async move {
            let long = move || wait.lock().map(|wait| wait.recv().is_ok()).is_ok();
            pins.workers().run(long).await
        });
    }
    let mut asked = request(100, "v=1");
    loop {
        let answer = page(&store, &pins, &asked).await.unwrap();
        if answer.r#continue.is_empty() {
            break;
        }
        asked.r#continue = answer.r#continue;
    }
    let owned = ListRequest {
        owner_uid: "nobody".to_owned(),
        ..request(100, "")
    };
    assert!(
        page(&store, &pins, &owned)
            .await
            .unwrap()
            .objects
            .is_empty()
    );
    drop(release);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_manager_goes_on_as_far_as_its_history_goes() {
    let (_cluster, store) = filled(300).await;
    let mut asked = request(100, "");
    let first = page(&store, &Pins::default(), &asked).await.unwrap();
    asked.r#continue = first.r#continue;
    write(&store, put(0..200, 2)).await;
    // Another one has kept nothing.
    let second = page(&store, &Pins::default(), &asked).await.unwrap();
    assert_eq!(second.revision, first.revision);
    assert!(
        second
            .objects
            .iter()
            .all(|it| it.metadata().labels["v"] == "1")
    );
    write_all(&store, 300, 3).await;
    write_all(&store, 300, 4).await;
    let error = page(&store, &Pins::default(), &asked).await.unwrap_err();
    assert_eq!(error.reason().0, "EXPIRED");
    asked.r#continue = resume(error);
    let pins = Pins::default();
    let mut rest = Vec::new();
    loop {
        let answer = page(&store, &pins, &asked).await.unwrap();
        rest.extend(answer.objects);
        if answer.r#continue.is_empty() {
            break;
        }
        asked.r#continue = answer.r#continue;
    }
    let expected: Vec<_> = (100..300).map(|number| format!("n{number:06}")).collect();
    assert_eq!(names(&rest), expected, "behind the first page, each once");
    assert!(rest.iter().all(|it| it.metadata().labels["v"] == "4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_ends_however_fast_others_write() {
    const COUNT: usize = 3000;
    let (_cluster, store) = filled(COUNT).await;
    let stop = CancellationToken::new();
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            for round in 2.. {
                if stop.is_cancelled() {
                    return;
                }
                write_all(&store, COUNT, round).await;
            }
        }
    });
    // With pins, and with so little room that nothing is ever kept.
    let none = Limits {
        bytes: 0,
        ..Limits::default()
    };
    for limits in [Limits::default(), none] {
        let pins = Pins::new(limits);
        let mut asked = request(200, "");
        let mut listed = Vec::new();
        loop {
            match page(&store, &pins, &asked).await {
                Ok(answer) => {
                    listed.extend(names(&answer.objects));
                    if answer.r#continue.is_empty() {
                        break;
                    }
                    asked.r#continue = answer.r#continue;
                }
                Err(error) => asked.r#continue = resume(error),
            }
        }
        let once: BTreeSet<_> = listed.iter().collect();
        assert_eq!((listed.len(), once.len()), (COUNT, COUNT));
    }
    stop.cancel();
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_gives_the_lock_back_between_slices() {
    const COUNT: usize = 4500;
    let (_cluster, store) = filled(COUNT).await;
    let before = holds(&store);
    let pins = Pins::default();
    let answer = page(&store, &pins, &request(500, "nobody=has-it"))
        .await
        .unwrap();
    assert_eq!((answer.objects.len(), answer.r#continue.as_str()), (0, ""));
    let holds = holds(&store) - before;
    assert!((5..=6).contains(&holds), "{holds} looks at {COUNT} records");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dry_runs_do_not_hold_up_writes() {
    const DRY_RUNS: usize = 64;
    let (_cluster, store) = filled(500).await;
    let revision = store.read(barge_state::State::revision);
    let stop = CancellationToken::new();
    let running: Vec<_> = (0..DRY_RUNS)
        .map(|_| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.is_cancelled() {
                    let applied = store.rehearse(put(0..500, 2)).await.unwrap();
                    assert_eq!(applied.changes.len(), 500);
                    done += 1;
                }
                done
            })
        })
        .collect();
    for number in 0..20 {
        write(&store, create(&format!("w{number}"))).await;
    }
    stop.cancel();
    let mut done = 0;
    for task in running {
        done += soon("a dry run", task).await.unwrap();
    }
    assert!(done > 0);
    let now = store.read(barge_state::State::revision);
    assert_eq!(now, revision + 20, "nothing else was changed");
}
