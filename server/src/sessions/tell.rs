//! The manager's side of the stream of assignments to one agent.
//!
//! One watch covers all that concerns a node, so its changes come in the order of their revisions, and each assignment names the
//! revision up to which it is complete. While the outbox is full, the watch stays at its position in the shared history; later it sends all changes
//! since then as one difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use barge_client::{error::node_deleted, identity::roots_sha256};
use barge_proto::configuration::Source;
use barge_proto::level::PODS;
use barge_proto::v1::{
    Assignment, HeldObject, Hello, ManagerMessage, Node, ObjectName, PodRecord, Trust, Welcome,
    manager_message::Message as ToAgent,
};
use barge_state::{Changed, Kind, ORDER, PackedPod, RecordKind, State, Stored};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::Status;

use super::{
    connect::Host,
    feed::News,
    needs::{self, Need, Needs},
    outbox::Outbox,
};
use crate::{
    security::sealed,
    storage::lock::By,
    store::{Scope, Watch},
};

/// About the bytes of one assignment.
const PART: usize = 256 << 10;
/// For a full set to be taken.
const PATIENCE: Duration = Duration::from_secs(120);
/// Changes that are told together.
const GATHER: usize = 4096;
/// How often an agent is told of a revision at which nothing concerned it, and by how much that has to be newer than what it was told
/// last. It goes on from there in its next session.
const BOOKMARK: (Duration, u64) = (Duration::from_secs(10), 1000);
/// Every so many bookmarks one may be newer by less: the history forgets what is older than five minutes, also when little changes.
const EVERY: u32 = 6;
/// When agents renew because of other roots: a hundred a second, within a time that is not too short for chance to spread
/// them, nor too long for who waits.
const RENEWAL: Duration = Duration::from_millis(10);
const RENEW_WITHIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Tells one agent.
pub struct Teller<'a> {
    host: &'a Host,
    node_uid: &'a str,
    outbox: &'a Outbox,
    node: Arc<Node>,
    /// Everything up to here was told.
    told: u64,
    roots: Option<[u8; 32]>,
    /// The feature level whose fields of pods the agent acts on.
    pod_level: u32,
    needs: Needs,
    /// Secrets were left out, because this manager's key is locked.
    withheld: bool,
}

impl<'a> Teller<'a> {
    /// Tells the agent of the node with this uid, until the session ends.
    ///
    /// # Errors
    /// Why it ends: FAILED_PRECONDITION when the node is not there (any more), UNAVAILABLE when the session fell behind, and as
    /// [`Outbox::send`].
    pub async fn run(
        host: &'a Host,
        node_uid: &'a str,
        outbox: &'a Outbox,
        hello: &Hello,
        inbox: mpsc::Receiver<ManagerMessage>,
    ) -> Result<(), Status> {
        let pod_level = hello.pod_level;
        let resumed = match resumable(host, hello) {
            true => {
                let needs = needed(host, node_uid, pod_level);
                let scopes = scopes(node_uid, &needs);
                let watch = host.store.watch(hello.acted_revision, scopes).ok();
                watch.map(|watch| (watch, needs))
            }
            false => None,
        };
        let (mut welcome, node) = host
            .store
            .read_by(By::Session, |state| welcome(state, node_uid))
            .ok_or_else(|| unknown_node(host, node_uid))?;
        welcome.manager_addresses = host.store.addresses();
        outbox.send(ToAgent::Welcome(welcome)).await?;
        let mut teller = Self {
            host,
            node_uid,
            outbox,
            node,
            told: hello.acted_revision,
            roots: None,
            pod_level,
            needs: Needs::default(),
            withheld: false,
        };
        let watch = match resumed {
            Some((watch, needs)) => {
                teller.resume(needs, &hello.configuration).await?;
                watch
            }
            None => {
                // Each takes some megabytes until it is sent, and all agents of another manager may come at once.
                let _turn = host.sessions.turn().await;
                let bytes = if hello.takes_parts { PART } else { usize::MAX };
                let full = timeout(PATIENCE, teller.full(bytes)).await;
                full.map_err(|_| {
                    Status::resource_exhausted("the agent takes too long for a full set")
                })??
            }
        };
        teller.trust().await?;
        teller.follow(watch, inbox).await
    }

    /// Tells everything, and follows what changes from there.
    async fn full(&mut self, bytes: usize) -> Result<Watch, Status> {
        let counters = self.host.sessions.counters();
        counters.full_sets.inc();
        // Only references are taken while the lock of the state is held.
        let read = self.host.store.read_by(By::Session, |state| {
            let node = state.by_uid::<Node>(self.node_uid)?.clone();
            let mut news = News::full(state, self.node_uid, self.pod_level);
            let needs = match takes_configuration(self.pod_level) {
                true => needs::of_node(state, self.node_uid),
                false => BTreeSet::new(),
            };
            for need in &needs {
                let found = needs::find(state, need);
                // A full set has no removals.
                if !matches!(found, needs::Found::Nothing) {
                    news.put_configuration(need.clone(), found);
                }
            }
            Some((node, state.revision(), news, needs))
        });
        // It may have been deleted while the session waited for its turn, and no change from here on would say so.
        let (node, revision, news, needs) =
            read.ok_or_else(|| unknown_node(self.host, self.node_uid))?;
        self.node = node;
        let scopes = scopes(self.node_uid, &needs);
        let watch = self.host.store.watch(revision, scopes).map_err(behind)?;
        self.needs = Needs::told(needs, revision);
        let mut parts = news.parts(self.node.clone(), bytes);
        loop {
            let (part, more) = parts.next_part();
            self.assign(Assignment {
                revision,
                full: true,
                more,
                ..part
            })
            .await?;
            if !more {
                break;
            }
        }
        self.told = revision;
        Ok(watch)
    }

    /// Tells which ConfigMaps and Secrets are not as the agent has them. What changes after that comes by the watch.
    async fn resume(&mut self, needs: BTreeSet<Need>, held: &[HeldObject]) -> Result<(), Status> {
        if !takes_configuration(self.pod_level) {
            return Ok(());
        }
        let (revision, since) = self.host.store.read_by(By::Session, |state| {
            (state.revision(), needs::since(state, &needs, held))
        });
        self.needs = Needs::told(needs, revision);
        let mut news = News::new(self.pod_level);
        for (need, found) in since {
            news.put_configuration(need, found);
        }
        self.send(news, self.told).await
    }

    async fn follow(
        mut self,
        mut watch: Watch,
        mut inbox: mpsc::Receiver<ManagerMessage>,
    ) -> Result<(), Status> {
        let mut bookmarks = interval(BOOKMARK.0);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            tokio::select! {
                changes = watch.next() => {
                    let mut changes = changes.map_err(behind)?;
                    watch.gather(&mut changes, GATHER).await.map_err(behind)?;
                    let revision = watch.progress();
                    self.difference(&changes, revision, &mut watch).await?;
                }
                order = inbox.recv() => {
                    // The registry forgets a session when another one takes its place.
                    let order = order
                        .ok_or_else(|| Status::aborted("the agent began another session"))?;
                    if let Some(message) = order.message {
                        self.outbox.send(message).await?;
                    }
                }
                _ = bookmarks.tick() => {
                    if self.withheld && !self.host.keyring.is_locked() {
                        // The next session begins with a full set, because the agent lacks some.
                        return Err(Status::unavailable("this manager was unlocked, and has Secrets for the node"));
                    }
                    let revision = watch.progress();
                    ticks = ticks.wrapping_add(1);
                    let enough = if ticks.is_multiple_of(EVERY) { 1 } else { BOOKMARK.1 };
                    if revision >= self.told.saturating_add(enough) {
                        self.assign(Assignment { revision, ..Assignment::default() }).await?;
                        self.told = revision;
                    }
                }
            }
        }
    }

    /// Tells what changed up to a revision.
    async fn difference(
        &mut self,
        changes: &[Changed],
        revision: u64,
        watch: &mut Watch,
    ) -> Result<(), Status> {
        let mut news = News::new(self.pod_level);
        let (mut gone, mut trust) = (false, false);
        for change in changes {
            news.add(change, self.node_uid);
            match change.record() {
                Some(Stored::Node(node)) if node.uid() == self.node_uid => {
                    gone |= change.after.is_none();
                    self.node = node.clone();
                }
                Some(Stored::Cluster(_)) => trust = true,
                _ => {}
            }
        }
        if takes_configuration(self.pod_level) {
            self.configuration(changes, watch, &mut news);
        }
        if !news.is_empty() {
            self.host.sessions.counters().differences.inc();
            self.send(news, revision).await?;
            self.told = revision;
        }
        if trust {
            self.trust().await?;
        }
        // The deletion of its pods was part of the node's, and the agent has it by now.
        match gone {
            true => Err(unknown_node(self.host, self.node_uid)),
            false => Ok(()),
        }
    }

    /// Sends a difference up to a revision.
    async fn send(&mut self, news: News, revision: u64) -> Result<(), Status> {
        if news.is_empty() {
            return Ok(());
        }
        let mut parts = news.parts(self.node.clone(), PART);
        loop {
            let (part, more) = parts.next_part();
            // Only with the last part everything up to there is told.
            let revision = if more { self.told } else { revision };
            self.assign(Assignment { revision, ..part }).await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Adds changes of what the node's pods use, and what they use since these changes.
    fn configuration(&mut self, changes: &[Changed], watch: &mut Watch, news: &mut News) {
        // By pod, because a later change of it may take it away again.
        let mut bound = BTreeMap::new();
        let mut left = false;
        for change in changes {
            if let Some((need, found)) = self.needs.hear(change) {
                // It may name other Secrets now.
                left |= need.0 == Source::ServiceAccount;
                news.put_configuration(need, found);
            }
            if moves(change, self.node_uid) {
                let needs = needs::of_change(change, self.node_uid);
                bound.insert(change.uid(), needs);
                left |= leaves(change, self.node_uid);
            }
        }
        let mut needed: BTreeSet<Need> = bound.into_values().flatten().collect();
        // Most pods use what others of the node do.
        let is_told = self.needs.have(&needed);
        if is_told && (!left || self.needs.is_empty()) {
            return;
        }
        let store = &self.host.store;
        needed.extend(store.read_by(By::Session, |state| needs::of_node(state, self.node_uid)));
        if self.needs.are(&needed) {
            return;
        }
        // What changes from here on comes by the watch; what changed before is seen below.
        watch.rescope(scopes(self.node_uid, &needed));
        store.read_by(By::Session, |state| {
            let (new, gone) = self.needs.replace(&needed, state.revision());
            for need in new {
                let found = needs::find(state, &need);
                news.put_configuration(need, found);
            }
            for need in gone {
                news.put_configuration(need, needs::Found::Nothing);
            }
        });
    }

    async fn assign(&mut self, mut assignment: Assignment) -> Result<(), Status> {
        self.open(&mut assignment);
        let bytes = self.outbox.send(ToAgent::Assignment(assignment)).await?;
        let counters = self.host.sessions.counters();
        counters.assigned_bytes.inc_by(bytes as u64);
        Ok(())
    }

    /// Opens the values of Secrets. One that does not open is, for the agent, not there. Without a key they are named only: pods,
    /// deletions and endpoints need none.
    fn open(&mut self, assignment: &mut Assignment) {
        if assignment.secrets.is_empty() {
            return;
        }
        let Ok(key) = self.host.keyring.key() else {
            let secrets = std::mem::take(&mut assignment.secrets);
            assignment
                .withheld_secrets
                .extend(secrets.iter().map(|secret| {
                    let (namespace, name) = sealed::place(secret);
                    ObjectName { namespace, name }
                }));
            self.withheld = true;
            return;
        };
        for mut secret in std::mem::take(&mut assignment.secrets) {
            match sealed::open(&key, &mut secret) {
                Ok(()) => assignment.secrets.push(secret),
                Err(error) => {
                    tracing::error!(%error, "a Secret cannot be opened; pods that use it wait");
                    if !assignment.full {
                        let (namespace, name) = sealed::place(&secret);
                        let removed = ObjectName { namespace, name };
                        assignment.removed_secrets.push(removed);
                    }
                }
            }
        }
    }

    /// What the agent should trust, when that is something else than it was told last.
    async fn trust(&mut self) -> Result<(), Status> {
        let (roots, nodes) = self.host.store.read(|state| {
            let roots = state.cluster().map(|cluster| roots_sha256(&cluster.roots));
            (roots, state.count::<Node>())
        });
        let Some(roots) = roots.filter(|roots| self.roots != Some(*roots)) else {
            return Ok(());
        };
        self.roots = Some(roots);
        let within = RENEWAL.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX));
        let within = within.clamp(RENEW_WITHIN.0, RENEW_WITHIN.1);
        let trust = Trust {
            roots_sha256: roots.to_vec(),
            within_ms: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
        };
        self.outbox.send(ToAgent::Trust(trust)).await.map(drop)
    }
}

/// Whether differences since what the agent acted on will do: it has all of that, and revisions mean the same to it. Below [`ORDER`] the
/// lives of a cluster have no names.
fn resumable(host: &Host, hello: &Hello) -> bool {
    let Some(held) = &hello.held else {
        return false;
    };
    host.store.read(|state| {
        state.feature_level() >= ORDER
            && state
                .cluster()
                .is_some_and(|cluster| cluster.life == held.life)
    })
}

fn welcome(state: &State, node_uid: &str) -> Option<(Welcome, Arc<Node>)> {
    let node = state.by_uid::<Node>(node_uid)?.clone();
    let cluster = state.cluster();
    let welcome = Welcome {
        node: Some(Node::clone(&node)),
        service_cidr: cluster.map(|c| c.service_cidr.clone()).unwrap_or_default(),
        life: cluster.map(|c| c.life.clone()).unwrap_or_default(),
        ..Welcome::default()
    };
    Some((welcome, node))
}

/// The node's own pods and their tombstones, and itself: of ten thousand nodes, each change of a pod costs one session. What every node has
/// to know. The roots to trust. And of ConfigMaps, Secrets and ServiceAccounts, by name, those that its pods use.
fn scopes(node_uid: &str, needs: &BTreeSet<Need>) -> Vec<Scope> {
    let own = Scope {
        node: Some(node_uid.to_owned()),
        ..Scope::kinds([RecordKind::Pod, RecordKind::PodTombstone])
    };
    let common = Scope::kinds([RecordKind::Service, RecordKind::Endpoints, RecordKind::Node]);
    let mut scopes = vec![own, common, Scope::kinds([RecordKind::Cluster])];
    scopes.extend(needs::scopes(needs));
    scopes
}

/// Whether a change brings a pod to a node, takes it away, or gives it another template. What it reports is none of these.
fn moves(change: &Changed, node_uid: &str) -> bool {
    let here = |pod: &Arc<PackedPod>| {
        let is_here = pod.node_uid() == node_uid;
        is_here.then(|| pod.template_uid().to_owned())
    };
    let (before, after) = change.of::<PodRecord>();
    before.and_then(here) != after.and_then(here)
}

/// Whether a change takes a pod, or its template, away from a node.
fn leaves(change: &Changed, node_uid: &str) -> bool {
    let (before, _) = change.of::<PodRecord>();
    before.is_some_and(|pod| pod.node_uid() == node_uid)
}

fn takes_configuration(pod_level: u32) -> bool {
    pod_level >= PODS
}

/// What the pods of a node use, for an agent that takes it.
fn needed(host: &Host, node_uid: &str, pod_level: u32) -> BTreeSet<Need> {
    let needed = |state: &State| needs::of_node(state, node_uid);
    match takes_configuration(pod_level) {
        true => host.store.read_by(By::Session, needed),
        false => BTreeSet::new(),
    }
}

/// Why the session of a node ends that the state does not have: its deletion is on record, or nobody knows.
fn unknown_node(host: &Host, node_uid: &str) -> Status {
    let deleted = host
        .store
        .read(|state| state.deleted_node(node_uid).is_some());
    match deleted {
        true => node_deleted("the node was deleted from this cluster"),
        false => Status::failed_precondition("the node does not belong to this cluster (any more)"),
    }
}

fn behind<E: std::fmt::Display>(error: E) -> Status {
    Status::unavailable(format!("the session fell behind: {error}"))
}
