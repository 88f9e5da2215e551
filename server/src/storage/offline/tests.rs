#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use barge_proto::v1::{Change, Namespace, ObjectMeta, Record, Transaction, change, record};
use barge_state::LEVEL;

use super::*;
use crate::storage::types::{Encoder, Entry};

fn owner() -> Identity {
    Identity {
        cluster_id: "c".into(),
        raft_id: 7,
    }
}

fn node() -> Node {
    Node {
        address: "h:1".into(),
        uid: "u".into(),
    }
}

fn create(name: &str) -> Transaction {
    let namespace = Namespace {
        metadata: Some(ObjectMeta {
            name: name.into(),
            uid: name.into(),
            // Worth compressing.
            annotations: [("filler".into(), "x".repeat(4 << 10))].into(),
            ..ObjectMeta::default()
        }),
        ..Namespace::default()
    };
    Transaction {
        changes: vec![Change {
            change: Some(change::Change::Put(Record {
                record: Some(record::Record::Namespace(namespace)),
            })),
        }],
        ..Transaction::default()
    }
}

fn begun(store: &Path) -> State {
    let mut state = State::default();
    assert_eq!(state.apply(1, create("a")).outcome.refusal, None);
    state.leap(60);
    begin(store, &owner(), node(), &state, (41, 5)).unwrap();
    state
}

#[test]
fn a_new_beginning_is_found_as_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let state = begun(&store);
    let found = survivor(&store, &owner()).unwrap();
    assert_eq!(found.state, state);
    assert_eq!((found.last.index, found.last.leader_id.term), (42, 6));
    assert_eq!((found.committed, found.term), (42, 6));
    assert_eq!(found.membership.voter_ids().collect::<Vec<_>>(), [7]);
    assert!(found.written > SystemTime::UNIX_EPOCH);
}

#[test]
fn a_survivor_has_the_whole_log_and_is_not_changed_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let state = begun(&store);
    let disk = Disk::open(&store.join("log"), &owner()).unwrap();
    let entry = |index, transaction: &Transaction| {
        let command = Encoder::default().command(vec![transaction.clone()], LEVEL);
        let id = LogId::new(LeaderId::new(8, 7), index);
        Entry {
            log_id: id,
            payload: EntryPayload::Normal(command),
        }
    };
    let mut writes = disk.begin(0).unwrap();
    writes.append(&[entry(43, &create("b")), entry(44, &create("c"))]);
    disk.write(writes).unwrap();
    drop(disk);
    for _ in 0..2 {
        let found = survivor(&store, &owner()).unwrap();
        assert_eq!((found.last.index, found.committed, found.term), (44, 42, 8));
        assert_eq!(found.state.revision(), state.revision() + 2);
    }
    // As a power cut leaves it: the last write is not whole, and was never acknowledged.
    let written = fs::read_dir(store.join("log")).unwrap();
    let mut written: Vec<_> = written
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    written.sort();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(written.last().unwrap())
        .unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - 10).unwrap();
    for _ in 0..2 {
        let found = survivor(&store, &owner()).unwrap();
        assert_eq!((found.last.index, found.committed), (42, 42));
        assert_eq!(found.state, state);
    }
    assert_eq!(file.metadata().unwrap().len(), length - 10);
}

#[test]
fn a_log_of_an_earlier_layout_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    drop(rocksdb::DB::open(&options, dir.path().join("log")).unwrap());
    let error = survivor(dir.path(), &owner()).err().unwrap().to_string();
    assert!(error.contains("start the manager once"), "{error}");
}

#[test]
fn a_hole_in_the_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    begun(&store);
    let disk = Disk::open(&store.join("log"), &owner()).unwrap();
    let mut writes = disk.begin(0).unwrap();
    writes.append(&[Entry {
        log_id: LogId::new(LeaderId::new(8, 7), 50),
        payload: EntryPayload::Blank,
    }]);
    disk.write(writes).unwrap();
    drop(disk);
    let error = survivor(&store, &owner()).err().unwrap().to_string();
    assert!(error.contains("T8-N7.50 follows T6-N7.42"), "{error}");
}

#[test]
fn somebody_elses_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    begun(&store);
    let other = Identity {
        raft_id: 8,
        ..owner()
    };
    let error = survivor(&store, &other).err().unwrap();
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
}
