//! The keys that sign tokens: in the cluster's record, sealed. The leader makes the first one; a rotation puts another before it, and the leader
//! takes the old one away when no token of it can be good any more.

use std::{future::pending, time::Duration};

use barge_proto::v1::{ClusterRecord, RotateTokenKeyRequest, TokenKey};
use barge_state::{PODS, RecordKind, State};
use tokio::time::sleep;

use crate::{
    error::ApiError,
    pki::{
        Keyring, Purpose, SealingKey,
        jws::{self, TokenSigner},
    },
    runtime::clock,
    security::issue::not_ready,
    store::{Scope, Store, transaction::Draft},
};

/// The principal that makes and removes them, in the log.
const PRINCIPAL: &str = "controller/token-keys";
/// Seconds that a new key is published before it signs, so that all managers and others who ask for the keys now and then know it by then.
const PUBLISHED: i64 = 300;
/// Seconds until the last token of the key before has ended, and some for clocks that differ.
const OVERLAP: i64 = PUBLISHED + 24 * 3600 + 600;
/// How soon to try again what did not work.
const RETRY: Duration = Duration::from_secs(1);
/// How soon a locked leader looks whether it still is.
const LOCKED: Duration = Duration::from_secs(5);
/// Another request may change the cluster's record at the same time.
const TRIES: usize = 8;

/// The key that signs now: the newest that everybody knows, or the only one.
#[must_use]
pub fn signing(keys: &[TokenKey], now: i64) -> Option<&TokenKey> {
    let known = |key: &&TokenKey| created(key).saturating_add(PUBLISHED) <= now;
    keys.iter().find(known).or_else(|| keys.last())
}

/// The public key of this id.
#[must_use]
pub fn public_key(keys: &[TokenKey], id: &str) -> Option<Vec<u8>> {
    let key = keys.iter().find(|key| key.id == id);
    key.map(|key| key.public_key.clone())
}

/// What signs now.
///
/// # Errors
/// PRECONDITION while there is no key, or this manager is locked; INTERNAL when the sealing key does not open it.
pub fn signer(
    cluster: &ClusterRecord,
    keyring: &Keyring,
    now: i64,
) -> Result<TokenSigner, ApiError> {
    let Some(key) = signing(&cluster.token_keys, now) else {
        return Err(none_yet(cluster));
    };
    let opened = keyring
        .key()?
        .open(Purpose::TokenKey { id: &key.id }, &key.sealed_key)?;
    Ok(TokenSigner::open(&opened)?)
}

fn none_yet(cluster: &ClusterRecord) -> ApiError {
    ApiError::Precondition(match cluster.feature_level < PODS {
        true => "there are no tokens of service accounts before all managers are upgraded: upgrade them first".to_owned(),
        false => "the leader has made no key for tokens yet: it does so within seconds after its election, when it is not locked".to_owned(),
    })
}

fn created(key: &TokenKey) -> i64 {
    key.created.unwrap_or_default().seconds
}

/// A new key, sealed.
fn make(sealing: &SealingKey) -> Result<TokenKey, ApiError> {
    let key = jws::generate()?;
    let signer = TokenSigner::open(&key)?;
    let id = signer.id();
    Ok(TokenKey {
        id: id.to_owned(),
        sealed_key: sealing.seal(Purpose::TokenKey { id }, &key)?,
        public_key: signer.public_key().to_vec(),
        created: Some(clock::now()),
    })
}

/// What the leader has to do.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing, until the cluster's record changes.
    Wait,
    /// Nothing, for so many seconds.
    WaitFor(u64),
    /// There is no key yet.
    Make,
    /// Nobody has a token of the older keys any more.
    Forget,
}

fn step(cluster: &ClusterRecord, now: i64) -> Step {
    match cluster.token_keys.as_slice() {
        _ if cluster.feature_level < PODS => Step::Wait,
        [] => Step::Make,
        [_] => Step::Wait,
        [newest, ..] => {
            let left = created(newest).saturating_add(OVERLAP).saturating_sub(now);
            match u64::try_from(left) {
                Ok(left) if left > 0 => Step::WaitFor(left),
                _ => Step::Forget,
            }
        }
    }
}

/// Makes the first key, and takes old ones away, while this manager leads in `term`. May be dropped at any time.
pub async fn keep(store: Store, keyring: Keyring, term: u64) {
    loop {
        let revision = store.read(State::revision);
        let changes = store.watch(revision, Scope::kinds([RecordKind::Cluster]));
        let cluster = store.read(|state| state.cluster().cloned());
        let Some((cluster, mut changes)) = cluster.zip(changes.ok()) else {
            sleep(RETRY).await;
            continue;
        };
        let step = step(&cluster, clock::now().seconds);
        let ripe = match step {
            Step::Wait => None,
            Step::WaitFor(seconds) => Some(Duration::from_secs(seconds)),
            Step::Make if keyring.is_locked() => Some(LOCKED),
            Step::Make | Step::Forget => {
                let done = change(&store, &keyring, term, &cluster, &step).await;
                if let Err(error) = &done {
                    tracing::warn!(%error, "the keys of service accounts' tokens are not as they should be: trying again");
                }
                Some(if done.is_ok() { Duration::ZERO } else { RETRY })
            }
        };
        let ripe = async {
            match ripe {
                Some(ripe) => sleep(ripe).await,
                None => pending().await,
            }
        };
        // A watch that fell behind begins anew, as does one that saw a change.
        tokio::select! {
            _ = changes.next() => {}
            () = ripe => {}
        }
    }
}

async fn change(
    store: &Store,
    keyring: &Keyring,
    term: u64,
    cluster: &ClusterRecord,
    step: &Step,
) -> Result<(), ApiError> {
    let mut changed = cluster.clone();
    match step {
        Step::Make => changed.token_keys = vec![make(&keyring.key()?)?],
        _ => changed.token_keys.truncate(1),
    }
    let mut draft = Draft::new();
    draft.unchanged(cluster);
    draft.put(changed);
    let mut transaction = draft.build(PRINCIPAL.to_owned(), None);
    transaction.term = term;
    ApiError::check(store.propose(transaction).await?).map(drop)
}

/// Puts another key before the one that is named, and tells the id of the newest.
///
/// # Errors
/// PRECONDITION while there is no key or the last rotation goes on; CONFLICT when others changed the cluster's record all the time.
pub async fn rotate(
    store: &Store,
    keyring: &Keyring,
    by: &str,
    request: &RotateTokenKeyRequest,
) -> Result<String, ApiError> {
    // A leader that just began may not have applied the last one yet.
    store.read_index().await?;
    let sealing = keyring.key()?;
    let mut tries = 0;
    loop {
        let cluster = store.read(|state| state.cluster().cloned());
        let cluster = cluster.ok_or_else(not_ready)?;
        let Some(newest) = cluster.token_keys.first() else {
            return Err(none_yet(&cluster));
        };
        if newest.id != request.replaces {
            return Ok(newest.id.clone());
        }
        if let Step::WaitFor(seconds) = step(&cluster, clock::now().seconds) {
            return Err(ApiError::Precondition(format!(
                "tokens by the key before the present one may be about for {seconds} s more: rotate again after that"
            )));
        }
        let mut changed = ClusterRecord::clone(&cluster);
        let key = make(&sealing)?;
        let id = key.id.clone();
        changed.token_keys.truncate(1);
        changed.token_keys.insert(0, key);
        let mut draft = Draft::new();
        draft.unchanged(&*cluster);
        draft.put(changed);
        let transaction = draft.build(by.to_owned(), None);
        match ApiError::check(store.propose(transaction).await?) {
            Err(ApiError::Conflict(_)) if tries + 1 < TRIES => tries += 1,
            done => return done.map(|_| id),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use barge_proto::v1::Time;

    use super::*;

    fn key(id: &str, created: i64) -> TokenKey {
        TokenKey {
            id: id.to_owned(),
            created: Some(Time {
                seconds: created,
                nanos: 0,
            }),
            ..TokenKey::default()
        }
    }

    fn cluster(level: u32, token_keys: Vec<TokenKey>) -> ClusterRecord {
        ClusterRecord {
            feature_level: level,
            token_keys,
            ..ClusterRecord::default()
        }
    }

    #[test]
    fn a_new_key_signs_when_everybody_knows_it() {
        let keys = [key("new", 1000), key("old", 10)];
        assert_eq!(signing(&keys, 1000 + PUBLISHED - 1).unwrap().id, "old");
        assert_eq!(signing(&keys, 1000 + PUBLISHED).unwrap().id, "new");
        // The first one signs at once.
        assert_eq!(signing(&keys[..1], 1000).unwrap().id, "new");
        assert!(signing(&[], 1000).is_none());
    }

    #[test]
    fn the_leader_makes_one_and_forgets_what_is_too_old_to_be_of_use() {
        assert_eq!(step(&cluster(PODS - 1, vec![]), 0), Step::Wait);
        assert_eq!(step(&cluster(PODS, vec![]), 0), Step::Make);
        assert_eq!(step(&cluster(PODS, vec![key("a", 5)]), 99), Step::Wait);
        let two = cluster(PODS, vec![key("b", 1000), key("a", 5)]);
        assert_eq!(step(&two, 1000 + OVERLAP - 7), Step::WaitFor(7));
        assert_eq!(step(&two, 1000 + OVERLAP), Step::Forget);
    }

    #[test]
    fn what_is_made_opens_for_its_id_and_is_sealed() {
        let sealing = SealingKey::generate();
        let made = make(&sealing).unwrap();
        let opened = sealing
            .open(Purpose::TokenKey { id: &made.id }, &made.sealed_key)
            .unwrap();
        let signer = TokenSigner::open(&opened).unwrap();
        assert_eq!(signer.public_key(), made.public_key);
        assert_eq!(signer.id(), made.id);
        let other = Purpose::TokenKey { id: "other" };
        assert!(sealing.open(other, &made.sealed_key).is_err());
    }
}
