//! Remembering the other managers' addresses beside the identity: after a long absence they are where to ask.

use std::path::PathBuf;

use barge_client::identity::Identity;
use barge_state::{RecordKind, State};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::status::members,
    store::{Scope, Store},
};

/// Keeps the addresses up to date until `stop`.
pub async fn keep(store: Store, identity: Identity, dir: PathBuf, stop: CancellationToken) {
    let work = async {
        let mut identity = identity;
        loop {
            let revision = store.read(State::revision);
            let Ok(mut watch) = store.watch(revision, Scope::kinds([RecordKind::Manager])) else {
                continue;
            };
            loop {
                let now: Vec<_> = members(&store).into_iter().map(|m| m.address).collect();
                if !now.is_empty() && now != identity.members {
                    let (mut saved, dir) = (identity.clone(), dir.clone());
                    let addresses = now.clone();
                    let save = move || saved.save_members(&dir, addresses);
                    match tokio::task::spawn_blocking(save).await {
                        Ok(Ok(())) => identity.members = now,
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
