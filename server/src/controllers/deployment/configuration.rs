//! `barge.dev/roll-on-config-change`: a Deployment that has this annotation rolls when a ConfigMap or Secret that its pods use changes.
//!
//! The digest of what the pods use becomes an annotation of the template that the pods are made from, so another content is another template, and rolls
//! like one. The Deployment itself stays as its author wrote it.

use barge_proto::{
    configuration::{Source, configuration},
    v1::{ConfigMap, Deployment, PodSpec, PodTemplateSpec, Revision, Secret},
};
use barge_state::{Kind, State, Stored};
use prost::Message;
use sha2::{Digest, Sha256};
use std::sync::Arc;

use crate::controllers::Name;

/// The annotation of Deployments that asks for it, with the value `true`.
pub const ROLL: &str = "barge.dev/roll-on-config-change";
/// The annotation of templates that has the digest.
pub const DIGEST: &str = "barge.dev/configuration";
/// Bytes of the digest that are shown.
const SHOWN: usize = 8;

fn asks(deployment: &Deployment) -> bool {
    let asked = deployment.meta().annotations.get(ROLL);
    asked.is_some_and(|value| value == "true")
}

/// The digest that the Deployment's template gets; `None` when it does not ask for one, or its pods use nothing. While something that they use is missing it is
/// that of the newest revision: a rollout would replace pods that run by pods that wait.
pub fn digest(
    state: &State,
    deployment: &Deployment,
    revisions: &[&Arc<Revision>],
) -> Option<String> {
    if !asks(deployment) {
        return None;
    }
    let spec = pod_spec(deployment)?;
    let namespace = &deployment.meta().namespace;
    let mut digest = Sha256::new();
    let mut any = false;
    for (source, name) in configuration(spec) {
        let content = match source {
            Source::ConfigMap => state.get::<ConfigMap>(namespace, name).map(|it| {
                ConfigMap {
                    data: it.data.clone(),
                    binary_data: it.binary_data.clone(),
                    ..ConfigMap::default()
                }
                .encode_to_vec()
            }),
            // As it is kept: sealed. It is sealed anew only when it changes.
            Source::Secret => state.get::<Secret>(namespace, name).map(|it| {
                Secret {
                    r#type: it.r#type.clone(),
                    data: it.data.clone(),
                    ..Secret::default()
                }
                .encode_to_vec()
            }),
            Source::ServiceAccount => continue,
        };
        let Some(content) = content else {
            return of_newest(revisions);
        };
        any = true;
        for part in [source.kind().as_bytes(), name.as_bytes(), &content] {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            digest.update(part);
        }
    }
    let digest = digest.finalize();
    any.then(|| digest[..SHOWN].iter().map(|b| format!("{b:02x}")).collect())
}

fn of_newest(revisions: &[&Arc<Revision>]) -> Option<String> {
    let template = revisions.last()?.template.as_ref()?;
    template.metadata.as_ref()?.annotations.get(DIGEST).cloned()
}

fn pod_spec(deployment: &Deployment) -> Option<&PodSpec> {
    deployment.spec.as_ref()?.template.as_ref()?.spec.as_ref()
}

/// Takes the digest out of a template that becomes a Deployment's own.
pub fn without_digest(template: &mut PodTemplateSpec) {
    if let Some(metadata) = &mut template.metadata {
        metadata.annotations.remove(DIGEST);
    }
}

/// The Deployments that look at a ConfigMap or Secret.
pub fn concerned(state: &State, record: &Stored, found: &mut dyn FnMut(Name)) {
    let source = match record {
        Stored::ConfigMap(_) => Source::ConfigMap,
        Stored::Secret(_) => Source::Secret,
        _ => return,
    };
    let here = state.list::<Deployment>(Some(record.namespace()));
    for deployment in here.filter(|it| asks(it)) {
        let uses = |spec| configuration(spec).contains(&(source, record.name()));
        if pod_spec(deployment).is_some_and(uses) {
            found(Name::of(deployment.meta()));
        }
    }
}
