//! Random transactions: the state against the model, and what holds whatever happens.

use std::collections::BTreeMap;

use barge_proto::v1::{
    ManagerRecord, Node, NodeSpec, Precondition, RecordRef, RequestRecord, Time, TokenRecord,
    Transaction, UseToken, change::Change, precondition::Must,
};
use barge_state::{
    Applied, History, Kind, LOSS, NODE_TOMBSTONES, ORDER, RecordKind, State, Stored, limits::Limits,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    fixtures::*,
    indexes,
    model::{Answer, Model, metadata},
};

const LIMITS: Limits = Limits {
    events_per_object: 2,
    events_per_namespace: 3,
    events: 4,
    tombstones_per_node: 2,
    node_tombstones: 1,
    requests: 3,
    slice: barge_state::limits::SLICE,
};

/// One of a few uids, so that changes meet.
fn uid(prefix: &'static str) -> impl Strategy<Value = String> + Clone {
    (0..3u8).prop_map(move |number| format!("{prefix}{number}"))
}

/// A record that sometimes has another record's name, another namespace or a label.
fn named<K: Kind>(record: impl Strategy<Value = K>) -> impl Strategy<Value = Change> {
    (
        record,
        select(vec!["", "", "", "", "", "clash", "other"]),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(mut record, twist, labelled)| {
            let meta = record.meta_mut();
            match twist {
                "clash" => meta.name = "clash".to_owned(),
                "other" if !meta.namespace.is_empty() => meta.namespace = "other".to_owned(),
                _ => {}
            }
            if labelled {
                meta.labels.insert("a".to_owned(), "b".to_owned());
            }
            put(record)
        })
}

fn puts() -> impl Strategy<Value = Change> {
    let owner = prop_oneof![uid("d"), uid("r"), uid("x")];
    let nodes = (uid("n"), any::<bool>(), any::<bool>()).prop_map(|(uid, ready, unschedulable)| {
        let mut node = node(&uid);
        if !ready {
            node.status = None;
        }
        Node {
            spec: Some(NodeSpec {
                unschedulable,
                ..NodeSpec::default()
            }),
            ..node
        }
    });
    let revisions = (
        uid("r"),
        prop_oneof![uid("d"), uid("p")],
        0..3u8,
        any::<i64>(),
    );
    let revisions = revisions.prop_map(|(uid, owner, owned, number)| {
        let (cpu, memory) = if uid == "r0" {
            ("3", "1Gi")
        } else {
            ("500m", "3Gi")
        };
        let mut revision = revision(&uid, cpu, memory);
        // A template never changes its containers.
        match uid.as_str() {
            "r0" => revision = claiming(revision, 80, ""),
            "r1" => revision = claiming(revision, 80, "192.0.2.1"),
            _ => {}
        }
        revision.number = number % 2;
        if owned == 0 {
            revision
        } else {
            owned_by(revision, &owner)
        }
    });
    let pods = (uid("p"), uid("r"), owner, 0..6u8).prop_map(|(uid, template, owner, twist)| {
        let mut pod = pod(&uid, &template);
        if twist % 2 == 1 {
            pod.removed_labels.push("app".to_owned());
        }
        if twist < 2 {
            return pod;
        }
        let mut pod = owned_by(pod, &owner);
        for owner in &mut pod.meta_mut().owner_references {
            owner.controller = Some(twist < 4);
        }
        pod
    });
    let services = (uid("s"), uid("10.96.0."), 0..3i32, vec(uid("d"), 0..3));
    let services = services.prop_map(|(uid, address, port, owners)| {
        let service = service(&uid, if port == 0 { "None" } else { &address }, &[port]);
        owners
            .iter()
            .fold(service, |service, owner| owned_by(service, owner))
    });
    let managers = (uid("m"), 1..3u64).prop_map(|(uid, raft_id)| {
        let metadata = Some(meta("", &uid, &uid));
        ManagerRecord {
            metadata,
            raft_id,
            ..ManagerRecord::default()
        }
    });
    let tokens = uid("t").prop_map(|uid| {
        let metadata = Some(meta("", &uid, &uid));
        TokenRecord {
            metadata,
            uses: 2,
            ..TokenRecord::default()
        }
    });
    let namespaces = select(vec!["default", "other"]).prop_map(namespace);
    prop_oneof![
        1 => named(namespaces),
        4 => named(nodes),
        4 => named((uid("d"), 0..3).prop_map(|(uid, replicas)| deployment(&uid, replicas))),
        2 => named((uid("x"), 0..3).prop_map(|(uid, replicas)| replica_set(&uid, replicas))),
        5 => named(revisions),
        7 => named(pods),
        2 => named(services),
        1 => named(managers),
        1 => select(vec![LOSS - 1, LOSS, ORDER, NODE_TOMBSTONES]).prop_map(|level| put(cluster(level))),
        1 => named(tokens),
    ]
}

fn others() -> impl Strategy<Value = Change> {
    let phases = select(vec![
        "",
        "Pending",
        "Running",
        "Running",
        "Succeeded",
        "Failed",
    ]);
    let numbered = phases.clone();
    let versions = prop::option::weighted(0.9, (0..3u64, 0..4u64));
    let node_status = (uid("n"), any::<bool>()).prop_map(|(uid, ready)| {
        let node = node(&uid);
        put_status(if ready {
            node
        } else {
            Node {
                status: None,
                ..node
            }
        })
    });
    let removals = prop_oneof![
        4 => uid("p").prop_map(|uid| remove(RecordKind::Pod, &uid)),
        2 => uid("r").prop_map(|uid| remove(RecordKind::Revision, &uid)),
        2 => uid("d").prop_map(|uid| remove(RecordKind::Deployment, &uid)),
        1 => uid("x").prop_map(|uid| remove(RecordKind::ReplicaSet, &uid)),
        1 => uid("s").prop_map(|uid| remove(RecordKind::Service, &uid)),
        1 => uid("n").prop_map(|uid| remove(RecordKind::Node, &uid)),
        1 => select(vec!["ns-default", "ns-other"]).prop_map(|uid| remove(RecordKind::Namespace, uid)),
    ];
    let events = (uid("e"), uid("p"), uid("message "), 0..50i64);
    let tokens = (uid("t"), uid("key"), uid("n")).prop_map(|(id, key, uid)| {
        let public_key_sha256 = key.into_bytes();
        Change::UseToken(UseToken {
            id,
            public_key_sha256,
            uid,
            ..UseToken::default()
        })
    });
    prop_oneof![
        8 => (uid("p"), uid("n")).prop_map(|(pod, node)| bind(&pod, &node)),
        5 => (uid("p"), phases).prop_map(|(uid, of)| report(&uid, phase(of))),
        5 => (uid("p"), uid("n"), versions, numbered).prop_map(|(uid, node, version, of)| report_as(&uid, &node, version, phase(of))),
        2 => node_status,
        4 => removals,
        3 => (uid("p"), uid("n"), any::<bool>()).prop_map(|(pod, node, lost)| mark(&pod, &node, lost)),
        2 => (uid("p"), prop::option::of(0..60i64)).prop_map(|(uid, grace)| terminate(&uid, grace)),
        4 => events.prop_map(|(uid, about, message, at)| Change::RecordEvent(event(&uid, &about, &message, at))),
        2 => (uid("p"), uid("n")).prop_map(|(pod, node)| gone(&pod, &node)),
        1 => (0..50i64).prop_map(|at| Change::ForgetEventsBefore(time(at))),
        1 => (0..60u64).prop_map(Change::ForgetRequestsBefore),
        1 => tokens,
    ]
}

/// Transactions as they are proposed; the request's revision is how far its client is behind.
fn transactions() -> impl Strategy<Value = Vec<Transaction>> {
    let changes = vec(prop_oneof![puts(), others()], 1..5);
    let requests = (0..6u8, 0..2u8, 0..6u64).prop_map(|(nonce, body, behind)| RequestRecord {
        nonce: vec![nonce],
        seen_revision: behind,
        body_sha256: vec![body],
    });
    let musts = prop_oneof![
        Just(Must::Absent(true)),
        Just(Must::Exists(true)),
        (1..3i64).prop_map(Must::Generation)
    ];
    let preconditions = (uid("d"), musts).prop_map(|(uid, must)| Precondition {
        target: Some(RecordRef {
            kind: 3,
            uid,
            ..RecordRef::default()
        }),
        must: Some(must),
    });
    let parts = (
        changes,
        prop::option::weighted(0.3, requests),
        prop::option::weighted(0.1, preconditions),
        prop::bool::weighted(0.05),
    );
    let transaction = parts.prop_map(|(changes, request, precondition, old)| Transaction {
        request,
        preconditions: precondition.into_iter().collect(),
        term: if old { TERM - 1 } else { 0 },
        ..tx(changes)
    });
    vec(transaction, 1..40).prop_map(|mut all| {
        for (second, tx) in (1000..).zip(&mut all) {
            tx.time = Some(Time {
                seconds: second,
                nanos: 0,
            });
        }
        all
    })
}

/// Turns "how far behind" into a revision.
fn seen(mut tx: Transaction, revision: u64) -> Transaction {
    if let Some(request) = &mut tx.request {
        request.seen_revision = revision.saturating_sub(request.seen_revision);
    }
    tx
}

fn answer(applied: &Applied) -> Answer {
    let outcome = &applied.outcome;
    match &outcome.refusal {
        Some(refusal) => Answer::Refused(refusal.reason()),
        None if outcome.repeated_request => Answer::Repeated(outcome.revision),
        None => Answer::Applied(outcome.binds.iter().map(String::is_empty).collect()),
    }
}

fn without_versions(state: &State) -> Vec<Stored> {
    let records = state.records().map(|mut record| {
        metadata(&mut record).resource_version.clear();
        Stored::from_record(record).unwrap()
    });
    // The state lists them by name, the model by uid.
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(Stored::key);
    records
}

/// Takes changes to a copy of the records, each of which has to fit.
fn replay(records: &mut BTreeMap<Vec<u8>, Stored>, changes: &[barge_state::Changed]) {
    for change in changes {
        let before = match &change.after {
            Some(after) => {
                assert_eq!(after.meta().resource_version, change.revision.to_string());
                records.insert(change.key(), after.clone())
            }
            None => records.remove(&change.key()),
        };
        assert_eq!(before, change.before);
    }
}

proptest! {
    #[test]
    fn the_state_does_what_the_model_does(transactions in transactions()) {
        let mut state = State::with_limits(LIMITS);
        let mut model = Model::with_limits(LIMITS);
        for tx in transactions {
            let tx = seen(tx, state.revision());
            let before = copy(&state);
            let applied = state.apply(TERM, tx.clone());
            let expected = model.apply(TERM, &tx);
            prop_assert_eq!(answer(&applied), expected.clone(), "{:?}", applied.outcome.refusal);
            if !matches!(expected, Answer::Applied(_)) {
                prop_assert!(state == before, "changed by a transaction that was not applied");
            }
            prop_assert_eq!(without_versions(&state), model.records.clone());
            prop_assert_eq!(state.revision(), model.revision);
            prop_assert_eq!(state.request_floor(), model.floor);
            indexes::check(&state);
        }
    }

    #[test]
    fn replicas_are_equal_also_after_a_restart(transactions in transactions(), restart in 0..40usize) {
        let (mut one, mut two) = (State::with_limits(LIMITS), State::with_limits(LIMITS));
        for (number, tx) in transactions.into_iter().enumerate() {
            let tx = seen(tx, one.revision());
            if number == restart {
                let encoded: Vec<_> = two.stored().map(|record| record.encode()).collect();
                let meta = prost::Message::encode_to_vec(&two.meta());
                // The order in which records are read back does not matter.
                let records = encoded.iter().rev().map(|bytes| Stored::decode(bytes).unwrap());
                let meta = prost::Message::decode(meta.as_slice()).unwrap();
                two = State::restore_stored(records, meta, LIMITS);
                indexes::check(&two);
            }
            prop_assert_eq!(one.apply(TERM, tx.clone()), two.apply(TERM, tx.clone()));
            prop_assert!(one == two);
        }
    }

    #[test]
    fn the_disk_that_follows_the_changes_has_the_state(transactions in transactions()) {
        let mut state = State::with_limits(LIMITS);
        let mut disk = BTreeMap::new();
        let mut requests = BTreeMap::new();
        for tx in transactions {
            let tx = seen(tx, state.revision());
            let applied = state.apply(TERM, tx.clone());
            replay(&mut disk, &applied.changes);
            for nonce in &applied.requests.forgotten {
                let own = tx.request.as_ref().map(|request| &request.nonce);
                prop_assert!(own == Some(nonce) || requests.remove(nonce).is_some());
            }
            if let Some(remembered) = applied.requests.remembered {
                requests.insert(remembered.nonce.clone(), remembered);
            }
            for nonce in &applied.requests.forgotten {
                requests.remove(nonce);
            }
            let mut meta = state.meta();
            meta.requests = requests.values().cloned().collect();
            let restored = State::restore_stored(disk.values().cloned(), meta, LIMITS);
            prop_assert!(restored == state);
        }
    }

    #[test]
    fn a_watch_resumes_from_any_revision(transactions in transactions(), kept in 1..60usize) {
        let mut state = State::with_limits(LIMITS);
        let mut history = History::new(0, usize::MAX, kept);
        let mut all = Vec::new();
        for tx in transactions {
            let tx = seen(tx, state.revision());
            let before = state.revision();
            let applied = state.apply(TERM, tx.clone());
            let revisions: Vec<_> = applied.changes.iter().map(|change| change.revision).collect();
            prop_assert_eq!(revisions, (before + 1..).take(applied.changes.len()).collect::<Vec<_>>());
            history.push(&applied.changes);
            all.extend(applied.changes);
        }
        let current: BTreeMap<_, _> = state.stored().map(|record| (record.key(), record)).collect();
        for start in 0..=state.revision() {
            let Ok(rest) = history.since(start) else {
                prop_assert!(start < history.floor());
                continue;
            };
            let rest: Vec<_> = rest.cloned().collect();
            let mut records = BTreeMap::new();
            let split = all.partition_point(|change| change.revision <= start);
            replay(&mut records, &all[..split]);
            replay(&mut records, &rest);
            prop_assert_eq!(&records, &current);
        }
    }

    #[test]
    fn a_request_is_applied_at_most_once(deliveries in vec((0..8usize, any::<bool>()), 1..60)) {
        let mut state = State::with_limits(LIMITS);
        accept(&mut state, [put(deployment("d0", 0))]);
        // Each request adds one; what it saw is fixed when it is first sent, as a client does.
        let mut sent: BTreeMap<usize, u64> = BTreeMap::new();
        let mut applied = BTreeMap::new();
        let mut total = 0;
        for (number, noop) in deliveries {
            let seen_revision = *sent.entry(number).or_insert(state.revision());
            let replicas = if noop { total } else { total + 1 };
            let request = RequestRecord { nonce: vec![number as u8], seen_revision, body_sha256: vec![] };
            let tx = Transaction { request: Some(request), ..tx([put(deployment("d0", replicas))]) };
            let outcome = state.apply(TERM, tx.clone()).outcome;
            if outcome.refusal.is_none() && !outcome.repeated_request {
                prop_assert_eq!(applied.insert(number, outcome.revision), None, "applied twice");
                total = replicas;
            } else if outcome.repeated_request {
                prop_assert_eq!(applied.get(&number), Some(&outcome.revision));
            }
        }
    }
}
