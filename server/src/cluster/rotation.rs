//! Replacing the CA, in three changes of one list: the cluster's roots, the first of which signs.
//!
//! `[old]`, `[old, new]`, `[new, old]`, `[new]`. After each change, every process with a different list renews. The renewal brings
//! the new list and a certificate of its first root. So a process that has the list has the certificate, too, and reports
//! only the list's digest. The leader makes the next change when [`step`] finds that all have followed the one before. All that this needs
//! is in the state or comes again with the next life sign, so a new leader goes on wherever the last one was interrupted.
//!
//! While the new root signs, its certificates come with a certificate of the new root by the old one ([`Authority::vouch_for`]): agents that were
//! away, credentials that were not used and join tokens that pin the old root go on working until the old root goes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use barge_client::{
    identity::{KeptIdentity, Validity, roots_sha256},
    token::ca_digest,
};
use barge_proto::v1::{
    CaProgress, CaRotated, CaRotation, CaRotationPhase, CaStatus, ClusterRecord, ManagerRecord,
    ManagerRole, Node, RotateCaRequest, Time, TokenRecord,
};
use barge_state::{Kind, RecordKind, State, node_is_ready};
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::time::sleep;

use self::step::{Agent, Manager, Step, both_until, next};
use super::{Parts, status};
use crate::{
    error::ApiError,
    life::Heard,
    net::Dialer,
    pki::{Authority, Purpose, SealingKey},
    runtime::clock,
    security::issue::not_ready,
    store::{Scope, Store, transaction::Draft},
};

mod step;

/// The principal of changes that are made here.
const PRINCIPAL: &str = "controller/ca-rotation";
/// How often the leader checks which managers and agents have followed.
const LOOK: Duration = Duration::from_millis(500);
/// How long both roots are trusted at least, unless the command says otherwise: for the credentials of people, who are not
/// always there.
const OVERLAP: u64 = 24 * 3600;
const MAX_SECONDS: u64 = 365 * 24 * 3600;
/// Another request may change the cluster's record at the same time.
const TRIES: usize = 8;

/// The managers and agents that have not followed, as this process saw while it leads; nothing when it does not lead or nothing is rotated. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Missing(Arc<Mutex<Option<CaProgress>>>);

impl Missing {
    /// What was seen last.
    #[must_use]
    pub fn get(&self) -> Option<CaProgress> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// This manager does not lead any more.
    pub fn clear(&self) {
        self.set(None);
    }

    fn set(&self, seen: Option<CaProgress>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

/// Begins a rotation, or changes the times of the one that goes on.
///
/// # Errors
/// INVALID for times that are too long; CONFLICT when others changed the cluster's record all the time.
pub async fn begin(parts: &Parts, by: String, request: &RotateCaRequest) -> Result<(), ApiError> {
    for (field, seconds) in [
        ("overlap_seconds", request.overlap_seconds),
        ("leave_behind_seconds", request.leave_behind_seconds),
    ] {
        if let Some(seconds) = seconds.filter(|seconds| *seconds > MAX_SECONDS) {
            return Err(ApiError::invalid(
                field,
                format!("{seconds}: at most 365 days ({MAX_SECONDS})"),
            ));
        }
    }
    // A leader that just began may not have applied the last one yet.
    parts.store.read_index().await?;
    let sealing_key = parts.issuer.keyring().key()?;
    let mut tries = 0;
    loop {
        let cluster = parts
            .store
            .read(|state| state.cluster().map(|cluster| ClusterRecord::clone(cluster)))
            .ok_or_else(not_ready)?;
        let mut draft = Draft::new();
        draft.unchanged(&cluster);
        let Some(begun) = begun(cluster, &sealing_key, request, SystemTime::now())? else {
            return Ok(());
        };
        draft.put(begun);
        let transaction = draft.build(by.clone(), None);
        match ApiError::check(parts.store.propose(transaction).await?) {
            Err(ApiError::Conflict(_)) if tries + 1 < TRIES => tries += 1,
            done => return done.map(drop),
        }
    }
}

/// The cluster with a rotation as it is asked for; nothing when there is nothing to change.
fn begun(
    mut cluster: ClusterRecord,
    sealing_key: &SealingKey,
    request: &RotateCaRequest,
    now: SystemTime,
) -> Result<Option<ClusterRecord>, ApiError> {
    let leave_behind_after = request
        .leave_behind_seconds
        .map(|seconds| clock::time(now + Duration::from_secs(seconds)));
    if let Some(rotation) = &mut cluster.ca_rotation {
        let before = rotation.clone();
        if let Some(overlap) = request.overlap_seconds {
            rotation.overlap_seconds = overlap;
        }
        if leave_behind_after.is_some() {
            rotation.leave_behind_after = leave_behind_after;
        }
        return Ok((*rotation != before).then_some(cluster));
    }
    let old = cluster.roots.first().ok_or_else(not_ready)?;
    if ca_digest(old)[..] != request.replaces_sha256[..] {
        return Ok(None);
    }
    let key = sealing_key.open(Purpose::AuthorityKey, &cluster.sealed_ca_key)?;
    let old = Authority::open(old, &key)?;
    let new = Authority::create(cluster.uid(), now)?;
    cluster.ca_rotation = Some(CaRotation {
        phase: CaRotationPhase::Spreading.into(),
        begun: Some(clock::time(now)),
        sealed_next_key: sealing_key.seal(Purpose::AuthorityKey, new.key())?,
        cross_certificate: old.vouch_for(&new, now)?.to_vec(),
        signs_since: None,
        overlap_seconds: request.overlap_seconds.unwrap_or(OVERLAP),
        leave_behind_after,
    });
    cluster.roots = vec![old.root().to_vec(), new.root().to_vec()];
    Ok(Some(cluster))
}

/// The new root signs from now on. The old one's key is of no use any more, and goes.
fn signing(cluster: &ClusterRecord, now: Time) -> ClusterRecord {
    let mut cluster = cluster.clone();
    if let Some(rotation) = &mut cluster.ca_rotation {
        cluster.roots.reverse();
        cluster.sealed_ca_key = std::mem::take(&mut rotation.sealed_next_key);
        rotation.phase = CaRotationPhase::Renewing.into();
        rotation.signs_since = Some(now);
    }
    cluster
}

/// The old root is not trusted any more.
fn finished(cluster: &ClusterRecord, left: CaProgress, now: Time) -> ClusterRecord {
    let mut cluster = cluster.clone();
    cluster.roots.truncate(1);
    cluster.ca_rotation = None;
    cluster.last_ca_rotation = Some(CaRotated {
        finished: Some(now),
        left_behind: left.missing_nodes,
        left_behind_count: left.missing_node_count,
    });
    cluster
}

/// What the leader looks at.
#[derive(Clone)]
pub struct Rotator {
    /// The state.
    pub store: Store,
    /// The way to the other managers.
    pub dialer: Dialer,
    /// The identity of this manager.
    pub identity: KeptIdentity,
    /// What nodes say that they trust.
    pub heard: Heard,
    /// Who is missing.
    pub missing: Missing,
}

impl Rotator {
    /// Goes on with a rotation, for as long as this manager leads in this term. May be dropped at any time.
    pub async fn run(self, term: u64) {
        loop {
            // What earlier leaders wrote has to be known first.
            if let Err(error) = self.store.read_index().await {
                tracing::debug!(%error, "the CA is not looked after yet");
                sleep(LOOK).await;
                continue;
            }
            let revision = self.store.read(State::revision);
            let Ok(mut changes) = self
                .store
                .watch(revision, Scope::kinds([RecordKind::Cluster]))
            else {
                continue;
            };
            while let Some(cluster) = self.store.read(|state| state.cluster().cloned()) {
                let Some(rotation) = &cluster.ca_rotation else {
                    break;
                };
                if let Err(error) = self.look(term, &cluster, rotation).await {
                    tracing::warn!(%error, "the rotation of the CA did not go on: trying again");
                }
                sleep(LOOK).await;
            }
            self.missing.set(None);
            // Until there is something to do. One that fell behind begins anew.
            let _ = changes.next().await;
        }
    }

    async fn look(
        &self,
        term: u64,
        cluster: &ClusterRecord,
        rotation: &CaRotation,
    ) -> Result<(), ApiError> {
        let wanted = roots_sha256(&cluster.roots);
        let (managers, agents) = (self.managers().await, self.agents());
        let now = clock::now();
        let (step, progress) = next(rotation, &wanted, &managers, &agents, now.seconds);
        self.missing.set(Some(progress.clone()));
        let mut draft = Draft::new();
        draft.unchanged(cluster);
        match step {
            Step::Wait => return Ok(()),
            Step::Sign => draft.put(signing(cluster, now)),
            Step::Finish => {
                // They pin a root that no manager shows any more.
                for uid in self.store.read(|state| tokens_before(state, rotation)) {
                    draft.remove::<TokenRecord>(&uid);
                }
                draft.put(finished(cluster, progress.clone(), now));
            }
        }
        let mut transaction = draft.build(PRINCIPAL.to_owned(), None);
        transaction.term = term;
        ApiError::check(self.store.propose(transaction).await?)?;
        let left_behind = progress.missing_nodes;
        match step {
            Step::Finish => tracing::info!(?left_behind, "the old CA is not trusted any more"),
            _ => tracing::info!(?left_behind, "the new CA signs from now on"),
        }
        Ok(())
    }

    /// All managers, also those that have an identity and do not serve yet.
    async fn managers(&self) -> Vec<Manager> {
        let records: Vec<_> = self.store.read(|state| {
            let records = state.list::<ManagerRecord>(None);
            let stay = records.filter(|record| record.role() != ManagerRole::Removed);
            stay.map(|record| (record.uid().to_owned(), record.address.clone()))
                .collect()
        });
        let own = self.identity.current();
        let mut answers = FuturesOrdered::new();
        for (uid, address) in records {
            let own = own.clone();
            answers.push_back(async move {
                let roots_sha256 = match uid == own.uid {
                    true => Some(own.roots_sha256().to_vec()),
                    false => status::ask(&self.dialer, &address)
                        .await
                        .ok()
                        .map(|status| status.roots_sha256),
                };
                Manager {
                    address,
                    roots_sha256,
                }
            });
        }
        answers.collect().await
    }

    fn agents(&self) -> Vec<Agent> {
        self.store.read(|state| {
            state
                .list::<Node>(None)
                .map(|node| Agent {
                    name: node.meta().name.clone(),
                    ready: node_is_ready(node),
                    roots_sha256: self.heard.trusts(node.uid()).map(|r| r.to_vec()),
                })
                .collect()
        })
    }
}

/// The uids of the tokens that pin the old root.
fn tokens_before(state: &State, rotation: &CaRotation) -> Vec<String> {
    let key = |time: Option<Time>| time.map(|time| (time.seconds, time.nanos));
    state
        .list::<TokenRecord>(None)
        .filter(|token| key(token.meta().creation_timestamp) <= key(rotation.signs_since))
        .map(|token| token.uid().to_owned())
        .collect()
}

/// The CA as this manager knows it, and who is missing as `progress` of the leader has it.
#[must_use]
pub fn of_state(state: &State, progress: Option<CaProgress>) -> Option<CaStatus> {
    let cluster = state.cluster()?;
    let rotation = cluster.ca_rotation.clone();
    let root = cluster.roots.first()?;
    let (progress, rotation) = match rotation {
        Some(rotation) => (progress, rotation),
        None => (None, CaRotation::default()),
    };
    Some(CaStatus {
        roots_sha256: cluster
            .roots
            .iter()
            .map(|root| ca_digest(root).to_vec())
            .collect(),
        expires: Validity::of(root)
            .ok()
            .map(|validity| clock::time(validity.until)),
        phase: rotation.phase,
        begun: rotation.begun,
        both_until: both_until(&rotation).map(|seconds| Time { seconds, nanos: 0 }),
        progress,
        last: cluster.last_ca_rotation.clone(),
        leave_behind_after: rotation.leave_behind_after,
    })
}

/// Has this manager trust, and sign itself a certificate of, what the cluster's record says, until it is dropped.
pub async fn follow(store: Store, wanted: tokio::sync::watch::Sender<barge_client::renew::Wanted>) {
    loop {
        // A manager that was away knows of nothing newer than what it has on disk, which its own identity may be ahead of.
        if store.read_index().await.is_err() {
            sleep(LOOK).await;
            continue;
        }
        let revision = store.read(State::revision);
        let Ok(mut changes) = store.watch(revision, Scope::kinds([RecordKind::Cluster])) else {
            continue;
        };
        loop {
            let roots = store.read(|state| state.cluster().map(|c| roots_sha256(&c.roots)));
            wanted.send_if_modified(|wanted| {
                let changed = roots.is_some() && wanted.roots_sha256 != roots;
                if changed {
                    wanted.roots_sha256 = roots;
                }
                changed
            });
            if changes.next().await.is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
