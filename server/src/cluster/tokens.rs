//! Join tokens: made, listed, revoked. Only a digest of the secret is kept.

use std::time::{Duration, SystemTime};

use barge_client::token::{Token, ca_digest};
use barge_proto::v1::{
    CreateTokenRequest, CreateTokenResponse, ObjectMeta, Role, TokenInfo, TokenRecord,
};
use barge_state::{Kind, State};
use sha2::{Digest, Sha256};

use super::Parts;
use crate::{
    error::ApiError,
    runtime::clock,
    security::{
        issue::not_ready,
        secret::{check_description, secret, word},
    },
    store::{Store, transaction::Draft},
};

const DEFAULT_TTL: u64 = 3600;
const MAX_TTL: u64 = 30 * 24 * 3600;
/// A manager token is as good as root.
const MAX_MANAGER_USES: u32 = 16;
const MAX_AGENT_USES: u32 = 100_000;
/// More are a program that makes one for each machine; a token admits many.
const MAX_TOKENS: usize = 1000;

/// Makes a token.
///
/// # Errors
/// INVALID for a role, lifetime, number of uses or description that no token has; EXHAUSTED when there are too many.
pub async fn create(
    parts: &Parts,
    by: String,
    request: &CreateTokenRequest,
) -> Result<CreateTokenResponse, ApiError> {
    let id = word::<10>();
    let secret = secret();
    let record = record(request, &id, &secret, SystemTime::now())?;
    let info = info(&record);
    let root = parts.store.read(room)?;
    let mut draft = Draft::new();
    draft.absent::<TokenRecord>("", &id);
    draft.put(record);
    ApiError::check(parts.store.propose(draft.build(by, None)).await?)?;
    let token = Token {
        ca_digest: ca_digest(&root),
        id,
        secret,
    };
    Ok(CreateTokenResponse {
        token: token.to_string(),
        info: Some(info),
    })
}

/// The root that the token will pin, when there is room for a token. Those that have expired are removed by the leader.
fn room(state: &State) -> Result<Vec<u8>, ApiError> {
    if state.list::<TokenRecord>(None).count() >= MAX_TOKENS {
        return Err(ApiError::Exhausted(format!(
            "there are {MAX_TOKENS} tokens: revoke some (barge token list), or make one with more uses"
        )));
    }
    state
        .cluster()
        .and_then(|cluster| cluster.roots.first().cloned())
        .ok_or_else(not_ready)
}

/// The record of a token that is asked for.
fn record(
    request: &CreateTokenRequest,
    id: &str,
    secret: &str,
    now: SystemTime,
) -> Result<TokenRecord, ApiError> {
    let max_uses = match request.role() {
        Role::Manager => MAX_MANAGER_USES,
        Role::Agent => MAX_AGENT_USES,
        _ => {
            return Err(ApiError::invalid(
                "role",
                "tokens are for managers or agents",
            ));
        }
    };
    let uses = request.uses.max(1);
    if uses > max_uses {
        return Err(ApiError::invalid(
            "uses",
            format!("{uses}: at most {max_uses}"),
        ));
    }
    let ttl = match request.ttl_seconds {
        0 => DEFAULT_TTL,
        ttl if ttl > MAX_TTL => {
            return Err(ApiError::invalid(
                "ttl_seconds",
                format!("{ttl}: at most 30 days ({MAX_TTL})"),
            ));
        }
        ttl => ttl,
    };
    check_description(&request.description)?;
    Ok(TokenRecord {
        metadata: Some(ObjectMeta {
            name: id.to_owned(),
            uid: clock::new_uid(),
            creation_timestamp: Some(clock::time(now)),
            ..ObjectMeta::default()
        }),
        role: request.role,
        secret_sha256: Sha256::digest(secret).to_vec(),
        expires: Some(clock::time(now + Duration::from_secs(ttl))),
        used_by: Vec::new(),
        uses,
        description: request.description.clone(),
    })
}

/// The tokens as this manager knows them, expired ones too.
#[must_use]
pub fn list(store: &Store) -> Vec<TokenInfo> {
    store.read(|state| {
        state
            .list::<TokenRecord>(None)
            .map(|record| info(record))
            .collect()
    })
}

/// Removes a token; machines that joined with it stay.
///
/// # Errors
/// NOT_FOUND.
pub async fn revoke(parts: &Parts, by: String, id: &str) -> Result<(), ApiError> {
    let uid = parts
        .store
        .read(|state| {
            state
                .get::<TokenRecord>("", id)
                .map(|token| token.uid().to_owned())
        })
        .ok_or_else(|| ApiError::NotFound(format!("there is no token {id}")))?;
    let mut draft = Draft::new();
    draft.remove::<TokenRecord>(&uid);
    ApiError::check(parts.store.propose(draft.build(by, None)).await?)?;
    Ok(())
}

fn info(record: &TokenRecord) -> TokenInfo {
    let used = u32::try_from(record.used_by.len()).unwrap_or(u32::MAX);
    TokenInfo {
        id: record.meta().name.clone(),
        role: record.role,
        expires: record.expires,
        uses_left: record.uses.saturating_sub(used),
        description: record.description.clone(),
        created: record.meta().creation_timestamp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(role: Role, ttl_seconds: u64, uses: u32) -> CreateTokenRequest {
        CreateTokenRequest {
            role: role.into(),
            ttl_seconds,
            uses,
            description: String::new(),
        }
    }

    #[test]
    fn a_record_keeps_no_secret() {
        let secret = secret();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let record = record(&request(Role::Agent, 0, 0), "id", &secret, now).unwrap();
        assert_eq!(record.uses, 1);
        assert_eq!(record.expires.map(|t| t.seconds), Some(1000 + 3600));
        assert!(!format!("{record:?}").contains(&secret));
        assert_eq!(record.secret_sha256, Sha256::digest(&secret).to_vec());
    }

    #[test]
    fn limits_are_named() {
        let now = SystemTime::now();
        for (bad, field) in [
            (request(Role::Admin, 0, 0), "role"),
            (request(Role::Manager, 0, 17), "uses"),
            (request(Role::Agent, MAX_TTL + 1, 0), "ttl_seconds"),
        ] {
            let error = record(&bad, "id", "secret", now).unwrap_err();
            assert!(matches!(error, ApiError::Invalid(v) if v[0].field == field));
        }
    }

    #[test]
    fn tokens_are_bounded() {
        let mut draft = Draft::new();
        draft.put(barge_proto::v1::ClusterRecord {
            metadata: Some(ObjectMeta {
                name: "cluster".to_owned(),
                uid: "c".to_owned(),
                ..ObjectMeta::default()
            }),
            roots: vec![b"root".to_vec()],
            ..Default::default()
        });
        for number in 0..MAX_TOKENS {
            draft.put(TokenRecord {
                metadata: Some(ObjectMeta {
                    name: format!("t{number}"),
                    uid: format!("u{number}"),
                    ..ObjectMeta::default()
                }),
                ..TokenRecord::default()
            });
        }
        let mut state = State::default();
        let applied = state.apply(1, draft.build("test".to_owned(), None));
        assert_eq!(applied.outcome.refusal, None);
        let error = room(&state).unwrap_err().to_string();
        assert!(error.contains("revoke some"), "{error}");
        let mut draft = Draft::new();
        draft.remove::<TokenRecord>("u7");
        state.apply(2, draft.build("test".to_owned(), None));
        assert_eq!(room(&state).unwrap(), b"root");
    }
}
