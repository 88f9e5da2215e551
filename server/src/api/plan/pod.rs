//! Applying pods without an owner: each has a template of its own.

use barge_proto::v1::{
    ApplyOutcome, Object, ObjectMeta, OwnerReference, Pod, PodRecord, PodSpec, PodStatus,
    PodTemplateSpec, Revision,
};
use barge_state::Kind;

use super::{Planning, check_update, meta};
use crate::{error::ApiError, runtime::clock};

/// Plans a pod: created, or found to be what is there already.
///
/// # Errors
/// INVALID when it differs from the pod that is there: pods do not change.
pub fn plan(planning: &mut Planning<'_>, new: &Pod) -> Result<(ApplyOutcome, Object), ApiError> {
    let wanted = new.metadata.clone().unwrap_or_default();
    let found = planning
        .state
        .get::<PodRecord>(&wanted.namespace, &wanted.name);
    meta::check(&wanted, found.map(|pod| pod.meta()).as_ref())?;
    if let Some(record) = found {
        let now = planning.state.pod(record);
        check_update(now.clone(), new.clone())?;
        return Ok((ApplyOutcome::Unchanged, now.into()));
    }
    let spec = new.spec.clone().unwrap_or_default();
    if !spec.node_name.is_empty() {
        return Err(ApiError::invalid(
            format!("pod/{}: spec.nodeName", wanted.name),
            "is set by the scheduler; spec.nodeSelector chooses nodes",
        ));
    }
    meta::check_owners(planning.state, planning.kinds, &new.clone().into(), None)?;
    let uid = clock::new_uid();
    let template = template(&wanted, &uid, spec.clone());
    let record = PodRecord {
        metadata: Some(ObjectMeta {
            name: wanted.name.clone(),
            namespace: wanted.namespace.clone(),
            uid,
            owner_references: wanted.owner_references.clone(),
            ..ObjectMeta::default()
        }),
        template_uid: template.uid().to_owned(),
        status: Some(PodStatus {
            phase: "Pending".to_owned(),
            ..PodStatus::default()
        }),
        ..PodRecord::default()
    };
    planning
        .draft
        .absent::<PodRecord>(&wanted.namespace, &wanted.name);
    planning.draft.put(template.clone());
    planning.draft.put(record.clone());
    let pod = planning.state.pod_from(record, Some(&template));
    Ok((ApplyOutcome::Created, pod.into()))
}

fn template(meta: &ObjectMeta, pod_uid: &str, spec: PodSpec) -> Revision {
    let uid = clock::new_uid();
    Revision {
        metadata: Some(ObjectMeta {
            // Names of pods come again, before the template of the last one is gone.
            name: uid.clone(),
            namespace: meta.namespace.clone(),
            uid,
            owner_references: vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: meta.name.clone(),
                uid: pod_uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: None,
            }],
            ..ObjectMeta::default()
        }),
        number: 1,
        template: Some(PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: meta.labels.clone(),
                annotations: meta.annotations.clone(),
                ..ObjectMeta::default()
            }),
            spec: Some(spec),
        }),
        status: None,
    }
}
