//! The watch history.

use barge_proto::v1::Node;
use barge_state::{Changed, Expired, History, Kind, RecordKind, State, Stored};

use crate::fixtures::*;

fn changes(count: usize) -> Vec<Changed> {
    let mut state = State::default();
    let nodes = (0..count).map(|number| put(node(&format!("n{number}"))));
    accept(&mut state, nodes.collect::<Vec<_>>()).changes
}

fn revisions(history: &History, after: u64) -> Result<Vec<u64>, Expired> {
    Ok(history
        .since(after)?
        .map(|change| change.revision)
        .collect())
}

#[test]
fn a_watch_goes_on_in_the_middle_of_a_transaction() {
    let mut history = History::new(0, usize::MAX, 10);
    history.push(&changes(4));
    assert_eq!(revisions(&history, 0), Ok(vec![1, 2, 3, 4]));
    assert_eq!(revisions(&history, 2), Ok(vec![3, 4]));
    assert_eq!(revisions(&history, 4), Ok(vec![]));
    assert_eq!(revisions(&history, 9), Ok(vec![]));
}

#[test]
fn what_was_dropped_has_expired() {
    let mut history = History::new(0, usize::MAX, 3);
    history.push(&changes(5));
    assert_eq!(revisions(&history, 1), Err(Expired { floor: 2 }));
    assert_eq!(revisions(&history, 2), Ok(vec![3, 4, 5]));
    assert_eq!(
        revisions(&History::new(7, 0, 0), 6),
        Err(Expired { floor: 7 })
    );
}

#[test]
fn what_is_old_is_dropped_in_blocks() {
    let mut history = History::new(0, usize::MAX, 95);
    history.push(&changes(100));
    assert_eq!(
        history.drop_through(5).len(),
        0,
        "the first block goes on to 64"
    );
    let dropped = history.drop_through(64);
    assert_eq!(dropped.iter().map(|block| block.len()).sum::<usize>(), 64);
    assert_eq!((history.floor(), history.size().0), (64, 36));
    assert_eq!(revisions(&history, 63), Err(Expired { floor: 64 }));
    assert_eq!(revisions(&history, 98), Ok(vec![99, 100]));
    history.drop_through(u64::MAX);
    assert_eq!((history.floor(), history.size()), (100, (0, 0)));
    assert_eq!(revisions(&history, 100), Ok(vec![]));
}

#[test]
fn its_size_is_bounded() {
    let all = changes(100);
    let mut history = History::new(0, 4096, usize::MAX);
    for change in &all {
        history.push(std::slice::from_ref(change));
        assert!(history.size().1 <= 4096);
    }
    assert!(history.size().0 > 1);
    let mut none = History::new(0, 10, usize::MAX);
    none.push(&all);
    assert_eq!((none.size(), none.floor()), ((0, 0), 100));
}

#[test]
fn removals_are_in_it_and_records_survive_encoding() {
    let mut state = state([put(node("n1"))]);
    let applied = accept(&mut state, [remove(RecordKind::Node, "n1")]);
    let change = &applied.changes[0];
    assert_eq!((change.uid(), &change.after), ("n1", &None));
    assert_eq!(change.key(), b"\x02n1");
    assert_eq!(change.node_uids().collect::<Vec<_>>(), ["n1"]);
    let before = change.before.clone().unwrap();
    let decoded = Stored::decode(&before.encode()).unwrap();
    assert_eq!(decoded, before);
    assert_eq!(Node::from_stored(&decoded).unwrap().uid(), "n1");
    assert_eq!(
        before.encode(),
        prost::Message::encode_to_vec(&before.to_record())
    );
    assert!(Stored::decode(b"\xff").is_err() && Stored::decode(b"").is_err());
}
