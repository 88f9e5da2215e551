//! Rollouts by hand: pause, resume, restart, undo; and the history of templates.

use std::sync::Arc;

use barge_proto::v1::{
    Deployment, Kind, Namespace, Object, PodTemplateSpec, Revision, RolloutHistoryRequest,
    RolloutHistoryResponse, RolloutRequest, RolloutResponse, TemplateRevision, Time,
    rollout_request::Action,
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
        let found = store.read_by(By::Plan, |state| Found::read(state, &namespace, &request))?;
        // Without the state's lock: it takes as long as the object is large.
        plan(&found, &request, manager, now)
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

/// What a plan needs of the state.
struct Found {
    deployment: Arc<Deployment>,
    /// Oldest first.
    revisions: Vec<Arc<Revision>>,
    /// What its namespace allows pods.
    levels: Levels,
}

impl Found {
    fn read(state: &State, namespace: &str, request: &RolloutRequest) -> Result<Self, ApiError> {
        let deployment = find(state, namespace, &request.name)?;
        names::check_current(&request.name, deployment.meta(), &request.resource_version)?;
        let place = state.get::<Namespace>("", namespace);
        let levels = place.map(|place| Levels::of(place.meta()));
        Ok(Self {
            revisions: revisions(state, deployment).into_iter().cloned().collect(),
            deployment: Arc::clone(deployment),
            levels: levels.unwrap_or_default(),
        })
    }
}

fn plan(
    found: &Found,
    request: &RolloutRequest,
    manager: &str,
    now: Time,
) -> Result<(Draft, Object), ApiError> {
    let (name, deployment) = (&request.name, &*found.deployment);
    let mut changed = deployment.clone();
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
            let present = spec.template.as_ref().map(as_written);
            let earlier = earlier(&found.revisions, *number, name, present.as_ref())?;
            spec.template = earlier.template.as_ref().map(as_written);
            // It may ask for more than its namespace allows by now.
            judge(&changed.clone().into(), found.levels)?;
        }
        None => return Err(ApiError::invalid("action", "is required")),
    }
    let mut draft = Draft::new();
    ownership::change(&mut draft, deployment, changed, manager, now)?;
    Ok((draft, Object::from(deployment.clone()).typed()))
}

/// The revision to go back to: the one of that number, or for 0 the newest one that is another template than `present`.
fn earlier<'a>(
    revisions: &'a [Arc<Revision>],
    number: i64,
    name: &str,
    present: Option<&PodTemplateSpec>,
) -> Result<&'a Arc<Revision>, ApiError> {
    let is_present = |it: &&Arc<Revision>| it.template.as_ref().map(as_written).as_ref() == present;
    let newest = revisions.last().map_or(0, |newest| newest.number);
    let found = match number {
        0 => revisions.iter().rev().find(|it| !is_present(it)),
        number => revisions.iter().find(|r| r.number == number),
    };
    let nothing_else = match number {
        0 => found.is_none() && revisions.len() > 1,
        number => number != newest && found.is_some_and(|it| is_present(&it)),
    };
    if nothing_else {
        return Err(ApiError::Precondition(format!(
            "deployment {name} has its present template there, too: what differs is the content of ConfigMaps and Secrets that its pods use, which no \
             undo brings back; change it back in these objects"
        )));
    }
    found.ok_or_else(|| {
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
    use barge_proto::{
        configuration::ROLL,
        v1::{
            ConfigMap, ConfigMapEnvSource, EnvFromSource, ObjectMeta, SecurityContext,
            record::Record,
        },
    };

    use super::*;
    use crate::controllers::{
        Name, deployment,
        testing::{World, nginx, set_image},
    };

    /// A template whose containers see a ConfigMap, and that rolls with it.
    fn configured(world: &mut World) {
        let mut deployment = Deployment::clone(&world.deployment("nginx-deployment"));
        let annotations = &mut deployment.metadata.as_mut().unwrap().annotations;
        annotations.insert(ROLL.to_owned(), "true".to_owned());
        world.put(Record::Deployment(deployment));
        world.edit("nginx-deployment", |spec| {
            let template = spec.template.as_mut().unwrap().spec.as_mut().unwrap();
            template.containers[0].env_from = vec![EnvFromSource {
                config_map_ref: Some(ConfigMapEnvSource {
                    name: "web".to_owned(),
                    ..ConfigMapEnvSource::default()
                }),
                ..EnvFromSource::default()
            }];
        });
    }

    #[test]
    fn an_undo_goes_back_to_another_template_and_not_to_another_configuration() {
        let mut world = World::default();
        world.raise(barge_state::LEVEL);
        let uid = world.uid();
        world.put(nginx(&uid, 1));
        let key = Name {
            namespace: "default".to_owned(),
            name: "nginx-deployment".to_owned(),
        };
        configured(&mut world);
        let map = world.uid();
        let roll = |world: &mut World, image: Option<&str>, value: &str| {
            world.put(Record::ConfigMap(ConfigMap {
                metadata: Some(ObjectMeta {
                    name: "web".to_owned(),
                    namespace: "default".to_owned(),
                    uid: map.clone(),
                    ..ObjectMeta::default()
                }),
                data: [("key".to_owned(), value.to_owned())].into(),
                ..ConfigMap::default()
            }));
            if let Some(image) = image {
                world.edit("nginx-deployment", |spec| set_image(spec, image));
            }
            let mut stamp = world.stamp();
            let plan = deployment::plan(&world.state, &key, &mut stamp);
            world.follow(plan);
        };
        let undo = |world: &World, number| {
            let request = RolloutRequest {
                name: "nginx-deployment".to_owned(),
                action: Some(Action::Undo(number)),
                ..RolloutRequest::default()
            };
            let found = Found::read(&world.state, "default", &request)?;
            let revisions = &found.revisions;
            let present = found.deployment.spec.clone().unwrap().template;
            let present = present.as_ref().map(as_written);
            let back = earlier(revisions, number, "web", present.as_ref())?;
            let back = back.template.clone().unwrap().spec.unwrap();
            plan(&found, &request, "test", world.now)?;
            Ok::<_, ApiError>(back.containers[0].image.clone())
        };
        roll(&mut world, Some("nginx:1"), "one");
        let none = undo(&world, 0).unwrap_err();
        assert!(matches!(none, ApiError::NotFound(_)), "{none}");
        roll(&mut world, None, "two");
        let none = undo(&world, 0).unwrap_err();
        assert!(
            none.to_string().contains("change it back in these objects"),
            "{none}"
        );
        roll(&mut world, Some("nginx:2"), "two");
        roll(&mut world, None, "three");
        roll(&mut world, None, "four");
        assert_eq!(undo(&world, 0).unwrap(), "nginx:1");
    }

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
            let found = Found::read(&world.state, "default", &request).unwrap();
            plan(&found, &request, "test", world.now)
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
