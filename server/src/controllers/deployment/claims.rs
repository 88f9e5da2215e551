//! Which pods are a Deployment's. Each of its templates has a ReplicaSet's place: the selector of its pods is the Deployment's, and the label that
//! tells the templates apart.

use super::{API_VERSION, KIND, revisions::HASH_LABEL};
use crate::controllers::{
    plan::{self, Plan, Severity, controller_reference, object_reference},
    replicas::{claims::Claims, told},
    stamp::Stamp,
};
use barge_proto::{
    selector::{Labels, Selector},
    v1::{Deployment, DeploymentSpec, Revision},
};
use barge_state::{Kind, PackedPod, State, labels_of};
use std::sync::Arc;

/// Pods that are not with this Deployment and belong to it, and the other way round. It adopts pods that are made from its own templates only: of another one
/// it could not say where in a rollout it stands.
pub fn find<'a>(
    state: &'a State,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    owned: &[&'a Arc<PackedPod>],
) -> Claims<'a> {
    // Validation let in nothing that is none. Pods whose own template is not selected would be released and made anew without end.
    let selector = spec
        .selector
        .as_ref()
        .and_then(|it| Selector::try_from(it).ok());
    let selector = selector.filter(|it| it.matches(labels_of(spec.template.as_ref())));
    let Some(selector) = selector else {
        return Claims::default();
    };
    let selects = |template: &Revision, labels: &Labels| {
        selector.matches(labels)
            && labels.get(HASH_LABEL) == labels_of(template.template.as_ref()).get(HASH_LABEL)
    };
    let is_ours = |pod: &PackedPod| {
        let template = state.template(pod);
        let mut owners = template.iter().flat_map(|it| &it.meta().owner_references);
        owners.any(|owner| owner.uid == deployment.uid())
    };
    Claims::find(state, deployment.meta(), owned, selects, is_ours)
}

/// Takes the pods to where they belong. What there is to be made or ended is seen afterwards.
pub fn claim(deployment: &Deployment, claims: &Claims<'_>, stamp: &mut Stamp, plan: &mut Plan) {
    let owner = deployment.meta();
    let [released, adopted] = claims.make(&controller_reference(API_VERSION, KIND, owner), plan);
    let mut tell = |reason: &str, message: String| {
        let about = object_reference(API_VERSION, KIND, owner);
        let component = "deployment-controller";
        let severity = Severity::Normal;
        let event = plan::event(stamp, component, about, severity, reason, message);
        plan.draft.event(event);
    };
    if !released.is_empty() {
        let why = "the selector does not select their labels";
        tell(
            "ReleasedPod",
            format!("{}: {why}", told("Released", &released)),
        );
    }
    if !adopted.is_empty() {
        tell("AdoptedPod", told("Adopted", &adopted));
    }
}
