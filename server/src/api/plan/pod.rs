//! Applying pods. One that is made by applying has a template of its own; afterwards its labels and annotations change, and so do those of pods
//! that a controller made. A pod's record says in what they differ from its template.

use std::sync::Arc;

use barge_proto::{
    selector::Labels,
    v1::{
        ApplyOutcome, Object, ObjectMeta, OwnerReference, Pod, PodRecord, PodSpec, PodStatus,
        PodTemplateSpec, Revision,
    },
    validate,
};
use barge_state::{Kind, Own};

use super::{Planning, check_update, meta};
use crate::{error::ApiError, runtime::clock};

/// The pod after an applier's `config` came over `live`, or took its place. Nobody owns the fields of a pod. So an apply sets the labels and annotations
/// that it names and leaves the others, but for those that the pod was made with by applying: they go when they are left out.
#[must_use]
pub fn merged(
    live: Option<&Object>,
    template: Option<&Revision>,
    config: &Object,
    replaces: bool,
) -> Object {
    let mut merged = config.clone();
    validate::default(&mut merged);
    let (Some(live), Some(meta)) = (live.map(Object::metadata), merged.metadata_mut()) else {
        return merged;
    };
    if !replaces {
        let made_with = template.filter(|template| is_of(template, &live.uid));
        let made_with = made_with.and_then(metadata_of);
        let over = |live: &Labels, made_with: Option<&Labels>, config: &mut Labels| {
            for (key, value) in live {
                if !made_with.is_some_and(|it| it.contains_key(key)) {
                    config.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        };
        over(
            &live.labels,
            made_with.map(|it| &it.labels),
            &mut meta.labels,
        );
        let annotations = made_with.map(|it| &it.annotations);
        over(&live.annotations, annotations, &mut meta.annotations);
    }
    meta::keep_ours(&mut meta.annotations, &live.annotations);
    merged
}

/// Whether a template was made for the pod with this uid.
fn is_of(template: &Revision, uid: &str) -> bool {
    let mut owners = template.meta().owner_references.iter();
    owners.any(|owner| owner.uid == uid)
}

fn metadata_of(template: &Revision) -> Option<&ObjectMeta> {
    template.template.as_ref()?.metadata.as_ref()
}

/// Plans a pod: created, or with other labels and annotations, or found to be what is there already.
///
/// # Errors
/// INVALID when it differs in anything else from the pod that is there.
pub fn plan(planning: &mut Planning<'_>, new: &Pod) -> Result<(ApplyOutcome, Object), ApiError> {
    let wanted = new.metadata.clone().unwrap_or_default();
    let state = planning.state;
    let found = state.get::<PodRecord>(&wanted.namespace, &wanted.name);
    meta::check(&wanted, found.map(|pod| pod.meta()).as_ref())?;
    if let Some(pod) = found {
        let now = state.pod(pod);
        check_update(now.clone(), new.clone())?;
        let template = state.template(pod).map(Arc::as_ref);
        let record = pod.record();
        let changed = labelled(record.clone(), template, &wanted);
        if changed == record {
            return Ok((ApplyOutcome::Unchanged, now.into()));
        }
        planning.draft.unchanged(&record);
        planning.draft.put(changed.clone());
        let pod = state.pod_from(changed, template);
        return Ok((ApplyOutcome::Configured, pod.into()));
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

/// The record of a pod with other labels and annotations.
fn labelled(mut record: PodRecord, template: Option<&Revision>, wanted: &ObjectMeta) -> PodRecord {
    let none = ObjectMeta::default();
    let common = template.and_then(metadata_of).unwrap_or(&none);
    let meta = record.metadata.get_or_insert_default();
    (meta.labels, record.removed_labels) = Own::between(&common.labels, &wanted.labels);
    (meta.annotations, record.removed_annotations) =
        Own::between(&common.annotations, &wanted.annotations);
    record
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
    }
}
