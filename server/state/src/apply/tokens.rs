//! Using join tokens.

use barge_proto::v1::{Refusal, RefusalReason, TokenUse, UseToken};

use super::{refusal, work::Work};

/// Counts a use of a token. The same key with the same uid has used it already: that changes nothing, so that a
/// join may be repeated.
///
/// # Errors
/// TOKEN when it is unknown, expired or used up; CONFLICT when the key has got another uid with it.
pub fn use_token(work: &mut Work<'_>, used: &UseToken) -> Result<(), Refusal> {
    let refuse = |why: &str| refusal(RefusalReason::Token, format!("the token {} {why}", used.id));
    let token = work.tables.tokens.by_name("", &used.id).cloned();
    // Without the secret, a caller must not learn whether the id exists.
    let Some(token) = token.filter(|token| token.secret_sha256 == used.secret_sha256) else {
        return Err(refuse("is unknown"));
    };
    let earlier = token
        .used_by
        .iter()
        .find(|by| by.public_key_sha256 == used.public_key_sha256);
    match earlier {
        Some(earlier) if earlier.uid == used.uid => return Ok(()),
        Some(earlier) => {
            let message = format!("the key has joined as {} already", earlier.uid);
            return Err(refusal(RefusalReason::Conflict, message));
        }
        None => {}
    }
    let now = (work.now.seconds, work.now.nanos);
    if token
        .expires
        .is_some_and(|expires| (expires.seconds, expires.nanos) <= now)
    {
        return Err(refuse("has expired"));
    }
    if token.used_by.len() >= token.uses as usize {
        return Err(refuse("is used up"));
    }
    let mut counted = token.as_ref().clone();
    counted.used_by.push(TokenUse {
        public_key_sha256: used.public_key_sha256.clone(),
        uid: used.uid.clone(),
    });
    work.write(Some(token), counted);
    Ok(())
}
