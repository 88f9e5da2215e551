//! Locking: every manager keeps its sealing key under a passphrase. After a start it has no key until a person sends the passphrase.
//!
//! The cluster's record says whether the lock is on, and holds the key in the form in which managers keep it. Each manager writes its own file accordingly
//! ([`follow`]). A locked manager takes part in Raft and answers every request that needs no key, so a majority does not wait for people.

use std::time::Duration;

use barge_proto::v1::PassphraseSealed;
use barge_state::{RecordKind, State};
use tokio_util::sync::CancellationToken;

use super::{Parts, record};
use crate::{
    error::ApiError,
    pki::{Keyring, PkiError, Purpose, SealingKey, passphrase},
    security::issue::not_ready,
    store::{Scope, Store},
};

/// After something that did not work.
const AGAIN: Duration = Duration::from_secs(2);

/// Locks, or changes the passphrase.
///
/// # Errors
/// INVALID for an empty passphrase; PRECONDITION while this manager is locked.
pub async fn lock(parts: &Parts, by: String, passphrase: String) -> Result<(), ApiError> {
    if passphrase.is_empty() {
        return Err(ApiError::invalid("passphrase", "must not be empty"));
    }
    let key = parts.issuer.keyring().key()?;
    let sealed = expensive(parts, move || passphrase::seal(&key, &passphrase)).await??;
    record::change(&parts.store, &by, |cluster| {
        cluster.locked_key = Some(sealed.clone());
        Ok(())
    })
    .await
}

/// Gives this manager its key back.
///
/// # Errors
/// INVALID for another passphrase; EXHAUSTED while one is being tried; NO_QUORUM while this manager has no state.
pub async fn unlock(parts: &Parts, passphrase: String) -> Result<(), ApiError> {
    let keyring = parts.issuer.keyring();
    if !keyring.is_locked() {
        return Ok(());
    }
    let cluster = parts
        .store
        .read(|state| state.cluster().cloned())
        .ok_or_else(not_ready)?;
    // The passphrase may have been changed, or forgotten, since this manager wrote its file.
    let mut forms: Vec<_> = cluster.locked_key.iter().cloned().collect();
    forms.extend(
        keyring
            .under_passphrase()
            .filter(|own| !forms.contains(own)),
    );
    let key = expensive(parts, move || opened(&forms, &passphrase)).await??;
    key.open(Purpose::AuthorityKey, &cluster.sealed_ca_key)?;
    keyring.unlock(key);
    tracing::info!("this manager was unlocked");
    Ok(())
}

/// Ends it: managers that know their keys keep them in clear again.
///
/// # Errors
/// INVALID for another passphrase; EXHAUSTED while one is being tried.
pub async fn forget(parts: &Parts, by: String, passphrase: String) -> Result<(), ApiError> {
    // A leader that just began may not have applied that it was locked.
    parts.store.read_index().await?;
    let locked = parts.store.read(|state| {
        state
            .cluster()
            .and_then(|cluster| cluster.locked_key.clone())
    });
    let Some(locked) = locked else {
        return Ok(());
    };
    let form = [locked.clone()];
    expensive(parts, move || opened(&form, &passphrase)).await??;
    record::change(&parts.store, &by, |cluster| {
        if cluster
            .locked_key
            .as_ref()
            .is_some_and(|now| *now != locked)
        {
            let what = "the passphrase was changed meanwhile: try again with the new one";
            return Err(ApiError::Conflict(what.to_owned()));
        }
        cluster.locked_key = None;
        Ok(())
    })
    .await
}

/// The key, by the first form that this passphrase opens.
fn opened(forms: &[PassphraseSealed], passphrase: &str) -> Result<SealingKey, ApiError> {
    for form in forms {
        match passphrase::open(form, passphrase) {
            Ok(key) => return Ok(key),
            Err(PkiError::Sealed) => {}
            Err(error) => return Err(ApiError::Internal(error.to_string())),
        }
    }
    Err(ApiError::invalid(
        "passphrase",
        "this is not the passphrase that the cluster was locked with; nothing was changed",
    ))
}

/// Argon2id takes its time and its memory: one at a time.
async fn expensive<T: Send + 'static>(
    parts: &Parts,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let permit = parts.unlocking.clone().try_acquire_owned().map_err(|_| {
        ApiError::Exhausted("another passphrase is being tried at this manager: try again".into())
    })?;
    let work = move || {
        let _one = permit;
        work()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))
}

/// Keeps the file of the key as the cluster's record says, until `stop`.
pub async fn follow(store: Store, keyring: Keyring, stop: CancellationToken) {
    let work = async {
        loop {
            let revision = store.read(State::revision);
            let Ok(mut changes) = store.watch(revision, Scope::kinds([RecordKind::Cluster])) else {
                // The state is being replaced by a snapshot: what is watched follows in a moment.
                tokio::task::yield_now().await;
                continue;
            };
            let done = keep(&store, &keyring).await;
            if let Err(error) = &done {
                tracing::warn!(%error, "the sealing key's file could not be made what it should be; trying again");
            }
            tokio::select! {
                // Whatever it is, it is read anew; one that fell behind, too.
                _ = changes.next() => {}
                () = keyring.unlocked() => {}
                () = tokio::time::sleep(AGAIN), if done.is_err() => {}
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn keep(store: &Store, keyring: &Keyring) -> Result<(), ApiError> {
    let wanted = |state: &State| state.cluster().map(|cluster| cluster.locked_key.clone());
    let is_so = |wanted: &Option<PassphraseSealed>| keyring.under_passphrase() == *wanted;
    if keyring.is_locked() || store.read(wanted).is_none_or(|wanted| is_so(&wanted)) {
        return Ok(());
    }
    // Never by what was the case before this manager was started.
    store.read_index().await?;
    let Some(wanted) = store.read(wanted) else {
        return Ok(());
    };
    let keyring = keyring.clone();
    tokio::task::spawn_blocking(move || keyring.keep(wanted.as_ref()))
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?
        .map_err(|error| ApiError::Internal(format!("sealing.key: {error}")))
}
