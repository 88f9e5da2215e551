//! A kind that is registered while the cluster runs: its objects are created, listed, watched, authorised and backed up as others are.

use std::{path::Path, sync::Arc};

use barge_client::backup::{Frame, Reader};
use barge_proto::{
    kinds::{CustomKind, KindRef, Registry},
    v1::{
        ApplyOutcome, ApplyRequest, ApplyResponse, ChangeType, ClusterRole, ClusterRoleBinding,
        ConfigMap, CustomObject, DeleteRequest, GetRequest, GroupVersionResource, Kind,
        ListRequest, Namespace, Object, ObjectMeta, PolicyRule, Record, RoleRef, Subject,
        WatchRequest, object, record::Record as Body,
    },
};
use barge_server::{
    api::{
        apply::{Edge, Way, apply},
        delete::delete,
        gate,
        read::{Pins, get, list},
        vault::Vault,
        watch,
    },
    error::ApiError,
    net::reserved::ReservedPorts,
    pki::{Keyring, SealingKey, keyring::KeyFile},
    recovery::backup,
    security::{auth::Access, rbac::Identity},
    store::Store,
};
use barge_state::LEVEL;
use futures::StreamExt;
use prost::Message as _;
use tokio::time::timeout;

use crate::harness::{Cluster, DEADLINE, raise, soon};

const BY: &str = "admin/test";

struct World {
    _cluster: Cluster,
    store: Store,
    kinds: Registry,
    keyring: Keyring,
    vault: Vault,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::new(1).await.started().await;
        let store = cluster.store(1);
        let key = KeyFile::Clear(SealingKey::generate());
        let keyring = Keyring::new(Path::new(""), key);
        let world = Self {
            _cluster: cluster,
            store,
            kinds: Registry::default(),
            vault: Vault::new(keyring.clone()),
            keyring,
        };
        let raised = soon("a level", world.store.propose(raise(LEVEL)))
            .await
            .unwrap();
        assert_eq!(raised.refusal, None);
        let namespace = Namespace {
            metadata: Some(named("", "shop")),
            ..Namespace::default()
        };
        world.apply(namespace.into()).await.unwrap();
        world
    }

    async fn apply(&self, object: Object) -> Result<ApplyResponse, ApiError> {
        let request = ApplyRequest {
            objects: vec![object],
            ..ApplyRequest::default()
        };
        let reserved = ReservedPorts::default();
        let edge = Edge {
            vault: &self.vault,
            reserved: &reserved,
            kinds: &self.kinds,
        };
        let applying = apply(
            &self.store,
            edge,
            BY.to_owned(),
            &Access::Everything,
            (&request, Way::Merged),
            None,
        );
        soon("an apply", applying).await
    }

    async fn list(&self, kind: &GroupVersionResource, namespace: &str) -> Vec<String> {
        let request = ListRequest {
            kind: Kind::Custom.into(),
            custom: Some(kind.clone()),
            namespace: namespace.to_owned(),
            ..ListRequest::default()
        };
        let pins = Pins::default();
        let listed = list(&self.store, &pins, &self.kinds, BY, &request);
        let page = soon("a list", listed).await.unwrap();
        page.objects.iter().map(|it| it.name().to_owned()).collect()
    }

    fn get(
        &self,
        kind: &KindRef,
        resource: &GroupVersionResource,
        name: &str,
    ) -> Option<CustomObject> {
        let request = GetRequest {
            kind: Kind::Custom.into(),
            custom: Some(resource.clone()),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ..GetRequest::default()
        };
        let found = self.store.read(|state| get(state, kind, &request)).ok()?;
        match found.object?.kind {
            Some(object::Kind::Custom(found)) => Some(found),
            other => panic!("{other:?}"),
        }
    }
}

fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..ObjectMeta::default()
    }
}

fn kind(resource: &str, name: &str) -> CustomKind {
    CustomKind {
        resource: GroupVersionResource {
            group: "example.com".to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
        },
        name: name.to_owned(),
        singular: String::new(),
        namespaced: true,
    }
}

fn object(kind: &str, name: &str, json: &str) -> Object {
    CustomObject {
        api_version: "example.com/v1".to_owned(),
        kind: kind.to_owned(),
        metadata: Some(named("shop", name)),
        json: json.to_owned(),
    }
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_registered_kind_are_created_listed_watched_and_deleted() {
    let world = World::new().await;
    let unknown = world.apply(object("Widget", "a", "{}")).await.unwrap_err();
    assert!(unknown.to_string().contains("is registered"), "{unknown}");

    let widgets = kind("widgets", "Widget");
    let gadgets = kind("gadgets", "Gadget");
    let widget = world.kinds.register(&widgets).unwrap();
    world.kinds.register(&gadgets).unwrap();
    let request = WatchRequest {
        kind: Kind::Custom.into(),
        custom: Some(widgets.resource.clone()),
        ..WatchRequest::default()
    };
    let everything = Access::Everything;
    let watched = watch::open(
        &world.store,
        &world.vault,
        &world.kinds,
        &everything,
        &request,
    );
    let mut watched = Box::pin(soon("a watch", watched).await.unwrap());

    // Another kind may have objects of the same names.
    world.apply(object("Gadget", "a", "{}")).await.unwrap();
    for name in ["b", "a"] {
        let json = r#"{ "spec": {"size": 3, "color": "red"}, "status": {"seen": true} }"#;
        let applied = world.apply(object("Widget", name, json)).await.unwrap();
        assert_eq!(applied.results[0].outcome(), ApplyOutcome::Created);
        let shown = applied.results[0].object.as_ref().unwrap();
        assert_eq!(shown.name(), name);
        assert!(!shown.uid().is_empty());
    }
    assert_eq!(world.list(&widgets.resource, "shop").await, ["a", "b"]);
    assert_eq!(world.list(&widgets.resource, "").await, ["a", "b"]);
    assert_eq!(world.list(&gadgets.resource, "").await, ["a"]);
    let found = world.get(&widget, &widgets.resource, "a").unwrap();
    assert_eq!(
        found.json,
        r#"{"spec":{"color":"red","size":3},"status":{"seen":true}}"#
    );

    // The same again changes nothing; another value of one field changes that one, and one that is left out goes.
    let json = r#"{"spec": {"color": "red", "size": 3}, "status": {"seen": true}}"#;
    let same = world.apply(object("Widget", "a", json)).await.unwrap();
    assert_eq!(same.results[0].outcome(), ApplyOutcome::Unchanged);
    let json = r#"{"spec": {"size": 4}}"#;
    let changed = world.apply(object("Widget", "a", json)).await.unwrap();
    assert_eq!(changed.results[0].outcome(), ApplyOutcome::Configured);
    let found = world.get(&widget, &widgets.resource, "a").unwrap();
    assert_eq!(found.json, r#"{"spec":{"size":4}}"#);
    assert_eq!(found.metadata.unwrap().generation, 2);

    let request = DeleteRequest {
        kind: Kind::Custom.into(),
        custom: Some(widgets.resource.clone()),
        namespace: "shop".to_owned(),
        name: "b".to_owned(),
        ..DeleteRequest::default()
    };
    let deleted = delete(&world.store, &world.kinds, BY.to_owned(), request);
    let deleted = soon("a deletion", deleted).await.unwrap();
    assert_eq!(deleted.object.unwrap().name(), "b");
    assert_eq!(world.list(&widgets.resource, "").await, ["a"]);

    let mut seen = Vec::new();
    while seen.len() < 4 {
        let next = timeout(DEADLINE, watched.next()).await.expect("a change");
        let next = next.unwrap().unwrap();
        if next.r#type() != ChangeType::Bookmark {
            seen.push((next.r#type(), next.object.unwrap().name().to_owned()));
        }
    }
    let expected = [
        (ChangeType::Added, "b"),
        (ChangeType::Added, "a"),
        (ChangeType::Modified, "a"),
        (ChangeType::Deleted, "b"),
    ];
    assert_eq!(seen, expected.map(|(what, name)| (what, name.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_registered_with_another_version_goes_on_to_be_watched_and_applied() {
    let world = World::new().await;
    let mut widgets = kind("widgets", "Widget");
    world.kinds.register(&widgets).unwrap();
    for name in ["a", "b"] {
        let json = r#"{"spec":{"size":3}}"#;
        world.apply(object("Widget", name, json)).await.unwrap();
    }
    "v2".clone_into(&mut widgets.resource.version);
    let widget = world.kinds.register(&widgets).unwrap();
    let request = WatchRequest {
        kind: Kind::Custom.into(),
        custom: Some(widgets.resource.clone()),
        ..WatchRequest::default()
    };
    let everything = Access::Everything;
    let watched = watch::open(
        &world.store,
        &world.vault,
        &world.kinds,
        &everything,
        &request,
    );
    let mut watched = Box::pin(soon("a watch", watched).await.unwrap());

    // What was written as v1 is the same object in v2, and says so once it is applied.
    let newer = CustomObject {
        api_version: "example.com/v2".to_owned(),
        kind: "Widget".to_owned(),
        metadata: Some(named("shop", "a")),
        json: r#"{"spec":{"size":4}}"#.to_owned(),
    };
    let applied = world.apply(newer.into()).await.unwrap();
    assert_eq!(applied.results[0].outcome(), ApplyOutcome::Configured);
    let found = world.get(&widget, &widgets.resource, "a").unwrap();
    assert_eq!(found.api_version, "example.com/v2");
    assert_eq!(found.json, r#"{"spec":{"size":4}}"#);
    let request = DeleteRequest {
        kind: Kind::Custom.into(),
        custom: Some(widgets.resource.clone()),
        namespace: "shop".to_owned(),
        name: "b".to_owned(),
        ..DeleteRequest::default()
    };
    let deleted = delete(&world.store, &world.kinds, BY.to_owned(), request);
    soon("a deletion", deleted).await.unwrap();

    let mut seen = Vec::new();
    while seen.len() < 2 {
        let next = timeout(DEADLINE, watched.next()).await.expect("a change");
        let next = next.unwrap().unwrap();
        if next.r#type() != ChangeType::Bookmark {
            seen.push((next.r#type(), next.object.unwrap().name().to_owned()));
        }
    }
    let expected = [(ChangeType::Modified, "a"), (ChangeType::Deleted, "b")];
    assert_eq!(seen, expected.map(|(what, name)| (what, name.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_one_object_sees_no_other_of_its_kind_or_name() {
    let world = World::new().await;
    let widgets = kind("widgets", "Widget");
    world.kinds.register(&widgets).unwrap();
    world.kinds.register(&kind("gadgets", "Gadget")).unwrap();
    let request = WatchRequest {
        kind: Kind::Custom.into(),
        custom: Some(widgets.resource),
        namespace: "shop".to_owned(),
        name: "b".to_owned(),
        ..WatchRequest::default()
    };
    let everything = Access::Everything;
    let watched = watch::open(
        &world.store,
        &world.vault,
        &world.kinds,
        &everything,
        &request,
    );
    let mut watched = Box::pin(soon("a watch", watched).await.unwrap());
    for (kind, name) in [("Gadget", "b"), ("Widget", "a"), ("Widget", "b")] {
        world.apply(object(kind, name, "{}")).await.unwrap();
    }
    loop {
        let next = timeout(DEADLINE, watched.next()).await.expect("a change");
        let next = next.unwrap().unwrap();
        if next.r#type() != ChangeType::Bookmark {
            let object = next.object.unwrap();
            assert_eq!(object.to_string(), "widget.example.com/b");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_cannot_be_kept_whole_is_refused_with_the_reason() {
    let world = World::new().await;
    let widgets = kind("widgets", "Widget");
    let widget = world.kinds.register(&widgets).unwrap();
    for (key, value) in [
        ("metadata", r#"{"name":"b","namespace":"kube-system"}"#),
        ("apiVersion", r#""example.com/v9""#),
        ("kind", r#""Gadget""#),
    ] {
        let json = format!(r#"{{"spec":{{}},"{key}":{value}}}"#);
        let refused = world.apply(object("Widget", "a", &json)).await.unwrap_err();
        let said = refused.to_string();
        assert!(said.contains(&format!("the key {key:?}")), "{said}");
    }
    let nested = |levels: usize| {
        let (open, close) = (r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1));
        format!(r#"{open}{{"end":1}}{close}"#)
    };
    let deep = object("Widget", "a", &nested(121));
    let refused = world.apply(deep).await.unwrap_err().to_string();
    assert!(refused.contains("deeper than 120 levels"), "{refused}");

    // At the limit it is known who owns what: what is left out goes.
    let most = nested(120);
    let applied = world.apply(object("Widget", "a", &most)).await.unwrap();
    assert_eq!(applied.results[0].outcome(), ApplyOutcome::Created);
    let text = serde_json::to_string(applied.results[0].object.as_ref().unwrap()).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let json = r#"{"b":2}"#;
    world.apply(object("Widget", "a", json)).await.unwrap();
    let found = world.get(&widget, &widgets.resource, "a").unwrap();
    assert_eq!(found.json, json);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_a_registered_kind_is_up_to_bindings() {
    let world = World::new().await;
    let widgets = kind("widgets", "Widget");
    let widget = world.kinds.register(&widgets).unwrap();
    let alice = Access::Bound(Arc::new(Identity {
        user: "alice".to_owned(),
        groups: vec![],
    }));
    let check = |verb| {
        let place = ("shop", "a");
        let may = |state: &_| gate::check(&alice, state, verb, (&*widget, ""), place);
        world.store.read(may)
    };
    assert!(check("get").is_err());
    let role = ClusterRole {
        metadata: Some(named("", "widgets")),
        rules: vec![PolicyRule {
            verbs: vec!["get".to_owned()],
            api_groups: vec!["example.com".to_owned()],
            resources: vec!["widgets".to_owned()],
            ..PolicyRule::default()
        }],
        ..ClusterRole::default()
    };
    let binding = ClusterRoleBinding {
        metadata: Some(named("", "widgets")),
        subjects: vec![Subject {
            kind: "User".to_owned(),
            name: "alice".to_owned(),
            ..Subject::default()
        }],
        role_ref: Some(RoleRef {
            kind: "ClusterRole".to_owned(),
            name: "widgets".to_owned(),
            ..RoleRef::default()
        }),
        ..ClusterRoleBinding::default()
    };
    world.apply(role.into()).await.unwrap();
    world.apply(binding.into()).await.unwrap();
    check("get").unwrap();
    let refused = check("create").unwrap_err().to_string();
    assert!(
        refused.contains("alice may not create widgets"),
        "{refused}"
    );
    let wanted = [object("Widget", "a", "{}")];
    let refused = gate::check_wanted(&alice, &world.store, &world.kinds, &wanted).await;
    assert!(refused.unwrap_err().to_string().contains("widgets"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_the_objects_of_registered_kinds() {
    let world = World::new().await;
    let widgets = kind("widgets", "Widget");
    world.kinds.register(&widgets).unwrap();
    let json = r#"{"spec":{"size":3}}"#;
    world.apply(object("Widget", "a", json)).await.unwrap();
    let map = ConfigMap {
        metadata: Some(named("shop", "a")),
        ..ConfigMap::default()
    };
    world.apply(map.into()).await.unwrap();
    let pinned = soon("a pin", world.store.pin()).await.unwrap();
    let mut file = Vec::new();
    backup::take(&pinned, &world.keyring, None, &mut file).unwrap();
    let mut reader = Reader::open(file.as_slice()).unwrap();
    let mut found = Vec::new();
    loop {
        match reader.advance().unwrap() {
            Frame::Records(records) => {
                for record in records {
                    let record = Record::decode(record.as_slice()).unwrap();
                    if let Some(Body::Custom(it)) = record.record {
                        found.push((it.metadata.unwrap().name, it.json));
                    }
                }
            }
            Frame::Requests(_) => {}
            Frame::End { .. } => break,
        }
    }
    assert_eq!(
        found,
        [("widgets.example.com/a".to_owned(), json.to_owned())]
    );
}
