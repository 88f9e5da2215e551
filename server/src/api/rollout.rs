//! Rollouts by hand: pause, resume, restart, undo; and the history of templates.

use std::sync::Arc;

use barge_proto::v1::{
    Deployment, Kind, Namespace, Object, Revision, RolloutHistoryRequest, RolloutHistoryResponse,
    RolloutRequest, RolloutResponse, TemplateRevision, Time, rollout_request::Action,
};
use barge_proto::validate::Levels;
use barge_state::{Kind as _, State};

use super::{
    commit::{Committed, after, commit, digest, rehearse, request_record},
    ownership,
    plan::judge,
};
use crate::{
    calls::names,
    controllers::deployment::as_written,
    error::ApiError,
    runtime::clock,
    storage::lock::By,
    store::{Store, transaction::Draft},
};

/// kubectl's: a template with another time makes other pods.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Changes a rollout at the leader.
///
/// # Errors
/// NOT_FOUND for the object or the template; CONFLICT when it has changed or is being deleted; PRECONDITION for what a paused
/// rollout cannot do; INVALID for a kind without rollouts or a request without an action.
pub async fn change(
    store: &Store,
    by: String,
    mut request: RolloutRequest,
) -> Result<RolloutResponse, ApiError> {
    let id = request.request_id.take();
    let record = match request.dry_run {
        true => None,
        false => request_record(store, id.as_ref(), || Ok(digest(&request)))?,
    };
    let namespace = namespace(request.kind, &request.namespace)?.to_owned();
    let manager = ownership::manager(&request.field_manager)?;
    let now = clock::now();
    let plan = |store: &Store| {
        store.read_by(By::Plan, |state| {
            plan(state, &namespace, &request, manager, now)
        })
    };
    if request.dry_run {
        let (before, changes) = rehearse(store, by, plan).await?;
        return Ok(RolloutResponse {
            object: Some(after(store, &changes, before)),
            revision: store.read(State::revision),
        });
    }
    let committed = commit(store, by, record, plan).await?;
    Ok(store.read(|state| RolloutResponse {
        object: state.object(Kind::Deployment, &namespace, &request.name),
        revision: match committed {
            Committed::Applied(_, outcome) | Committed::Repeated(outcome) => outcome.revision,
            Committed::Nothing(_) => state.revision(),
        },
    }))
}

/// The templates that an object has had.
///
/// # Errors
/// NOT_FOUND; INVALID for a kind without rollouts.
pub fn history(
    state: &State,
    request: &RolloutHistoryRequest,
) -> Result<RolloutHistoryResponse, ApiError> {
    let namespace = namespace(request.kind, &request.namespace)?;
    let deployment = find(state, namespace, &request.name)?;
    let revisions = revisions(state, deployment);
    Ok(RolloutHistoryResponse {
        revisions: revisions.into_iter().map(shown).collect(),
        revision: state.revision(),
    })
}

fn namespace(kind: i32, namespace: &str) -> Result<&str, ApiError> {
    let (kind, info) = names::kind(kind)?;
    match kind {
        Kind::Deployment => Ok(names::namespace(info, namespace)),
        _ => Err(ApiError::invalid(
            "kind",
            format!("{} have no rollouts", info.plural),
        )),
    }
}

fn find<'a>(
    state: &'a State,
    namespace: &str,
    name: &str,
) -> Result<&'a Arc<Deployment>, ApiError> {
    let (_, info) = names::kind(Kind::Deployment.into())?;
    let found = state.get::<Deployment>(namespace, name);
    found.ok_or_else(|| names::not_found(info, namespace, name))
}

/// Oldest first.
fn revisions<'a>(state: &'a State, deployment: &Deployment) -> Vec<&'a Arc<Revision>> {
    let mut revisions: Vec<_> = state.owned::<Revision>(deployment.uid()).collect();
    revisions.sort_by_key(|revision| revision.number);
    revisions
}

fn shown(revision: &Arc<Revision>) -> TemplateRevision {
    let meta = revision.meta();
    TemplateRevision {
        number: revision.number,
        name: meta.name.clone(),
        created: meta.creation_timestamp,
        template: revision.template.clone(),
    }
}

fn plan(
    state: &State,
    namespace: &str,
    request: &RolloutRequest,
    manager: &str,
    now: Time,
) -> Result<(Draft, Object), ApiError> {
    let name = &request.name;
    let found = find(state, namespace, name)?;
    names::check_current(name, found.meta(), &request.resource_version)?;
    let mut changed = Deployment::clone(found);
    let spec = changed.spec.get_or_insert_default();
    let not_while_paused = |what: &str| match spec.paused {
        true => Err(ApiError::Precondition(format!(
            "deployment {name} is paused and cannot be {what}: resume it first"
        ))),
        false => Ok(()),
    };
    match &request.action {
        Some(Action::Pause(paused)) => spec.paused = *paused,
        Some(Action::Restart(_)) => {
            not_while_paused("restarted")?;
            let template = spec.template.get_or_insert_default();
            let annotations = &mut template.metadata.get_or_insert_default().annotations;
            annotations.insert(RESTARTED_AT.to_owned(), now.to_string());
        }
        Some(Action::Undo(number)) => {
            not_while_paused("rolled back")?;
            let earlier = earlier(&revisions(state, found), *number, name)?;
            spec.template = earlier.template.as_ref().map(as_written);
            // It may ask for more than its namespace allows by now.
            let place = state.get::<Namespace>("", namespace);
            let levels = place.map(|place| Levels::of(place.meta()));
            judge(&changed.clone().into(), levels.unwrap_or_default())?;
        }
        None => return Err(ApiError::invalid("action", "is required")),
    }
    let mut draft = Draft::new();
    ownership::change(&mut draft, &**found, changed, manager, now)?;
    Ok((draft, Object::from(Deployment::clone(found)).typed()))
}

/// The revision to go back to.
fn earlier<'a>(
    revisions: &[&'a Arc<Revision>],
    number: i64,
    name: &str,
) -> Result<&'a Arc<Revision>, ApiError> {
    let found = match number {
        0 => revisions.iter().rev().nth(1),
        number => revisions.iter().find(|r| r.number == number),
    };
    found.copied().ok_or_else(|| {
        let numbers: Vec<_> = revisions.iter().map(|r| r.number.to_string()).collect();
        ApiError::NotFound(match number {
            0 => format!("deployment {name} has no earlier revision to go back to"),
            number => format!(
                "deployment {name} has no revision {number}; there are {}",
                numbers.join(", ")
            ),
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use barge_proto::v1::{ObjectMeta, SecurityContext, record::Record};

    use super::*;
    use crate::controllers::{
        Name, deployment,
        testing::{World, nginx, set_image},
    };

    #[test]
    fn a_template_that_the_namespace_does_not_allow_any_more_does_not_come_back() {
        let mut world = World::default();
        world.raise(barge_state::LEVEL);
        let uid = world.uid();
        world.put(Record::Namespace(Namespace {
            metadata: Some(ObjectMeta {
                name: "default".to_owned(),
                uid,
                ..ObjectMeta::default()
            }),
            ..Namespace::default()
        }));
        let uid = world.uid();
        world.put(nginx(&uid, 1));
        let key = Name {
            namespace: "default".to_owned(),
            name: "nginx-deployment".to_owned(),
        };
        for (image, privileged) in [("nginx:1", true), ("nginx:2", false), ("nginx:3", false)] {
            world.edit("nginx-deployment", |spec| {
                set_image(spec, image);
                let template = spec.template.as_mut().unwrap().spec.as_mut().unwrap();
                template.containers[0].security_context = privileged.then(|| SecurityContext {
                    privileged: Some(true),
                    ..SecurityContext::default()
                });
            });
            let mut stamp = world.stamp();
            let plan = deployment::plan(&world.state, &key, &mut stamp);
            world.follow(plan);
        }
        let undo = |number| {
            let request = RolloutRequest {
                name: "nginx-deployment".to_owned(),
                action: Some(Action::Undo(number)),
                ..RolloutRequest::default()
            };
            plan(&world.state, "default", &request, "test", world.now)
        };
        assert!(undo(2).is_ok());
        let Err(ApiError::Invalid(violations)) = undo(1) else {
            panic!("it is taken");
        };
        let said = &violations[0].description;
        assert!(
            said.contains("pod-security.kubernetes.io/enforce=baseline"),
            "{said}"
        );
    }
}
