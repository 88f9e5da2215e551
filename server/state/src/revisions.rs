//! Revisions of Deployments as ReplicaSets.
//!
//! A Revision is kept once, as the template that pods refer to. What the API shows of it as a ReplicaSet is made from it when somebody
//! reads it. Templates of single pods and of ReplicaSets are kept as Revisions, too; nobody is shown those, nor those that a deleted
//! Deployment left to its pods: nothing keeps their pods in number.

use barge_proto::v1::{
    LabelSelector, ObjectMeta, OwnerReference, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
    Revision,
};

use crate::kind::Kind;

/// The label that tells the pods of one revision from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";
/// The annotation with the number of a Deployment's revision.
const NUMBER: &str = "deployment.kubernetes.io/revision";
const DEPLOYMENT: &str = "Deployment";
const REPLICA_SET: &str = "ReplicaSet";

/// The Deployment that a Revision is shown as a ReplicaSet of; none for a Revision that is not shown.
pub fn deployment(revision: &Revision) -> Option<&OwnerReference> {
    let meta = revision.meta();
    if !meta.labels.contains_key(HASH_LABEL) {
        return None;
    }
    let mut owners = meta.owner_references.iter();
    owners.find(|owner| owner.controller == Some(true) && owner.kind == DEPLOYMENT)
}

/// The Revision as a ReplicaSet; `None` when it is not shown.
pub fn replica_set(revision: &Revision) -> Option<ReplicaSet> {
    deployment(revision)?;
    let mut metadata = revision.meta().clone();
    let number = revision.number.to_string();
    metadata.annotations.insert(NUMBER.to_owned(), number);
    // Nobody counts any more, and all pods have been asked to end.
    let ends = metadata.deletion_timestamp.is_some();
    let status = revision.status.filter(|_| !ends).unwrap_or_default();
    Some(ReplicaSet {
        spec: Some(ReplicaSetSpec {
            replicas: Some(status.desired),
            selector: Some(LabelSelector {
                match_labels: metadata.labels.clone(),
                ..LabelSelector::default()
            }),
            template: revision.template.clone(),
            min_ready_seconds: 0,
        }),
        status: Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.replicas,
            observed_generation: metadata.generation,
            ready_replicas: status.ready,
            available_replicas: status.available,
            conditions: Vec::new(),
        }),
        metadata: Some(metadata),
        ..ReplicaSet::default()
    })
}

/// Names the ReplicaSet as the controller of a pod whose record names its Deployment.
pub(crate) fn show_owner(pod: &mut ObjectMeta, template: &Revision) {
    let Some(deployment) = deployment(template) else {
        return;
    };
    for owner in &mut pod.owner_references {
        if owner.controller == Some(true) && owner.uid == deployment.uid {
            REPLICA_SET.clone_into(&mut owner.kind);
            owner.name.clone_from(&template.meta().name);
            owner.uid.clone_from(&template.meta().uid);
        }
    }
}
