#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Who may join, as what, and how often.

use barge_proto::v1::{ObjectMeta, Outcome, Time, Transaction};

use super::*;

const SECRET: &str = "s3cret";

fn record(role: Role, uses: u32) -> TokenRecord {
    TokenRecord {
        metadata: meta("tok", "tok-uid"),
        role: role.into(),
        secret_sha256: digest(SECRET),
        expires: Some(Time {
            seconds: clock::now().seconds + 60,
            nanos: 0,
        }),
        uses,
        ..TokenRecord::default()
    }
}

fn digest(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

fn cluster(pod_cidr: &str, token: TokenRecord) -> State {
    let mut draft = Draft::new();
    draft.put(ClusterRecord {
        metadata: Some(ObjectMeta {
            name: "cluster".to_owned(),
            uid: "c".to_owned(),
            ..ObjectMeta::default()
        }),
        pod_cidr: pod_cidr.to_owned(),
        next_raft_id: 2,
        ..ClusterRecord::default()
    });
    draft.put(token);
    let mut state = State::default();
    assert_eq!(apply(&mut state, draft).refusal, None);
    state
}

fn apply(state: &mut State, draft: Draft) -> Outcome {
    let transaction: Transaction = draft.build("test".to_owned(), None);
    state.apply(1, transaction).outcome
}

fn agent(name: &str) -> JoinRequest {
    JoinRequest {
        feature_level: 0,
        address: "10.0.0.9".to_owned(),
        name: name.to_owned(),
        ..JoinRequest::default()
    }
}

fn manager() -> JoinRequest {
    JoinRequest {
        feature_level: barge_state::LEVEL,
        address: "10.0.0.1:7101".to_owned(),
        ..JoinRequest::default()
    }
}

/// Joins with this key, all the way through apply.
fn join(state: &mut State, request: &JoinRequest, key: &str) -> Result<Subject, ApiError> {
    let admission = plan(state, request, "tok", &digest(SECRET), &digest(key))?;
    if let Some(draft) = admission.draft {
        ApiError::check(apply(state, draft))?;
    }
    Ok(admission.subject)
}

#[test]
fn a_wrong_secret_and_an_unknown_token_are_told_apart_by_nobody() {
    let state = cluster("10.244.0.0/16", record(Role::Agent, 1));
    let ask = |id, secret| {
        plan(&state, &agent("n"), id, &digest(secret), &digest("k"))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(ask("tok", "wrong"), ask("other", SECRET));
}

#[test]
fn an_expired_token_admits_nobody() {
    let mut token = record(Role::Agent, 1);
    token.expires = Some(Time {
        seconds: clock::now().seconds - 1,
        nanos: 0,
    });
    let mut state = cluster("10.244.0.0/16", token);
    let error = join(&mut state, &agent("n"), "k").unwrap_err();
    assert_eq!(error.reason().0, "TOKEN");
    assert!(state.list::<Node>(None).next().is_none());
}

#[test]
fn a_token_that_is_used_up_admits_only_whom_it_admitted() {
    let mut state = cluster("10.244.0.0/16", record(Role::Agent, 1));
    let first = join(&mut state, &agent("n1"), "k1").unwrap();
    let again = join(&mut state, &agent("n1"), "k1").unwrap();
    assert_eq!(first, again);
    let error = join(&mut state, &agent("n2"), "k2").unwrap_err();
    assert_eq!(error.reason().0, "TOKEN");
    assert_eq!(state.list::<Node>(None).count(), 1);
}

#[test]
fn each_node_gets_a_range_until_there_is_none() {
    let mut state = cluster("10.244.0.0/23", record(Role::Agent, 9));
    for name in ["n1", "n2"] {
        join(&mut state, &agent(name), name).unwrap();
    }
    let ranges: Vec<_> = state
        .list::<Node>(None)
        .map(|node| node.spec.clone().unwrap().pod_cidr)
        .collect();
    assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24"]);
    let error = join(&mut state, &agent("n3"), "n3").unwrap_err();
    assert_eq!(error.reason().0, "EXHAUSTED");
}

#[test]
fn two_joins_at_a_time_do_not_get_one_range() {
    let mut state = cluster("10.244.0.0/16", record(Role::Agent, 9));
    let at_once = |name| plan(&state, &agent(name), "tok", &digest(SECRET), &digest(name));
    let (one, two) = (at_once("n1").unwrap(), at_once("n2").unwrap());
    assert_eq!(apply(&mut state, one.draft.unwrap()).refusal, None);
    let refused = ApiError::check(apply(&mut state, two.draft.unwrap())).unwrap_err();
    // Which is what makes the leader try again.
    assert!(matches!(refused, ApiError::Conflict(_)), "{refused}");
    assert!(join(&mut state, &agent("n2"), "n2").is_ok());
}

#[test]
fn the_name_of_a_living_node_is_taken() {
    let mut state = cluster("10.244.0.0/16", record(Role::Agent, 9));
    join(&mut state, &agent("n1"), "k1").unwrap();
    let error = join(&mut state, &agent("n1"), "k2").unwrap_err();
    assert_eq!(error.reason().0, "EXISTS");
    assert!(error.to_string().contains("--node-name"));
    assert!(join(&mut state, &agent("Not A Name"), "k3").is_err());
}

#[test]
fn a_machine_that_was_removed_does_not_come_back_by_its_old_key() {
    let mut state = cluster("10.244.0.0/16", record(Role::Agent, 9));
    let subject = join(&mut state, &agent("n1"), "k1").unwrap();
    let mut draft = Draft::new();
    draft.remove::<Node>(&subject.uid);
    apply(&mut state, draft);
    let error = join(&mut state, &agent("n1"), "k1").unwrap_err();
    assert_eq!(error.reason().0, "TOKEN");
}

#[test]
fn raft_ids_are_given_once() {
    let mut state = cluster("10.244.0.0/16", record(Role::Manager, 9));
    let one = join(&mut state, &manager(), "k1").unwrap();
    let two = join(&mut state, &manager(), "k2").unwrap();
    let again = join(&mut state, &manager(), "k1").unwrap();
    assert_eq!(
        [one.raft_id, two.raft_id, again.raft_id],
        [Some(2), Some(3), Some(2)]
    );
    assert_eq!(state.cluster().unwrap().next_raft_id, 4);
}

#[test]
fn tokens_are_for_one_kind_of_machine() {
    let mut state = cluster("10.244.0.0/16", record(Role::Agent, 9));
    let error = join(&mut state, &manager(), "k").unwrap_err();
    assert!(error.to_string().contains("token is for agents"));
    let mut state = cluster("10.244.0.0/16", record(Role::Manager, 9));
    let error = join(&mut state, &agent("n"), "k").unwrap_err();
    assert!(error.to_string().contains("token is for managers"));
}
