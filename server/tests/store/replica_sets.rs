//! The revisions of a Deployment among the ReplicaSets: got, listed in pages, watched from a revision on, not to be changed.

use std::sync::Arc;

use barge_proto::v1::{
    ChangeType, ClusterRole, ClusterRoleBinding, DeletionPropagation, Kind, ListRequest, Object,
    OwnerReference, Pod, PodRecord, PolicyRule, Revision, RoleRef, ScaleRequest, Subject,
};
use barge_server::{
    api::{apply::Way, gate, scale::scale},
    error::ApiError,
    security::{auth::Access, rbac::Identity},
};
use barge_state::LEVEL;

use crate::harness::soon;

#[path = "replica_sets/world.rs"]
mod world;

use world::{BY, SHOP, World, events, named, names, own};

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_got_and_listed_among_replica_sets() {
    let world = World::new().await;
    for name in ["web-b", "web-d"] {
        world.apply(own(name)).await.unwrap();
    }
    world
        .write(|draft| {
            for name in ["web-a", "web-c", "web-e"] {
                draft.put(world.revision(name));
            }
            for name in ["web-a1", "web-c1", "web-f"] {
                draft.put(world.hidden(name));
            }
            draft.put_status(world.counted("web-c", 2));
            for name in ["p1", "p2"] {
                draft.put(world.pod(name, "web-c"));
            }
            // Somebody took it out of the Deployment.
            let mut released = world.pod("p3", "web-c");
            released.metadata.as_mut().unwrap().owner_references.clear();
            draft.put(released);
        })
        .await;

    let set = world.set("web-c");
    let metadata = set.metadata.unwrap();
    assert_eq!(metadata.owner_references, [world.owner()]);
    assert_eq!(
        metadata.annotations["deployment.kubernetes.io/revision"],
        "1"
    );
    assert_eq!(set.spec.unwrap().replicas, Some(2));
    assert_eq!(set.status.unwrap().ready_replicas, 2);
    let hidden = world.get(Kind::ReplicaSet, "web-a1").unwrap_err();
    assert!(matches!(hidden, ApiError::NotFound(_)), "{hidden}");
    let pod = world.get(Kind::Pod, "p1").unwrap();
    let [owner] = &pod.metadata().owner_references[..] else {
        panic!("{pod:?}");
    };
    assert_eq!((&*owner.kind, &owner.uid), ("ReplicaSet", &metadata.uid));

    let all = ["web-a", "web-b", "web-c", "web-d", "web-e"];
    assert_eq!(world.names(ListRequest::default()).await, all);
    let none = ListRequest {
        namespace: "default".to_owned(),
        ..ListRequest::default()
    };
    assert_eq!(world.names(none).await, [] as [&str; 0]);
    let labels = |selector: &str| ListRequest {
        label_selector: selector.to_owned(),
        ..ListRequest::default()
    };
    assert_eq!(
        world.names(labels("app=web")).await,
        ["web-a", "web-c", "web-e"]
    );
    assert_eq!(world.names(labels("by=hand")).await, ["web-b", "web-d"]);
    assert_eq!(world.names(labels("pod-template-hash=c")).await, ["web-c"]);
    let fields = |selector: &str| ListRequest {
        field_selector: selector.to_owned(),
        ..ListRequest::default()
    };
    assert_eq!(world.names(fields("metadata.name=web-e")).await, ["web-e"]);
    let owned = |kind: Kind, owner: &str| ListRequest {
        kind: kind.into(),
        owner_uid: owner.to_owned(),
        ..ListRequest::default()
    };
    let of_deployment = owned(Kind::ReplicaSet, &world.deployment);
    assert_eq!(
        world.names(of_deployment).await,
        ["web-a", "web-c", "web-e"]
    );
    for owner in [&metadata.uid, &world.deployment] {
        let pods = owned(Kind::Pod, owner);
        assert_eq!(world.names(pods).await, ["p1", "p2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_show_both_tables_at_one_revision() {
    let world = World::new().await;
    for name in ["web-b", "web-d"] {
        world.apply(own(name)).await.unwrap();
    }
    world
        .write(|draft| {
            for name in ["web-a", "web-c", "web-e"] {
                draft.put(world.revision(name));
            }
            draft.put(world.hidden("web-c1"));
        })
        .await;
    for limit in 1..=5 {
        let mut request = ListRequest {
            limit,
            ..ListRequest::default()
        };
        let mut page = world.list(request.clone()).await;
        let first = page.revision;
        let mut seen = names(&page);
        // Both tables change behind and before the end of the page.
        world
            .write(|draft| {
                draft.put_status(world.counted("web-a", i32::try_from(limit).unwrap()));
                draft.put_status(world.counted("web-e", i32::try_from(limit).unwrap()));
                draft.put(world.revision(&format!("web-e{limit}")));
            })
            .await;
        world.apply(own(&format!("web-c{limit}x"))).await.unwrap();
        while !page.r#continue.is_empty() {
            request.r#continue.clone_from(&page.r#continue);
            page = world.list(request.clone()).await;
            assert_eq!(page.revision, first);
            seen.extend(names(&page));
            for object in &page.objects {
                let version: u64 = object.metadata().resource_version.parse().unwrap();
                assert!(version <= first, "{object} is newer than the list");
            }
        }
        let old = ["web-a", "web-b", "web-c", "web-d", "web-e"];
        assert_eq!(seen, old, "in pages of {limit}");
        // As it was, for the next size of a page.
        let name = format!("web-c{limit}x");
        let how = DeletionPropagation::Background;
        world.delete(Kind::ReplicaSet, &name, how).await.unwrap();
        let uid = format!("uid-of-web-e{limit}");
        world.write(|draft| draft.remove::<Revision>(&uid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_both_tables_in_one_order_and_goes_on_where_it_ended() {
    let world = World::new().await;
    let start = world.list(ListRequest::default()).await.revision;
    world.apply(own("web-b")).await.unwrap();
    world
        .write(|draft| {
            draft.put(world.hidden("web-a1"));
            draft.put(world.revision("web-a"));
            draft.put(world.pod("p1", "web-a"));
        })
        .await;
    world.apply(own("web-c")).await.unwrap();
    world
        .write(|draft| draft.put_status(world.counted("web-a", 1)))
        .await;
    let how = DeletionPropagation::Background;
    world.delete(Kind::ReplicaSet, "web-b", how).await.unwrap();
    // Its pods have no controller from then on, and nothing keeps them in number.
    let how = DeletionPropagation::Orphan;
    world.delete(Kind::Deployment, "web", how).await.unwrap();

    let expected = [
        (ChangeType::Added, "web-b", 0),
        (ChangeType::Added, "web-a", 0),
        (ChangeType::Added, "web-c", 0),
        (ChangeType::Modified, "web-a", 1),
        (ChangeType::Deleted, "web-b", 0),
        (ChangeType::Deleted, "web-a", 1),
    ];
    let mut watched = world.watch(start, "").await;
    let seen = events(&mut watched, expected.len()).await;
    let told: Vec<_> = seen.iter().map(|it| (it.0, &*it.1, it.2)).collect();
    assert_eq!(told, expected);
    assert!(seen.is_sorted_by(|a, b| a.3 < b.3), "{seen:?}");
    for (index, last) in seen.iter().enumerate().take(seen.len() - 1) {
        let mut again = world.watch(last.3, "").await;
        let rest = events(&mut again, seen.len() - index - 1).await;
        assert_eq!(rest, seen[index + 1..], "after {last:?}");
    }
    let mut one = world.watch(start, "web-a").await;
    let of_one = events(&mut one, 3).await;
    assert!(of_one.iter().all(|it| it.1 == "web-a"), "{of_one:?}");

    assert_eq!(world.names(ListRequest::default()).await, ["web-c"]);
    let pod = world.get(Kind::Pod, "p1").unwrap();
    assert_eq!(pod.metadata().owner_references, []);
    let pod = Pod::try_from(pod).unwrap();
    assert_eq!(pod.spec.unwrap().containers.len(), 1, "it has its template");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_is_changed_by_its_deployment_only() {
    let world = World::new().await;
    world
        .write(|draft| {
            draft.put(world.revision("web-a"));
            draft.put(world.pod("p1", "web-a"));
        })
        .await;
    let check = |refused: ApiError| {
        let said = refused.to_string();
        let names = said.contains("replicaset/web-a is a revision of deployment/web");
        assert!(names, "{said}");
        assert!(said.contains("the Deployment, which keeps it"), "{said}");
        assert!(matches!(refused, ApiError::Precondition(_)), "{refused:?}");
    };
    check(world.apply(own("web-a")).await.unwrap_err());
    let read = world.get(Kind::ReplicaSet, "web-a").unwrap();
    check(
        world
            .apply_as(read, Way::Replacing(LEVEL))
            .await
            .unwrap_err(),
    );
    for how in [DeletionPropagation::Background, DeletionPropagation::Orphan] {
        check(
            world
                .delete(Kind::ReplicaSet, "web-a", how)
                .await
                .unwrap_err(),
        );
    }
    let request = ScaleRequest {
        kind: Kind::ReplicaSet.into(),
        namespace: SHOP.to_owned(),
        name: "web-a".to_owned(),
        replicas: 3,
        ..ScaleRequest::default()
    };
    let scaled = scale(&world.store, BY.to_owned(), request);
    check(soon("a scale", scaled).await.unwrap_err());

    // Nothing can belong to it: an old one goes when its Deployment forgets it.
    let set = world.set("web-a").metadata.unwrap();
    let mut other = own("web-z");
    let owner = OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: "web-a".to_owned(),
        uid: set.uid,
        ..OwnerReference::default()
    };
    let owners = &mut other.metadata_mut().unwrap().owner_references;
    owners.push(owner);
    let said = world.apply(other).await.unwrap_err().to_string();
    assert!(said.contains("is a revision of deployment/web"), "{said}");

    // While its last pods end, its name is taken, too.
    let how = DeletionPropagation::Orphan;
    world.delete(Kind::Deployment, "web", how).await.unwrap();
    let said = world.apply(own("web-a")).await.unwrap_err().to_string();
    assert!(said.contains("take another name"), "{said}");
    world
        .write(|draft| draft.remove::<PodRecord>("uid-of-p1"))
        .await;
    world.apply(own("web-a")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_replica_sets_may_see_the_revisions() {
    let world = World::new().await;
    let alice = Access::Bound(Arc::new(Identity {
        user: "alice".to_owned(),
        groups: vec![],
    }));
    let check = |verb, name| {
        let info = Kind::ReplicaSet.info().unwrap();
        let may = |state: &_| gate::check(&alice, state, verb, (info, ""), (SHOP, name));
        world.store.read(may)
    };
    let bind = |resource: &str, names: &[&str]| {
        let mut metadata = named(resource);
        metadata.namespace.clear();
        let role = ClusterRole {
            metadata: Some(metadata.clone()),
            rules: vec![PolicyRule {
                verbs: ["get", "list", "watch"].map(str::to_owned).into(),
                api_groups: vec!["apps".to_owned()],
                resources: vec![resource.to_owned()],
                resource_names: names.iter().map(|&name| name.to_owned()).collect(),
            }],
            ..ClusterRole::default()
        };
        let binding = ClusterRoleBinding {
            metadata: Some(metadata),
            subjects: vec![Subject {
                kind: "User".to_owned(),
                name: "alice".to_owned(),
                ..Subject::default()
            }],
            role_ref: Some(RoleRef {
                kind: "ClusterRole".to_owned(),
                name: resource.to_owned(),
                ..RoleRef::default()
            }),
            ..ClusterRoleBinding::default()
        };
        [Object::from(role), Object::from(binding)]
    };
    for object in bind("deployments", &[]) {
        world.apply(object).await.unwrap();
    }
    assert!(check("get", "web-a").is_err());
    for object in bind("replicasets", &["web-a"]) {
        world.apply(object).await.unwrap();
    }
    check("get", "web-a").unwrap();
    check("watch", "web-a").unwrap();
    assert!(check("get", "web-c").is_err());
    assert!(check("list", "").is_err());
    assert!(check("delete", "web-a").is_err());
}
