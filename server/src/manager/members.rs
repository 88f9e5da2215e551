//! Keeps the other managers' addresses in a file beside the identity, for a manager that comes back after a long absence.

use barge_client::identity::KeptIdentity;
use barge_state::{RecordKind, State};
use tokio_util::sync::CancellationToken;

use crate::store::{Scope, Store};

/// Keeps the addresses up to date until `stop`.
pub async fn keep(store: Store, identity: KeptIdentity, stop: CancellationToken) {
    let work = async {
        loop {
            let revision = store.read(State::revision);
            let Ok(mut watch) = store.watch(revision, Scope::kinds([RecordKind::Manager])) else {
                // The state is being replaced by a snapshot: what is watched follows in a moment.
                tokio::task::yield_now().await;
                continue;
            };
            loop {
                let now = store.addresses();
                if !now.is_empty() && now != identity.current().members {
                    let identity = identity.clone();
                    let save = move || identity.change(|identity| identity.members = now);
                    match tokio::task::spawn_blocking(save).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "could not remember the managers");
                        }
                        Err(error) => {
                            tracing::warn!(%error, "could not remember the managers");
                        }
                    }
                }
                // One that fell behind begins anew.
                if watch.next().await.is_err() {
                    break;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}
