//! The tokens of service accounts that the pods of this node use.
//!
//! Whoever mounts a token asks for it with [`Tokens::get`], again and again: the first time begins to get it, and [`Tokens::changed`] tells when there is
//! one, or another. A token is replaced before it ends. While no manager answers, the old one stays; that it has ended by then is an event of
//! its pod, and ends no container. Tokens are in memory only: a new process asks for them anew.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use barge_proto::{accounts, configuration::Source, v1::Pod};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::table::Table;
use crate::{
    configuration::Found,
    desired::Desired,
    events::{Recorder, Severity, pod_reference},
};

mod ask;
mod table;
#[cfg(test)]
mod tests;

pub use ask::{Answer, Ask, FromManagers};

/// Tokens that are asked for at the same time: a manager takes 16 requests of an agent.
const AT_ONCE: usize = 4;

/// Which token. Namespace, pod and account are the pod's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenRequest {
    /// The pod that it is bound to.
    pub pod_uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's ServiceAccount.
    pub account: String,
    /// For whom it is; empty means the cluster's managers.
    pub audience: String,
    /// Seconds that it lives, 600 to 86400.
    pub expiration_seconds: u64,
}

impl TokenRequest {
    /// A token for a pod. `audience` and `expiration_seconds` are as in a projected volume; Kubernetes' own volume has an empty audience and 3607 s.
    #[must_use]
    pub fn of(pod: &Pod, audience: &str, expiration_seconds: u64) -> Self {
        let meta = pod.metadata.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        Self {
            pod_uid: meta.uid,
            namespace: meta.namespace,
            pod: meta.name,
            account: spec.map_or(accounts::DEFAULT, accounts::of_pod).to_owned(),
            audience: audience.to_owned(),
            expiration_seconds,
        }
    }
}

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What is written to its file.
    pub value: String,
    /// When it ends, by this process's own clock.
    pub ends: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// The tokens of this node's pods. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    /// Something new is asked for.
    wanted: Notify,
    changed: watch::Sender<u64>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self(Arc::new(Inner {
            table: Mutex::default(),
            wanted: Notify::new(),
            changed: watch::Sender::new(0),
        }))
    }
}

impl Tokens {
    /// The token, if it is here; it may have ended while no manager answers. What was not asked for before is got from now on, and kept fresh, until
    /// its pod is gone or [`Tokens::forget`] names it. Does not block.
    #[must_use]
    pub fn get(&self, request: &TokenRequest) -> Option<Arc<Token>> {
        let mut table = self.table();
        if let Some(token) = table.get(request) {
            return token;
        }
        table.want(request.clone(), Instant::now());
        self.0.wanted.notify_one();
        None
    }

    /// Why the last try to get it did not work: a sentence for people. `None` when it did, or is under way for the first time.
    #[must_use]
    pub fn why_not(&self, request: &TokenRequest) -> Option<String> {
        self.table().why_not(request)
    }

    /// Gets no more tokens for this pod, until one is asked for: it has ended.
    pub fn forget(&self, pod_uid: &str) {
        self.table().forget(|uid| uid == pod_uid);
    }

    /// Puts a token there as if a manager gave it.
    #[cfg(test)]
    pub fn put(&self, request: &TokenRequest, value: &str) {
        let now = Instant::now();
        let answer = Answer {
            value: value.to_owned(),
            life: Duration::from_secs(3600),
        };
        let mut table = self.table();
        table.want(request.clone(), now);
        table.take(request, Ok(answer), now, 0.0);
        drop(table);
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// Whether this one is kept fresh.
    #[cfg(test)]
    pub fn wants(&self, request: &TokenRequest) -> bool {
        self.table().get(request).is_some()
    }

    /// Changes whenever a token comes or is replaced, or a try to get one fails.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Gets and replaces tokens until `stop`.
    pub async fn keep(
        self,
        ask: Arc<dyn Ask>,
        desired: watch::Receiver<Arc<Desired>>,
        recorder: Recorder,
        stop: CancellationToken,
    ) {
        let keeping = self.run(ask, desired, recorder);
        stop.run_until_cancelled(keeping).await;
    }

    async fn run(
        &self,
        ask: Arc<dyn Ask>,
        mut desired: watch::Receiver<Arc<Desired>>,
        recorder: Recorder,
    ) {
        let mut asking = JoinSet::new();
        loop {
            let now = Instant::now();
            let ended = self.table().ended(now);
            for (request, why) in ended {
                tell(&desired.borrow(), &recorder, &request, &why);
            }
            let free = AT_ONCE.saturating_sub(asking.len());
            let due = self.table().due(now, free);
            if !due.is_empty() {
                let desired = desired.borrow().clone();
                let mut table = self.table();
                table.note(now, |request| account_of(&desired, request));
            }
            for request in due {
                let ask = ask.clone();
                asking.spawn(async move {
                    let answer = ask.ask(&request).await;
                    (request, answer)
                });
            }
            if asking.is_empty() {
                ask.rest();
            }
            let next = self.table().next(now, asking.len() < AT_ONCE);
            tokio::select! {
                Some(Ok((request, answer))) = asking.join_next() => {
                    self.table().take(&request, answer, Instant::now(), rand::random());
                    self.0.changed.send_modify(|count| *count += 1);
                }
                () = self.0.wanted.notified() => {}
                () = until(next) => {}
                changed = desired.changed() => {
                    if changed.is_err() {
                        // The agent stops.
                        return;
                    }
                    let desired = desired.borrow_and_update().clone();
                    let here: BTreeSet<&str> = desired.pods.keys().map(String::as_str).collect();
                    let mut table = self.table();
                    table.forget(|uid| !here.contains(uid));
                    table.note(Instant::now(), |request| account_of(&desired, request));
                }
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The uid of a token's account; empty when there is no such account, and nothing when this node does not know.
fn account_of(desired: &Desired, request: &TokenRequest) -> Option<String> {
    let TokenRequest {
        namespace, account, ..
    } = request;
    let (configuration, source) = (&desired.configuration, Source::ServiceAccount);
    match configuration.get(source, namespace, account) {
        Some(Found::ServiceAccount(it)) => Some(it.metadata.clone().unwrap_or_default().uid),
        _ if configuration.is_unknown(source, namespace, account) => None,
        _ => Some(String::new()),
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A token has ended, and there is no other.
fn tell(desired: &Desired, recorder: &Recorder, request: &TokenRequest, why: &str) {
    if let Some(pod) = desired.pods.get(&request.pod_uid) {
        let audience = match request.audience.as_str() {
            "" => "the cluster's managers",
            audience => audience,
        };
        let message = format!(
            "the pod's token of service account {} for {audience} has ended, and no manager gave another: {why}; the containers go on running, and the token \
             is replaced as soon as a manager does",
            request.account
        );
        let (pod, reason) = (pod_reference(pod), "ServiceAccountTokenExpired");
        recorder.record(pod, Severity::Warning, reason, message);
    }
}

/// Seconds as a duration; what is negative is none.
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
