//! Requests apply at most once.

use barge_proto::v1::{RefusalReason, RequestRecord, Transaction, change::Change};
use barge_state::{ORDER, State, limits::Limits};

use crate::fixtures::*;

fn request(nonce: &str, seen_revision: u64, body: &str, replicas: i32) -> Transaction {
    let request = RequestRecord {
        nonce: nonce.as_bytes().to_vec(),
        seen_revision,
        body_sha256: body.as_bytes().to_vec(),
    };
    Transaction {
        request: Some(request),
        ..tx([put(deployment("d1", replicas))])
    }
}

#[test]
fn a_repeated_request_gets_its_earlier_answer() {
    let mut state = State::default();
    let first = state.apply(TERM, request("a", 0, "x", 1));
    assert!(first.requests.remembered.is_some());
    accept(&mut state, [put(deployment("d1", 2))]);
    let again = state.apply(TERM + 1, request("a", 0, "x", 1));
    assert_eq!(again.changes, []);
    assert!(again.outcome.repeated_request);
    assert_eq!(again.outcome.revision, first.outcome.revision);
    assert_eq!(state.revision(), 2);
}

#[test]
fn an_id_is_for_one_request_of_one_caller() {
    let mut state = State::default();
    state.apply(TERM, request("a", 0, "x", 1));
    let other_body = request("a", 0, "y", 2);
    assert_eq!(
        refuse_tx(&mut state, &other_body).reason(),
        RefusalReason::RequestReused
    );
    let other_caller = Transaction {
        principal: "admin/2".to_owned(),
        ..request("a", 0, "x", 1)
    };
    assert_eq!(
        refuse_tx(&mut state, &other_caller).reason(),
        RefusalReason::RequestReused
    );
}

#[test]
fn a_refused_request_may_be_tried_again() {
    let mut state = state([put(node("n1"))]);
    let wrong_term = Transaction {
        term: TERM + 1,
        ..request("a", 0, "x", 1)
    };
    assert_eq!(
        refuse_tx(&mut state, &wrong_term).reason(),
        RefusalReason::WrongTerm
    );
    assert_eq!(
        state.apply(TERM, request("a", 0, "x", 1)).outcome.refusal,
        None
    );
}

#[test]
fn an_id_that_may_be_forgotten_is_refused() {
    let mut state = State::with_limits(Limits {
        requests: 2,
        ..Limits::default()
    });
    for (number, nonce) in ["a", "b", "c"].into_iter().enumerate() {
        state.apply(TERM, request(nonce, 0, "x", number as i32 + 1));
    }
    assert_eq!(state.request_floor(), 2);
    assert_eq!(
        refuse_tx(&mut state, &request("a", 0, "x", 1)).reason(),
        RefusalReason::RequestExpired
    );
    assert_eq!(
        refuse_tx(&mut state, &request("new", 1, "x", 9)).reason(),
        RefusalReason::RequestExpired
    );
    assert!(
        state
            .apply(TERM, request("b", 0, "x", 2))
            .outcome
            .repeated_request
    );
    let last = state.apply(TERM, request("new", 3, "x", 9));
    assert_eq!(last.requests.forgotten, [b"b".to_vec()]);
    assert_eq!(last.outcome.refusal, None);
    let future = request("future", 99, "x", 1);
    assert_eq!(
        refuse_tx(&mut state, &future).reason(),
        RefusalReason::Invalid
    );
}

#[test]
fn old_answers_are_forgotten_in_slices() {
    let mut state = State::with_limits(Limits {
        slice: 2,
        ..Limits::default()
    });
    accept(&mut state, [put(cluster(ORDER))]);
    for (number, nonce) in ["a", "b", "c", "d"].into_iter().enumerate() {
        state.apply(TERM, request(nonce, 1, "x", number as i32 + 1));
    }
    // The deployment was written at 2, 3, 4 and 5.
    assert_eq!(state.oldest_request(), Some(2));
    let forget = |state: &mut State, before| {
        let applied = accept(state, [Change::ForgetRequestsBefore(before)]);
        (applied.requests.forgotten, state.request_floor())
    };
    let nonces = |all: &[&str]| {
        all.iter()
            .map(|nonce| nonce.as_bytes().to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(forget(&mut state, 2), (nonces(&[]), 0));
    assert_eq!(forget(&mut state, 3), (nonces(&["a"]), 3));
    assert_eq!(forget(&mut state, u64::MAX), (nonces(&["b", "c"]), 5));
    assert_eq!(
        state.requests_size().0,
        1,
        "what was answered just now stays"
    );
    assert_eq!(forget(&mut state, u64::MAX), (nonces(&[]), 5));
    assert_eq!(
        refuse_tx(&mut state, &request("a", 1, "x", 1)).reason(),
        RefusalReason::RequestExpired
    );
    let new = state.apply(TERM, request("new", 5, "x", 9));
    assert_eq!(new.outcome.refusal, None);
}

#[test]
fn requests_that_change_nothing_do_not_shut_the_door() {
    let mut state = State::with_limits(Limits {
        requests: 2,
        ..Limits::default()
    });
    for number in 0..10 {
        let seen = state.revision();
        let applied = state.apply(TERM, request(&number.to_string(), seen, "x", 1));
        assert_eq!(applied.outcome.refusal, None, "request {number}");
    }
    assert!(state.request_floor() <= state.revision());
}
