//! Feature levels: which changes the log may contain.
//!
//! An older manager would drop a field that it does not know, or apply a rule differently, and its state
//! would differ from the others'. So each version has a level up to which it understands the log. The leader raises the cluster's level when all managers
//! understand the next one. Until then `apply` refuses changes of the next level, and the leader does not propose them.

use barge_proto::v1::{
    ObjectMeta, PodTemplateSpec, Refusal, RefusalReason, Transaction, change::Change,
    precondition::Must, record::Record as Body,
};

use crate::{apply::refusal, state::State};

/// The newest feature level that this version understands. Raised together with the first thing that needs it.
///
/// - 2: roles, bindings and service accounts, and whose a credential is
/// - 3: compressed entries of the log
/// - 4: pods that are lost with their node, tombstones of pods, deletions in slices, taints and tolerations, and of managers who was promoted
///   by hand and who is not reached
/// - 5: statuses that say when their agent made them, creations on the condition of what their plan saw, nothing is bound to a node that is being
///   deleted, and events and remembered requests are bounded by namespace and by age
/// - 6: tombstones of nodes
/// - 7: objects of kinds that are registered while the cluster runs
/// - 8: pods with fields that [`barge_proto::level`] does not name, PodDisruptionBudgets, fields of ServiceAccounts beside metadata, and the keys of
///   their tokens
/// - 9: ReplicaSets, of the Revisions of Deployments how many pods there are, and pods whose labels or annotations are not those of their template
pub const LEVEL: u32 = 9;

/// The level from which on bindings decide what a credential may.
pub const BINDINGS: u32 = 2;

/// The level from which on an entry of the log may be compressed. An older manager would find no transactions in it.
pub const COMPRESSION: u32 = 3;

/// The level from which on a pod may be marked as lost, the removal of a bound pod leaves a tombstone, and deletions are marks that
/// are worked off in slices.
pub const LOSS: u32 = 4;

/// The level from which on a pod's status says in which order its agent made it, and a plan's creations are refused when its owner has got others
/// meanwhile.
pub const ORDER: u32 = 5;

/// The level from which on the removal of a node leaves a tombstone.
pub const NODE_TOMBSTONES: u32 = 6;

/// The level from which on there can be objects of kinds that are registered while the cluster runs.
pub const CUSTOM: u32 = barge_proto::kinds::custom::LEVEL;

/// The level from which on templates may have the fields of pods that came with it.
pub const PODS: u32 = barge_proto::level::PODS;

/// The level from which on there are ReplicaSets, and Revisions of Deployments are shown as such with their status.
pub const REPLICA_SETS: u32 = 9;

/// The level from which on a pod may have other labels and annotations than its template.
pub const OWN_LABELS: u32 = 9;

/// The level that a change needs, besides that of its record's kind: an older manager would drop a field that it does not know.
pub fn needed(change: &Change) -> u32 {
    let record = match change {
        Change::Put(record) => record.record.as_ref(),
        // Before, Revisions had no status, and such a change was refused.
        Change::PutStatus(record) if matches!(record.record, Some(Body::Revision(_))) => {
            return REPLICA_SETS;
        }
        Change::ReportPod(_) => return ORDER,
        Change::MarkPod(_) | Change::PodGone(_) | Change::Collect(_) => return LOSS,
        Change::ForgetRequestsBefore(_) => return ORDER,
        _ => None,
    };
    match record {
        Some(Body::Node(node)) => {
            let tainted = node.spec.as_ref().is_some_and(|it| !it.taints.is_empty());
            if tainted { LOSS } else { 0 }
        }
        Some(Body::Deployment(it)) => {
            let spec = it.spec.as_ref();
            of_template(spec.and_then(|spec| spec.template.as_ref()))
        }
        Some(Body::ReplicaSet(it)) => {
            let spec = it.spec.as_ref();
            of_template(spec.and_then(|spec| spec.template.as_ref()))
        }
        Some(Body::Revision(revision)) => of_template(revision.template.as_ref()),
        Some(Body::Pod(pod)) => {
            let has_own =
                |meta: &ObjectMeta| !(meta.labels.is_empty() && meta.annotations.is_empty());
            let removes = !(pod.removed_labels.is_empty() && pod.removed_annotations.is_empty());
            match removes || pod.metadata.as_ref().is_some_and(has_own) {
                true => OWN_LABELS,
                false => 0,
            }
        }
        Some(Body::Service(it)) => barge_proto::level::of_service(it),
        Some(Body::ServiceAccount(it)) => barge_proto::level::of_account(it),
        Some(Body::Cluster(it)) if !it.token_keys.is_empty() => PODS,
        _ => 0,
    }
}

/// The level that a precondition needs: an older manager would find no demand in it, and refuse.
pub fn demanded(must: &Must) -> u32 {
    match must {
        Must::Made(_) => ORDER,
        _ => 0,
    }
}

/// The level of the newest field that a template uses.
fn of_template(template: Option<&PodTemplateSpec>) -> u32 {
    let Some(spec) = template.and_then(|template| template.spec.as_ref()) else {
        return 0;
    };
    let loss = if spec.tolerations.is_empty() { 0 } else { LOSS };
    barge_proto::level::of_pod(spec).max(loss)
}

/// A cluster makes use of what a version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster is at feature level {level}, this manager understands {understood}: install the version that the cluster \
     runs"
)]
pub struct NotUnderstood {
    /// The cluster's feature level.
    pub level: u32,
    /// The newest that the version understands.
    pub understood: u32,
}

/// Whether a version that understands `understood` can run a cluster at `level`.
///
/// # Errors
/// [`NotUnderstood`] when the cluster's is higher.
pub fn check_understood(level: u32, understood: u32) -> Result<(), NotUnderstood> {
    match level <= understood {
        true => Ok(()),
        false => Err(NotUnderstood { level, understood }),
    }
}

impl State {
    /// The cluster's feature level; 1 before there is a cluster.
    pub fn feature_level(&self) -> u32 {
        self.cluster()
            .map_or(1, |cluster| cluster.feature_level.max(1))
    }

    /// # Errors
    /// FEATURE_LEVEL when some manager may not understand the transaction yet.
    pub(crate) fn check_level(&self, tx: &Transaction) -> Result<(), Refusal> {
        let level = self.feature_level();
        match tx.feature_level <= level {
            true => Ok(()),
            false => Err(refusal(
                RefusalReason::FeatureLevel,
                format!(
                    "this needs feature level {}, the cluster is at {level}: upgrade all managers first",
                    tx.feature_level
                ),
            )),
        }
    }
}
