#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What applying means, by the state.

use std::sync::LazyLock;

use barge_proto::v1::{
    ClusterRecord, ClusterRole, ConfigMap, Container, Deployment, DeploymentSpec, Kind,
    LabelSelector, Node, NodeSpec, OwnerReference, PodSpec, PodTemplateSpec, Secret, Service,
    ServicePort, ServiceSpec, Taint, change::Change as Action,
};

use prost::Message as _;

use super::*;
use crate::pki::{Keyring, keyring::KeyFile};

mod annotations;
mod nodes;
mod pods;
mod reserved;
mod security;

static NONE: ReservedPorts = ReservedPorts::NONE;

static KINDS: LazyLock<Registry> = LazyLock::new(Registry::default);

static STAMP: LazyLock<Stamp<'static>> = LazyLock::new(|| Stamp {
    seed: 1,
    now: Time {
        seconds: 1,
        nanos: 0,
    },
    reserved: &NONE,
    kinds: &KINDS,
});

fn meta(namespace: &str, name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..ObjectMeta::default()
    })
}

fn labels(value: &str) -> std::collections::BTreeMap<String, String> {
    [("app".to_owned(), value.to_owned())].into()
}

fn pod_spec(image: &str) -> PodSpec {
    PodSpec {
        containers: vec![Container {
            name: "main".to_owned(),
            image: image.to_owned(),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

fn deployment(app: &str, replicas: Option<i32>) -> Object {
    Deployment {
        metadata: meta("", "web"),
        spec: Some(DeploymentSpec {
            replicas,
            selector: Some(LabelSelector {
                match_labels: labels(app),
                ..LabelSelector::default()
            }),
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: labels(app),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec("web:1")),
            }),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
    .into()
}

fn service(kind: &str, ports: &[i32]) -> Object {
    Service {
        metadata: meta("", "web"),
        spec: Some(ServiceSpec {
            r#type: kind.to_owned(),
            selector: labels("web"),
            ports: ports
                .iter()
                .map(|port| ServicePort {
                    name: format!("p{port}"),
                    port: *port,
                    ..ServicePort::default()
                })
                .collect(),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
    .into()
}

fn pod(image: &str) -> Object {
    Pod {
        metadata: meta("", "one"),
        spec: Some(pod_spec(image)),
        ..Pod::default()
    }
    .into()
}

fn state() -> State {
    let mut draft = Draft::new();
    let with_uid = |name: &str| {
        Some(ObjectMeta {
            name: name.to_owned(),
            uid: name.to_owned(),
            ..ObjectMeta::default()
        })
    };
    draft.put(ClusterRecord {
        metadata: with_uid("cluster"),
        service_cidr: "10.96.0.0/16".to_owned(),
        ..ClusterRecord::default()
    });
    draft.put(Namespace {
        metadata: with_uid("default"),
        ..Namespace::default()
    });
    draft.put(Node {
        metadata: with_uid("n1"),
        spec: Some(NodeSpec {
            pod_cidr: "10.244.0.0/24".to_owned(),
            ..NodeSpec::default()
        }),
        ..Node::default()
    });
    let mut state = State::default();
    commit(&mut state, draft);
    state
}

fn commit(state: &mut State, draft: Draft) {
    let outcome = state.apply(1, draft.build("t".to_owned(), None)).outcome;
    assert_eq!(outcome.refusal, None);
}

fn vault() -> Vault {
    let key = KeyFile::decode(&[7; 32]).expect("a key");
    Vault::new(Keyring::new(std::path::Path::new(""), key))
}

/// Plans as the leader does.
fn planned(state: &State, objects: Vec<Object>) -> Result<(Draft, Vec<Planned>), ApiError> {
    let wanted = prepare(&KINDS, &objects, "", false)?;
    let merged = merge(&wanted, &there(state, &wanted), &vault(), &STAMP)?;
    Ok(plan(state, merged, &STAMP, true)?.expect("nothing changes meanwhile"))
}

/// Applies as the leader does, and tells what became of each object.
fn apply(state: &mut State, objects: Vec<Object>) -> Result<Vec<ApplyOutcome>, ApiError> {
    let (draft, planned) = planned(state, objects)?;
    if !draft.is_empty() {
        commit(state, draft);
    }
    Ok(planned.into_iter().map(|planned| planned.outcome).collect())
}

fn one(state: &mut State, object: Object) -> Result<ApplyOutcome, ApiError> {
    apply(state, vec![object]).map(|outcomes| outcomes[0])
}

/// Puts an object in the place of what there is, as the leader does.
fn replace(state: &mut State, object: Object) -> Result<ApplyOutcome, ApiError> {
    replace_by(barge_proto::level::NEWEST, state, object)
}

fn replace_by(known: u32, state: &mut State, object: Object) -> Result<ApplyOutcome, ApiError> {
    let objects = [object];
    let wanted = prepare(&KINDS, &objects, "", false)?.replacing(known);
    let merged = merge(&wanted, &there(state, &wanted), &vault(), &STAMP)?;
    let (draft, planned) = plan(state, merged, &STAMP, true)?.expect("nothing changes meanwhile");
    if !draft.is_empty() {
        commit(state, draft);
    }
    Ok(planned[0].outcome)
}

fn get<T: TryFrom<Object>>(state: &State, kind: Kind, namespace: &str, name: &str) -> T {
    let object = state.object(kind, namespace, name).unwrap();
    T::try_from(object).unwrap_or_else(|_| panic!("another kind"))
}

#[test]
fn the_same_again_changes_nothing() {
    let mut state = state();
    let all = || {
        vec![
            deployment("web", Some(3)),
            service("LoadBalancer", &[80, 443]),
            pod("web:1"),
        ]
    };
    let created = [ApplyOutcome::Created; 3];
    assert_eq!(apply(&mut state, all()).unwrap(), created);
    let revision = state.revision();
    let unchanged = [ApplyOutcome::Unchanged; 3];
    assert_eq!(apply(&mut state, all()).unwrap(), unchanged);
    // What was read from the cluster, status and all, can be applied as it is.
    let read = [
        (Kind::Deployment, "web"),
        (Kind::Service, "web"),
        (Kind::Pod, "one"),
    ]
    .map(|(kind, name)| state.object(kind, "default", name).unwrap());
    assert_eq!(apply(&mut state, read.to_vec()).unwrap(), unchanged);
    assert_eq!(state.revision(), revision);
}

#[test]
fn replicas_that_are_left_out_stay() {
    let mut state = state();
    one(&mut state, deployment("web", None)).unwrap();
    let replicas = |state: &State| {
        let found: Deployment = get(state, Kind::Deployment, "default", "web");
        found.spec.unwrap().replicas
    };
    assert_eq!(replicas(&state), Some(1));
    one(&mut state, deployment("web", Some(5))).unwrap();
    one(&mut state, deployment("web", None)).unwrap();
    assert_eq!(replicas(&state), Some(5));
    one(&mut state, deployment("web", Some(0))).unwrap();
    assert_eq!(replicas(&state), Some(0));
}

#[test]
fn what_cannot_change_is_named() {
    let mut state = state();
    one(&mut state, deployment("web", None)).unwrap();
    one(&mut state, pod("web:1")).unwrap();
    for (object, field) in [
        (deployment("other", None), "spec.selector"),
        (pod("web:2"), "spec"),
    ] {
        let error = one(&mut state, object).unwrap_err();
        let ApiError::Invalid(violations) = error else {
            panic!("{error}");
        };
        assert!(violations[0].field.ends_with(field), "{violations:?}");
    }
}

#[test]
fn a_service_keeps_its_address_and_ports() {
    let mut state = state();
    one(&mut state, service("NodePort", &[80])).unwrap();
    let first: Service = get(&state, Kind::Service, "default", "web");
    one(&mut state, service("NodePort", &[443, 80])).unwrap();
    let second: Service = get(&state, Kind::Service, "default", "web");
    let (first, second) = (first.spec.unwrap(), second.spec.unwrap());
    assert_eq!(first.cluster_ip, second.cluster_ip);
    assert_eq!(first.ports[0].node_port, second.ports[1].node_port);
    assert_ne!(second.ports[0].node_port, second.ports[1].node_port);
    one(&mut state, service("ClusterIP", &[80])).unwrap();
    let third: Service = get(&state, Kind::Service, "default", "web");
    assert_eq!(third.spec.unwrap().ports[0].node_port, 0);
}

#[test]
fn two_services_of_one_request_share_nothing() {
    let mut state = state();
    let mut other = service("NodePort", &[80]);
    other.metadata_mut().unwrap().name = "other".to_owned();
    apply(&mut state, vec![service("NodePort", &[80]), other]).unwrap();
    let one: Service = get(&state, Kind::Service, "default", "web");
    let two: Service = get(&state, Kind::Service, "default", "other");
    let (one, two) = (one.spec.unwrap(), two.spec.unwrap());
    assert_ne!(one.cluster_ip, two.cluster_ip);
    assert_ne!(one.ports[0].node_port, two.ports[0].node_port);
}

#[test]
fn a_namespace_has_to_be_there_or_come_along() {
    let mut state = state();
    let inside = || {
        let mut object = deployment("web", None);
        object.metadata_mut().unwrap().namespace = "team".to_owned();
        object
    };
    let error = one(&mut state, inside()).unwrap_err();
    assert_eq!(error.reason().0, "NOT_FOUND");
    let namespace = Namespace {
        metadata: meta("", "team"),
        ..Namespace::default()
    };
    // In whatever order.
    let outcomes = apply(&mut state, vec![inside(), namespace.into()]).unwrap();
    assert_eq!(outcomes, [ApplyOutcome::Created; 2]);
}

#[test]
fn all_or_nothing() {
    let mut state = state();
    let revision = state.revision();
    let error = apply(
        &mut state,
        vec![deployment("web", None), deployment("web", Some(-1))],
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("twice"), "{text}");
    let mut other = deployment("web", Some(-1));
    other.metadata_mut().unwrap().name = "other".to_owned();
    let error = apply(&mut state, vec![deployment("web", None), other]).unwrap_err();
    assert!(error.to_string().contains("spec.replicas"), "{error}");
    assert_eq!(state.revision(), revision);
}

#[test]
fn an_owner_has_to_be_there_and_in_the_same_namespace() {
    let mut state = state();
    let team = Namespace {
        metadata: meta("", "team"),
        ..Namespace::default()
    };
    apply(&mut state, vec![team.into(), deployment("web", Some(0))]).unwrap();
    let web = state.object(Kind::Deployment, "default", "web").unwrap();
    let owned = |namespace: &str, uid: &str| {
        let mut service = service("ClusterIP", &[80]);
        let meta = service.metadata_mut().unwrap();
        meta.namespace = namespace.to_owned();
        meta.owner_references = vec![OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        }];
        service
    };
    let gone = one(&mut state, owned("default", "gone")).unwrap_err();
    assert!(
        gone.to_string()
            .contains("no deployment web with the uid gone"),
        "{gone}"
    );
    let apart = one(&mut state, owned("team", web.uid())).unwrap_err();
    assert!(
        apart.to_string().contains("in the namespace default"),
        "{apart}"
    );
    let created = one(&mut state, owned("default", web.uid())).unwrap();
    assert_eq!(created, ApplyOutcome::Created);
    let mut draft = Draft::new();
    draft.remove::<Deployment>(web.uid());
    commit(&mut state, draft);
    assert!(
        state.object(Kind::Service, "default", "web").is_none(),
        "it goes with its owner"
    );
}

#[test]
fn another_version_or_incarnation_is_a_conflict() {
    let mut state = state();
    one(&mut state, deployment("web", None)).unwrap();
    for field in ["uid", "version"] {
        let mut object = deployment("web", Some(2));
        let meta = object.metadata_mut().unwrap();
        match field {
            "uid" => meta.uid = "another".to_owned(),
            _ => meta.resource_version = "1".to_owned(),
        }
        let error = one(&mut state, object).unwrap_err();
        assert!(
            matches!(error, ApiError::Conflict(_) | ApiError::Invalid(_)),
            "{error}"
        );
    }
}

#[test]
fn what_the_managers_keep_is_not_applied() {
    let event = barge_proto::v1::Event::default();
    let error = prepare(&KINDS, &[event.into()], "", false).unwrap_err();
    assert!(error.to_string().contains("cannot be applied"));
}

#[test]
fn a_plan_of_an_old_state_is_refused() {
    let mut state = state();
    one(&mut state, deployment("web", Some(1))).unwrap();
    let (late, _) = planned(&state, vec![deployment("web", Some(2))]).unwrap();
    one(&mut state, deployment("web", Some(3))).unwrap();
    let outcome = state.apply(1, late.build("t".to_owned(), None)).outcome;
    assert!(outcome.refusal.is_some());
    let found: Deployment = get(&state, Kind::Deployment, "default", "web");
    assert_eq!(found.spec.unwrap().replicas, Some(3));
}

#[test]
fn a_pod_of_its_own_has_a_template_of_its_own() {
    let mut state = state();
    let (draft, _) = planned(&state, vec![pod("web:1")]).unwrap();
    let transaction = draft.build("t".to_owned(), None);
    let puts = transaction
        .changes
        .iter()
        .filter(|change| matches!(change.change, Some(Action::Put(_))));
    assert_eq!(puts.count(), 2);
    one(&mut state, pod("web:1")).unwrap();
    let found: Pod = get(&state, Kind::Pod, "default", "one");
    assert_eq!(found.spec.unwrap().containers[0].image, "web:1");
    assert_eq!(found.status.unwrap().phase, "Pending");
}

fn secret(password: &str) -> Secret {
    Secret {
        metadata: meta("default", "db"),
        string_data: [("password".to_owned(), password.to_owned())].into(),
        ..Secret::default()
    }
}

#[test]
fn a_secret_is_sealed_before_it_is_proposed_and_not_written_again_when_it_is_the_same() {
    let mut state = state();
    let created = one(&mut state, secret("hunter2").into()).unwrap();
    assert_eq!(created, ApplyOutcome::Created);
    let kept = |state: &State| state.get::<Secret>("default", "db").unwrap().clone();
    let first = kept(&state);
    let bytes = first.encode_to_vec();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(first.r#type, "Opaque");
    let again = one(&mut state, secret("hunter2").into()).unwrap();
    assert_eq!(again, ApplyOutcome::Unchanged);
    let other = one(&mut state, secret("hunter3").into()).unwrap();
    assert_eq!(other, ApplyOutcome::Configured);
    assert_ne!(kept(&state).data, first.data);
    assert_eq!(kept(&state).meta().generation, 2);
}

#[test]
fn a_conflict_over_a_secret_shows_no_value() {
    let mut state = state();
    one(&mut state, secret("hunter2").into()).unwrap();
    let other = [secret("hunter3").into()];
    let wanted = prepare(&KINDS, &other, "somebody", false).unwrap();
    let conflict = merge(&wanted, &there(&state, &wanted), &vault(), &STAMP);
    let text = conflict.unwrap_err().to_string();
    assert!(
        text.contains("data.password: was set to another value"),
        "{text}"
    );
    assert!(!text.contains("aHVudGVyM"), "{text}");
}

#[test]
fn an_immutable_secret_takes_labels_only() {
    let mut state = state();
    let fixed = |password| Secret {
        immutable: Some(true),
        ..secret(password)
    };
    one(&mut state, fixed("1").into()).unwrap();
    let mut labelled = fixed("1");
    let labels = &mut labelled.metadata.get_or_insert_default().labels;
    labels.insert("app".into(), "web".into());
    let configured = one(&mut state, labelled.into()).unwrap();
    assert_eq!(configured, ApplyOutcome::Configured);
    let error = one(&mut state, fixed("2").into()).unwrap_err().to_string();
    assert!(
        error.contains("secret/db: data") && error.contains("delete it"),
        "{error}"
    );
}
