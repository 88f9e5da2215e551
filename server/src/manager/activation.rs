//! Activates this manager: it reports its address to the leader until it has its wanted role. When it hears no other manager, it asks again,
//! because it may have been removed.

use std::{collections::BTreeSet, time::Duration};

use barge_client::{backoff::Backoff, channel::root_cause, identity::Identity};
use barge_proto::v1::{ActivateRequest, ManagerRecord, ManagerRole, cluster_client::ClusterClient};
use barge_state::{Kind, LEVEL, RecordKind, State};
use tokio::time::{sleep, timeout};

use crate::{
    error::{ADVERTISE_UNREACHABLE, REVOKED, reason_of},
    net::Dialer,
    store::{Scope, Store},
};

/// For one manager to take note.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two rounds of asking: the first time, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// A manager that has been on its own for this long asks what has become of it.
const DOUBT: Duration = Duration::from_secs(2);

/// Who this manager is, and how it reaches the others.
pub struct Own {
    /// Its state.
    pub store: Store,
    /// The way to the others.
    pub dialer: Dialer,
    /// Its identity.
    pub identity: Identity,
    /// Where it serves.
    pub advertise: String,
}

impl Own {
    /// Keeps this manager's place, and returns when it was removed from the cluster.
    pub async fn until_removed(self) {
        let mut said = None;
        let mut pause = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            if self.in_doubt().await {
                pause.reset();
            }
            for address in self.others() {
                match self.ask(&address).await {
                    Ok(()) => {
                        said = None;
                        break;
                    }
                    Err(Refusal::Removed) => return,
                    // The leader's word: others would ask it again.
                    Err(Refusal::Unreachable(error)) => {
                        if said.as_ref() != Some(&error) {
                            tracing::error!("{error}");
                            said = Some(error);
                        }
                        break;
                    }
                    // Said once: while a majority is away, this goes on for long.
                    Err(Refusal::Other(error)) if said.as_ref() != Some(&error) => {
                        tracing::info!(manager = address, error, "this manager has no place yet");
                        said = Some(error);
                    }
                    Err(Refusal::Other(_)) => {}
                }
            }
            sleep(pause.wait()).await;
        }
    }

    /// Until there is a reason to ask: this manager is no member where it serves, is about to be removed, or is on its own. Answers
    /// whether there was none at first.
    async fn in_doubt(&self) -> bool {
        let mut waited = false;
        let mut members = self.store.members();
        loop {
            let revision = self.store.read(State::revision);
            let Ok(mut records) = self
                .store
                .watch(revision, Scope::kinds([RecordKind::Manager]))
            else {
                continue;
            };
            members.borrow_and_update();
            let silence = self.store.silence();
            if !self.is_settled() || silence >= DOUBT {
                return waited;
            }
            waited = true;
            tokio::select! {
                () = sleep(DOUBT - silence) => {}
                // Whatever ended, ends this manager too.
                _ = members.changed() => {}
                _ = records.next() => {}
            }
        }
    }

    /// Whether this manager is a member at its address, as its record says. Whether it votes is for the leader to see to.
    fn is_settled(&self) -> bool {
        let members = self.store.members();
        let members = members.borrow();
        self.store.read(|state| {
            let Some(record) = state.by_uid::<ManagerRecord>(&self.identity.uid) else {
                return false;
            };
            let there = members
                .nodes
                .get(&record.raft_id)
                .is_some_and(|node| node.address == self.advertise);
            record.address == self.advertise
                && record.feature_level == LEVEL
                && record.unreachable.is_none()
                && there
                && matches!(record.role(), ManagerRole::Voter | ManagerRole::Learner)
        })
    }

    /// The leader first, then managers that may know it.
    fn others(&self) -> Vec<String> {
        let leader = self.store.leadership().borrow().leader.clone();
        let known = self.store.read(|state| {
            state
                .list::<ManagerRecord>(None)
                .filter(|record| record.uid() != self.identity.uid)
                .map(|record| record.address.clone())
                .collect::<Vec<_>>()
        });
        let mut seen = BTreeSet::new();
        leader
            .map(|(_, address)| address)
            .into_iter()
            .chain(known)
            .chain(self.identity.members.iter().cloned())
            // A leader whose address changed asks itself, at the address where it is.
            .chain([self.advertise.clone()])
            .filter(|address| seen.insert(address.clone()))
            .collect()
    }

    async fn ask(&self, manager: &str) -> Result<(), Refusal> {
        let channel = self
            .dialer
            .channel(manager)
            .map_err(|error| Refusal::Other(error.to_string()))?;
        let request = ActivateRequest {
            address: self.advertise.clone(),
            feature_level: LEVEL,
        };
        match timeout(ANSWER, ClusterClient::new(channel).activate(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if reason_of(&status).as_deref() == Some(REVOKED) => {
                Err(Refusal::Removed)
            }
            Ok(Err(status)) if reason_of(&status).as_deref() == Some(ADVERTISE_UNREACHABLE) => {
                Err(Refusal::Unreachable(status.message().to_owned()))
            }
            Ok(Err(status)) => Err(Refusal::Other(root_cause(&status))),
            Err(_) => Err(Refusal::Other(format!(
                "no answer within {} s",
                ANSWER.as_secs()
            ))),
        }
    }
}

enum Refusal {
    /// A manager of the cluster knows that this one was removed.
    Removed,
    /// The leader does not find this manager where it serves.
    Unreachable(String),
    /// No answer, or not the one that was hoped for.
    Other(String),
}
