//! The credentials of people and programs: made, listed, revoked. Of a bearer token only a digest is kept.

use std::time::{Duration, SystemTime};

use barge_client::token::bearer_token;
use barge_proto::v1::{
    CreateCredentialRequest, CreateCredentialResponse, CredentialInfo, CredentialRecord,
    ObjectMeta, Role, ServiceAccount,
};
use barge_state::{BINDINGS, Kind, State};
use sha2::{Digest, Sha256};

use super::{Parts, holder};
use crate::{
    calls::names::check_dns_label,
    error::ApiError,
    pki::{RequestedKey, Subject},
    runtime::clock,
    security::{
        auth::Access,
        rbac::Identity,
        secret::{check_description, secret},
    },
    store::{Store, transaction::Draft},
};

/// More are a program that makes one for each of its runs.
const MAX_CREDENTIALS: usize = 1000;
const DAY: u64 = 86_400;
const BEARER_TTL: u64 = 365 * DAY;
const MAX_TTL: u64 = 10 * 365 * DAY;

/// Makes a credential.
///
/// # Errors
/// DENIED for another's identity; INVALID for a name, lifetime or description that none has; EXISTS; EXHAUSTED when there are too
/// many.
pub async fn create(
    parts: &Parts,
    by: String,
    access: &Access,
    request: &CreateCredentialRequest,
) -> Result<CreateCredentialResponse, ApiError> {
    let secret = secret();
    let mut record = record(request, &secret, SystemTime::now())?;
    let key = match request.csr.is_empty() {
        true => None,
        false => Some(RequestedKey::from_csr(&request.csr)?),
    };
    // A leader that just began may not have applied the last one yet.
    parts.store.read_index().await?;
    let (cluster_id, roots) = parts.store.read(|state| {
        let identity = holder::identity(state, request)?;
        holder::check(access, state, &request.name, identity.as_ref())?;
        record.identity = identity;
        room_for(state, &record)
    })?;
    let mut answer = CreateCredentialResponse {
        info: Some(info(&record)),
        managers: parts.store.addresses(),
        cluster_id,
        roots,
        ..CreateCredentialResponse::default()
    };
    match key {
        None => answer.bearer_token = bearer_token(record.uid(), &secret),
        Some(key) => {
            // Before the record is written: one that cannot be signed leaves nothing behind.
            let subject = Subject {
                cluster_id: answer.cluster_id.clone(),
                role: record.role(),
                uid: record.uid().to_owned(),
                raft_id: None,
            };
            let issued = parts.issuer.issue(&subject, &key, left(&record))?;
            answer.certificate_chain = issued.certificate_chain;
            answer.roots = issued.roots;
        }
    }
    let mut draft = Draft::new();
    draft.absent::<CredentialRecord>("", &record.meta().name);
    if let Some(identity) = &record.identity {
        draft.needs(BINDINGS);
        // One that is deleted meanwhile takes the credential with it.
        if let Some(account) = &identity.service_account {
            draft.exists::<ServiceAccount>(&account.namespace, &account.name);
        }
    }
    draft.put(record);
    ApiError::check(parts.store.propose(draft.build(by, None)).await?)?;
    Ok(answer)
}

/// The cluster's id and roots, when there is room for the record.
fn room_for(state: &State, record: &CredentialRecord) -> Result<(String, Vec<Vec<u8>>), ApiError> {
    let name = &record.meta().name;
    if state.get::<CredentialRecord>("", name).is_some() {
        return Err(ApiError::Exists(format!(
            "there is a credential {name} already: revoke it first, or choose another name"
        )));
    }
    if state.list::<CredentialRecord>(None).count() >= MAX_CREDENTIALS {
        return Err(ApiError::Exhausted(format!(
            "there are {MAX_CREDENTIALS} credentials: revoke some that are not used any more"
        )));
    }
    let cluster = state
        .cluster()
        .ok_or_else(crate::security::issue::not_ready)?;
    Ok((cluster.uid().to_owned(), cluster.roots.clone()))
}

/// The record of a credential that is asked for.
fn record(
    request: &CreateCredentialRequest,
    secret: &str,
    now: SystemTime,
) -> Result<CredentialRecord, ApiError> {
    check_dns_label("name", &request.name)?;
    check_description(&request.description)?;
    let bearer = request.csr.is_empty();
    let ttl = match (request.ttl_seconds, bearer) {
        (0, true) => Some(BEARER_TTL),
        (0, false) => None,
        (ttl, _) if ttl > MAX_TTL => {
            return Err(ApiError::invalid(
                "ttl_seconds",
                format!("{ttl}: at most 10 years ({MAX_TTL})"),
            ));
        }
        (ttl, _) => Some(ttl),
    };
    Ok(CredentialRecord {
        metadata: Some(ObjectMeta {
            name: request.name.clone(),
            uid: clock::new_uid(),
            creation_timestamp: Some(clock::time(now)),
            ..ObjectMeta::default()
        }),
        role: Role::Admin.into(),
        bearer_sha256: match bearer {
            true => Sha256::digest(secret).to_vec(),
            false => Vec::new(),
        },
        expires: ttl.map(|ttl| clock::time(now + Duration::from_secs(ttl))),
        description: request.description.clone(),
        // By the state.
        identity: None,
    })
}

/// What is left of a credential's life; absent when it does not end.
#[must_use]
pub fn left(record: &CredentialRecord) -> Option<Duration> {
    let expires = record.expires?.seconds;
    let left = expires.saturating_sub(clock::now().seconds);
    Some(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
}

/// The credentials as this manager knows them, expired ones too.
#[must_use]
pub fn list(store: &Store) -> Vec<CredentialInfo> {
    store.read(|state| {
        state
            .list::<CredentialRecord>(None)
            .map(|record| info(record))
            .collect()
    })
}

/// Removes a credential: managers refuse it from now on.
///
/// # Errors
/// NOT_FOUND.
pub async fn revoke(parts: &Parts, by: String, name: &str) -> Result<(), ApiError> {
    parts.store.read_index().await?;
    let uid = parts
        .store
        .read(|state| {
            state
                .get::<CredentialRecord>("", name)
                .map(|record| record.uid().to_owned())
        })
        .ok_or_else(|| ApiError::NotFound(format!("there is no credential {name}")))?;
    let mut draft = Draft::new();
    draft.remove::<CredentialRecord>(&uid);
    ApiError::check(parts.store.propose(draft.build(by, None)).await?)?;
    Ok(())
}

fn info(record: &CredentialRecord) -> CredentialInfo {
    let meta = record.meta();
    let Identity { user, groups } = Identity::of(record);
    CredentialInfo {
        user,
        groups,
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        role: record.role,
        bearer: !record.bearer_sha256.is_empty(),
        expires: record.expires,
        created: meta.creation_timestamp,
        description: record.description.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn request(name: &str, ttl_seconds: u64) -> CreateCredentialRequest {
        CreateCredentialRequest {
            name: name.to_owned(),
            ttl_seconds,
            ..CreateCredentialRequest::default()
        }
    }

    #[test]
    fn a_bearer_token_ends_and_is_kept_as_a_digest() {
        let now = SystemTime::UNIX_EPOCH;
        let record = record(&request("ci", 0), "s3cret", now).unwrap();
        assert_eq!(record.bearer_sha256, Sha256::digest("s3cret").to_vec());
        assert!(!format!("{record:?}").contains("s3cret"));
        let expires = record.expires.unwrap().seconds;
        assert_eq!(u64::try_from(expires), Ok(BEARER_TTL));
    }

    #[test]
    fn a_certificate_lives_until_it_is_told_otherwise() {
        let with_csr = |ttl| CreateCredentialRequest {
            csr: b"x".to_vec(),
            ..request("alice", ttl)
        };
        let now = SystemTime::now();
        let for_ever = record(&with_csr(0), "s", now).unwrap();
        assert_eq!((left(&for_ever), for_ever.bearer_sha256.len()), (None, 0));
        let short = record(&with_csr(60), "s", now).unwrap();
        assert!(left(&short).unwrap() <= Duration::from_secs(60));
    }

    #[test]
    fn what_no_credential_has_is_named() {
        let long = CreateCredentialRequest {
            description: "x".repeat(257),
            ..request("a", 0)
        };
        for (bad, field) in [
            (request("No Name", 0), "name"),
            (request("", 0), "name"),
            (request("a", MAX_TTL + 1), "ttl_seconds"),
            (long, "description"),
        ] {
            let error = record(&bad, "s", SystemTime::now()).unwrap_err();
            assert!(
                matches!(&error, ApiError::Invalid(v) if v[0].field == field),
                "{error}"
            );
        }
    }
}
