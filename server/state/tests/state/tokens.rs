//! Join tokens.

use barge_proto::v1::{RefusalReason, Role, TokenRecord, UseToken, change::Change};
use barge_state::State;

use crate::fixtures::*;

fn with_token(uses: u32, expires: i64) -> State {
    state([put(TokenRecord {
        metadata: Some(meta("", "t1", "uid-of-t1")),
        role: Role::Agent.into(),
        secret_sha256: b"secret".to_vec(),
        expires: Some(time(expires)),
        uses,
        ..TokenRecord::default()
    })])
}

fn use_token(secret: &[u8], key: &[u8], uid: &str) -> Change {
    Change::UseToken(UseToken {
        id: "t1".to_owned(),
        secret_sha256: secret.to_vec(),
        public_key_sha256: key.to_vec(),
        uid: uid.to_owned(),
    })
}

#[test]
fn a_token_is_used_as_often_as_it_says() {
    let mut state = with_token(1, 2000);
    accept(&mut state, [use_token(b"secret", b"key", "n1")]);
    let again = accept(&mut state, [use_token(b"secret", b"key", "n1")]);
    assert_eq!(again.changes, [], "the same join again");
    let reason = refuse(&mut state, [use_token(b"secret", b"key", "n2")]);
    assert_eq!(
        reason,
        RefusalReason::Conflict,
        "the key has an identity already"
    );
    let reason = refuse(&mut state, [use_token(b"secret", b"key2", "n2")]);
    assert_eq!(reason, RefusalReason::Token, "used up");
}

#[test]
fn wrong_and_expired_tokens_are_refused_with_their_transaction() {
    let mut state = with_token(5, 1000);
    for secret in [b"secret".as_slice(), b"wrong"] {
        let changes = [put(node("n1")), use_token(secret, b"key", "n1")];
        assert_eq!(refuse(&mut state, changes), RefusalReason::Token);
    }
}
