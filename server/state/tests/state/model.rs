//! The rules again, as simply as possible: a list of records, looked through from end to end, copied before each
//! transaction. It does not know resource versions, only how many there were.

mod events;
mod pods;
mod removal;
mod tombstones;

use barge_proto::v1::{
    ClusterRecord, PodRecord, RefusalReason, RequestRecord, Time, TokenUse, Transaction,
    change::Change as Action, precondition::Must, record::Record as Body,
};
use barge_state::{
    Kept as _, Kind, LOSS, NODE_TOMBSTONES, ORDER, PackedPod, RecordKind, Stored, limits::Limits,
};

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub records: Vec<Stored>,
    pub revision: u64,
    pub limits: Limits,
    requests: Vec<(RequestRecord, String, u64)>,
    pub floor: u64,
    now: Time,
    binds: Vec<bool>,
    created: Vec<(RecordKind, String)>,
    lost_pods: Vec<String>,
    /// Uids of pods that were given a tombstone, the latest last.
    buried: Vec<String>,
    /// Whether the cluster's level has tombstones; from the beginning of the transaction.
    tombstones: bool,
    /// Whether it has tombstones of nodes.
    node_tombstones: bool,
    /// Whether the cluster's level bounds events by namespace; from the beginning of the transaction.
    ordered: bool,
    /// Answers that are older than this revision are to be forgotten.
    forget_requests: u64,
}

type Refusable = Result<(), RefusalReason>;

/// What was answered: refused or not, repeated or not, and which Binds were accepted.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Refused(RefusalReason),
    Repeated(u64),
    Applied(Vec<bool>),
}

fn edit<K: Kind>(stored: &Stored, change: impl FnOnce(&mut K)) -> Stored {
    let mut record = K::from_stored(stored).unwrap().message().into_owned();
    change(&mut record);
    K::stored(K::Kept::unshared(record).into())
}

fn at(time: Option<Time>) -> Option<(i64, i32)> {
    time.map(|time| (time.seconds, time.nanos))
}

fn lost_since(pod: &Stored) -> Option<Time> {
    PodRecord::from_stored(pod).unwrap().record().lost
}

fn terminating(record: &Stored) -> bool {
    record.meta().deletion_timestamp.is_some()
}

impl Model {
    pub fn with_limits(limits: Limits) -> Model {
        Model {
            limits,
            ..Model::default()
        }
    }

    pub fn apply(&mut self, term: u64, tx: &Transaction) -> Answer {
        if let Some(request) = &tx.request {
            let known = self
                .requests
                .iter()
                .find(|known| known.0.nonce == request.nonce);
            if let Some((known, principal, revision)) = known {
                let same = known.body_sha256 == request.body_sha256 && *principal == tx.principal;
                return if same {
                    Answer::Repeated(*revision)
                } else {
                    Answer::Refused(RefusalReason::RequestReused)
                };
            }
            if request.seen_revision < self.floor {
                return Answer::Refused(RefusalReason::RequestExpired);
            }
        }
        if tx.term != 0 && tx.term != term {
            return Answer::Refused(RefusalReason::WrongTerm);
        }
        let before = self.clone();
        self.now = tx.time.unwrap();
        (self.binds, self.created, self.lost_pods) = Default::default();
        let clusters = self.records.iter().filter_map(ClusterRecord::from_stored);
        let level = clusters.map(|cluster| cluster.feature_level).max();
        self.tombstones = level >= Some(LOSS);
        self.node_tombstones = level >= Some(NODE_TOMBSTONES);
        self.ordered = level >= Some(ORDER);
        self.forget_requests = 0;
        if let Err(reason) = self.run(tx) {
            *self = before;
            return Answer::Refused(reason);
        }
        self.requests
            .sort_by_key(|(request, _, revision)| (*revision, request.nonce.clone()));
        let before = self.forget_requests.min(self.revision);
        while self
            .requests
            .first()
            .is_some_and(|oldest| oldest.2 < before)
        {
            self.floor = self.requests.remove(0).2 + 1;
        }
        if let Some(request) = &tx.request {
            self.requests
                .push((request.clone(), tx.principal.clone(), self.revision));
            if self.requests.len() > self.limits.requests {
                self.requests
                    .sort_by_key(|(request, _, revision)| (*revision, request.nonce.clone()));
                self.floor = self.requests.remove(0).2 + 1;
                self.revision = self.revision.max(self.floor);
            }
        }
        Answer::Applied(self.binds.clone())
    }

    fn run(&mut self, tx: &Transaction) -> Refusable {
        for precondition in &tx.preconditions {
            let target = precondition.target.clone().unwrap();
            let kind = RecordKind::from_number(target.kind).unwrap();
            let found = self
                .get(kind, &target.uid)
                .map(|found| found.meta().into_owned());
            match (precondition.must.as_ref().unwrap(), found) {
                (Must::Absent(_), None) | (Must::Exists(_), Some(_)) => {}
                (Must::Absent(_), Some(_)) => return Err(RefusalReason::Exists),
                (_, None) => return Err(RefusalReason::NotFound),
                (Must::Generation(generation), Some(meta)) if meta.generation == *generation => {}
                _ => return Err(RefusalReason::Conflict),
            }
        }
        for change in &tx.changes {
            match change.change.as_ref().unwrap() {
                Action::Put(record) => self.put(Stored::from_record(record.clone()).unwrap())?,
                Action::PutStatus(record) => self.put_status(record.record.as_ref().unwrap()),
                Action::Remove(target) => {
                    self.remove(RecordKind::from_number(target.kind).unwrap(), &target.uid);
                }
                Action::Delete(_) | Action::Collect(_) => {
                    unreachable!("not among the random changes; see delete.rs and slices.rs")
                }
                Action::Bind(bind) => {
                    let fits = self.fits(&bind.pod_uid, &bind.node_uid);
                    self.binds.push(fits);
                    if fits {
                        let pod = self.get(RecordKind::Pod, &bind.pod_uid).unwrap();
                        let now = self.now;
                        self.set(edit(&pod, |pod: &mut PodRecord| {
                            pod.node_uid.clone_from(&bind.node_uid);
                            pod.bound = Some(now);
                        }));
                    }
                }
                Action::TerminatePod(pod) => match self.get(RecordKind::Pod, &pod.uid) {
                    Some(found) if self.on_node(&found) => {
                        self.mark_pod(&found, pod.grace_period_seconds, &pod.reason);
                    }
                    Some(_) => self.remove(RecordKind::Pod, &pod.uid),
                    None => {}
                },
                Action::MarkPod(mark) => {
                    if let Some(pod) = self.get(RecordKind::Pod, &mark.uid)
                        && pod.node_uid() == Some(mark.node_uid.as_str())
                        && lost_since(&pod).is_some() != mark.lost
                    {
                        let since = mark.lost.then_some(self.now);
                        self.set(edit(&pod, |pod: &mut PodRecord| pod.lost = since));
                    }
                }
                Action::RecordEvent(event) => self.record_event(event),
                Action::ForgetEventsBefore(time) => {
                    let old = self.events(|event| at(event.last_timestamp) < at(Some(*time)));
                    let most = if self.ordered {
                        self.limits.slice
                    } else {
                        usize::MAX
                    };
                    for event in old.into_iter().take(most) {
                        self.delete(&event);
                    }
                }
                Action::ReportPod(report) => self.report(report),
                Action::ForgetRequestsBefore(_) if !self.ordered => {
                    return Err(RefusalReason::FeatureLevel);
                }
                Action::ForgetRequestsBefore(revision) => self.forget_requests = *revision,
                Action::PodGone(gone) => self.gone(gone),
                Action::UseToken(used) => {
                    let tokens = self
                        .records
                        .iter()
                        .filter(|r| r.kind() == RecordKind::Token);
                    let token = tokens.clone().find(|r| r.meta().name == used.id).cloned();
                    let Some(Stored::Token(token)) = token else {
                        return Err(RefusalReason::Token);
                    };
                    let key = &used.public_key_sha256;
                    let used_by = TokenUse {
                        public_key_sha256: key.clone(),
                        uid: used.uid.clone(),
                    };
                    if token.used_by.contains(&used_by) {
                        continue;
                    }
                    if token
                        .used_by
                        .iter()
                        .any(|other| other.public_key_sha256 == *key)
                    {
                        return Err(RefusalReason::Conflict);
                    }
                    if token.used_by.len() >= token.uses as usize {
                        return Err(RefusalReason::Token);
                    }
                    let mut token = token.as_ref().clone();
                    token.used_by.push(used_by);
                    self.set(Stored::Token(token.into()));
                }
            }
        }
        self.check_references()?;
        self.collect();
        Ok(())
    }

    fn get(&self, kind: RecordKind, uid: &str) -> Option<Stored> {
        self.records
            .iter()
            .find(|r| r.kind() == kind && r.uid() == uid)
            .cloned()
    }

    fn exists(&self, uid: &str) -> bool {
        let mut objects = self
            .records
            .iter()
            .filter(|r| r.kind() != RecordKind::PodTombstone);
        objects.any(|record| record.uid() == uid)
    }

    fn set(&mut self, record: Stored) {
        self.records.retain(|old| old.key() != record.key());
        self.records.push(record);
        self.records.sort_by_key(Stored::key);
        self.revision += 1;
    }

    fn delete(&mut self, record: &Stored) {
        let before = self.records.len();
        self.records.retain(|old| old.key() != record.key());
        self.revision += (before - self.records.len()) as u64;
        if let Stored::Pod(pod) = record {
            self.lost_pods.push(pod.template_uid().to_owned());
            self.bury(pod);
        }
        if let Stored::Node(node) = record {
            self.tombstones_on(Kind::uid(&**node))
                .iter()
                .for_each(|tombstone| self.delete(tombstone));
            self.bury_node(node);
        }
    }

    fn put(&mut self, new: Stored) -> Refusable {
        let meta = new.meta().into_owned();
        let old = self.get(new.kind(), &meta.uid);
        let name = |r: &Stored| (r.kind(), r.meta().namespace.clone(), r.meta().name.clone());
        if old.as_ref().is_some_and(|old| name(old) != name(&new)) {
            return Err(RefusalReason::Invalid);
        }
        if old.is_none() {
            if self.records.iter().any(|other| name(other) == name(&new)) {
                return Err(RefusalReason::Exists);
            }
            let mut ns = self
                .records
                .iter()
                .filter(|r| r.kind() == RecordKind::Namespace);
            if ns.any(|ns| ns.meta().name == meta.namespace && terminating(ns)) {
                return Err(RefusalReason::Conflict);
            }
            self.created.push((new.kind(), meta.uid.clone()));
        }
        let mut kept = new;
        let mut same_spec = true;
        match (&mut kept, &old) {
            (Stored::Revision(new), Some(Stored::Revision(old)))
                if new.template != old.template =>
            {
                return Err(RefusalReason::Invalid);
            }
            (Stored::Revision(new), old) => {
                let mut revision = new.as_ref().clone();
                revision.status = match old {
                    Some(Stored::Revision(old)) => old.status,
                    _ => None,
                };
                *new = revision.into();
            }
            (Stored::Pod(new), Some(Stored::Pod(old))) => {
                if new.template_uid() != old.template_uid() {
                    return Err(RefusalReason::Invalid);
                }
                let (mut pod, put) = (old.record(), new.record());
                pod.metadata = put.metadata;
                pod.removed_labels = put.removed_labels;
                pod.removed_annotations = put.removed_annotations;
                *new = PackedPod::new(pod).into();
            }
            (Stored::Node(new), Some(Stored::Node(old))) => {
                same_spec = new.spec == old.spec;
                let mut node = new.as_ref().clone();
                node.status.clone_from(&old.status);
                *new = node.into();
            }
            (Stored::Deployment(new), Some(Stored::Deployment(old))) => {
                same_spec = new.spec == old.spec;
                let mut deployment = new.as_ref().clone();
                deployment.status.clone_from(&old.status);
                *new = deployment.into();
            }
            (Stored::ReplicaSet(new), Some(Stored::ReplicaSet(old))) => {
                same_spec = new.spec == old.spec;
                let mut set = new.as_ref().clone();
                set.status.clone_from(&old.status);
                *new = set.into();
            }
            (Stored::Namespace(new), Some(Stored::Namespace(old))) => {
                let mut namespace = new.as_ref().clone();
                namespace.status.clone_from(&old.status);
                *new = namespace.into();
            }
            (Stored::Cluster(new), Some(Stored::Cluster(old)))
                if new.feature_level < old.feature_level =>
            {
                return Err(RefusalReason::Invalid);
            }
            (Stored::Service(new), Some(Stored::Service(old))) => same_spec = new.spec == old.spec,
            _ => {}
        }
        let mut record = kept.to_record();
        let fresh = metadata(&mut record);
        match old.as_ref().map(Stored::meta) {
            Some(old) => {
                fresh.creation_timestamp = old.creation_timestamp;
                fresh.deletion_timestamp = old.deletion_timestamp;
                fresh.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
                fresh.generation = old.generation + i64::from(!same_spec);
            }
            None => {
                fresh.creation_timestamp = Some(self.now);
                fresh.generation = 1;
            }
        }
        let kept = Stored::from_record(record).unwrap();
        if old.as_ref() == Some(&kept) {
            return Ok(());
        }
        let others = self.records.iter().filter(|other| other.uid() != meta.uid);
        let taken: Vec<String> = others.flat_map(claims).collect();
        if claims(&kept).iter().any(|claim| taken.contains(claim)) {
            return Err(RefusalReason::Taken);
        }
        self.set(kept);
        Ok(())
    }

    fn check_references(&self) -> Refusable {
        for (kind, uid) in &self.created {
            let Some(record) = self.get(*kind, uid) else {
                continue;
            };
            let owners = record.owners();
            if !owners.is_empty() && !owners.iter().any(|owner| self.exists(&owner.uid)) {
                return Err(RefusalReason::Conflict);
            }
            if let Stored::Pod(pod) = &record
                && self.get(RecordKind::Revision, pod.template_uid()).is_none()
            {
                return Err(RefusalReason::Invalid);
            }
        }
        Ok(())
    }
}

fn claims(record: &Stored) -> Vec<String> {
    match record {
        Stored::Service(service) => {
            let spec = service.spec.as_ref().unwrap();
            let ports = spec.ports.iter().map(|port| port.node_port.to_string());
            let values = ports.chain([spec.cluster_ip.clone()]);
            values
                .filter(|value| !matches!(value.as_str(), "" | "0" | "None"))
                .collect()
        }
        Stored::Manager(manager) => vec![format!("raft {}", manager.raft_id)],
        _ => Vec::new(),
    }
}

/// The metadata of any record.
pub fn metadata(record: &mut barge_proto::v1::Record) -> &mut barge_proto::v1::ObjectMeta {
    let metadata = match record.record.as_mut().unwrap() {
        Body::Namespace(record) => &mut record.metadata,
        Body::Node(record) => &mut record.metadata,
        Body::Deployment(record) => &mut record.metadata,
        Body::Revision(record) => &mut record.metadata,
        Body::Pod(record) => &mut record.metadata,
        Body::Service(record) => &mut record.metadata,
        Body::Endpoints(record) => &mut record.metadata,
        Body::Event(record) => &mut record.metadata,
        Body::Cluster(record) => &mut record.metadata,
        Body::Manager(record) => &mut record.metadata,
        Body::Token(record) => &mut record.metadata,
        Body::Credential(record) => &mut record.metadata,
        Body::Secret(record) => &mut record.metadata,
        Body::ConfigMap(record) => &mut record.metadata,
        Body::Role(record) => &mut record.metadata,
        Body::ClusterRole(record) => &mut record.metadata,
        Body::RoleBinding(record) => &mut record.metadata,
        Body::ClusterRoleBinding(record) => &mut record.metadata,
        Body::ServiceAccount(record) => &mut record.metadata,
        Body::PodDisruptionBudget(record) => &mut record.metadata,
        Body::ReplicaSet(record) => &mut record.metadata,
        Body::PodTombstone(record) => &mut record.metadata,
        Body::Custom(record) => &mut record.metadata,
    };
    metadata.get_or_insert_default()
}
