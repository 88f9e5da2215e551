use barge_proto::v1::{ClusterRecord, Namespace, ObjectMeta};

use super::*;

fn encoded(record: record::Record) -> Vec<u8> {
    Record {
        record: Some(record),
    }
    .encode_to_vec()
}

fn meta(uid: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: uid.to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    })
}

fn header() -> BackupHeader {
    BackupHeader {
        cluster_id: "c".to_owned(),
        revision: 77,
        ..BackupHeader::default()
    }
}

/// More than one batch of each.
fn backup() -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), header()).unwrap();
    let cluster = ClusterRecord {
        metadata: meta("c"),
        ..ClusterRecord::default()
    };
    writer
        .record(encoded(record::Record::Cluster(cluster)))
        .unwrap();
    for number in 0..5 {
        let namespace = Namespace {
            metadata: meta(&"n".repeat(100_000 + number)),
            ..Namespace::default()
        };
        let record = encoded(record::Record::Namespace(namespace));
        writer.record(record).unwrap();
    }
    for number in 0..3000_u64 {
        let request = RememberedRequest {
            revision: number,
            ..RememberedRequest::default()
        };
        writer.request(request).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn comes_back_as_it_was_written() {
    let bytes = backup();
    let (mut records, mut requests) = (Vec::new(), Vec::new());
    let summary = read(
        bytes.as_slice(),
        |record| records.push(record),
        |request| requests.push(request.revision),
    )
    .unwrap();
    assert_eq!(summary.header, header());
    assert_eq!((summary.records, summary.requests), (6, 3000));
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(records.len(), 6);
    assert_eq!(requests, (0..3000).collect::<Vec<_>>());
}

#[test]
fn is_found_to_be_cut_wherever_it_is_cut() {
    let bytes = backup();
    for end in (0..bytes.len()).step_by(4099).chain([bytes.len() - 1]) {
        let error = verify(&bytes[..end]).unwrap_err();
        assert!(
            matches!(
                error,
                BackupError::NotABackup | BackupError::Truncated { .. }
            ),
            "{end}: {error}"
        );
    }
    let long = [bytes.as_slice(), b"x"].concat();
    assert!(verify(long.as_slice()).is_err());
}

#[test]
fn every_bit_counts() {
    let bytes = backup();
    let ends = (0..200).chain(bytes.len() - 200..bytes.len());
    for at in ends.chain((200..bytes.len() - 200).step_by(997)) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(verify(bad.as_slice()).is_err(), "byte {at}");
    }
}

#[test]
fn what_is_something_else_is_called_so() {
    assert!(matches!(
        verify(&b"PK\x03\x04 and so on"[..]),
        Err(BackupError::NotABackup)
    ));
    let mut newer = backup();
    newer[11] = 9;
    let error = verify(newer.as_slice()).unwrap_err();
    assert!(matches!(error, BackupError::Format { found: 9 }), "{error}");
}

#[test]
fn frames_of_two_backups_do_not_mix() {
    let mut one = Writer::begin(Vec::new(), header()).unwrap();
    one.request(RememberedRequest::default()).unwrap();
    let one = one.finish().unwrap();
    let two = BackupHeader {
        revision: 78,
        ..header()
    };
    let mut two = Writer::begin(Vec::new(), two).unwrap();
    two.request(RememberedRequest::default()).unwrap();
    let two = two.finish().unwrap();
    assert_eq!(one.len(), two.len());
    let half = one.len() / 2;
    assert!(verify([&one[..half], &two[half..]].concat().as_slice()).is_err());
}
