//! The revisions of a Deployment among the ReplicaSets: got, listed in pages, watched from a revision on, not to be changed.

use barge_proto::{
    kinds::Registry,
    v1::{
        ApplyOutcome, ApplyRequest, ApplyResponse, ChangeType, DeleteRequest, DeletionPropagation,
        Deployment, DeploymentSpec, GetRequest, Kind, LabelSelector, ListRequest, ListResponse,
        Namespace, Object, ObjectMeta, OwnerReference, Pod, PodRecord, PodSpec, PodTemplateSpec,
        ReplicaSet, ReplicaSetSpec, Revision, RevisionStatus, ScaleRequest, WatchRequest,
        WatchResponse,
    },
};
use barge_server::{
    api::{
        apply::{Edge, Way, apply},
        delete::delete,
        read::{Pins, get, list},
        scale::scale,
        vault::Vault,
        watch,
    },
    error::ApiError,
    net::reserved::ReservedPorts,
    pki::{Keyring, SealingKey, keyring::KeyFile},
    security::auth::Access,
    store::{Store, transaction::Draft},
};
use barge_state::{HASH_LABEL, LEVEL};
use futures::{Stream, StreamExt};
use std::{path::Path, pin::Pin};
use tokio::time::timeout;

use crate::harness::{Cluster, DEADLINE, raise, soon};

const BY: &str = "admin/test";
const SHOP: &str = "shop";

struct World {
    _cluster: Cluster,
    store: Store,
    kinds: Registry,
    vault: Vault,
    pins: Pins,
    deployment: String,
}

type Watched = Pin<Box<dyn Stream<Item = Result<WatchResponse, tonic::Status>> + Send>>;

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: name.to_owned(),
        namespace: SHOP.to_owned(),
        ..ObjectMeta::default()
    }
}

fn template() -> PodTemplateSpec {
    let container = barge_proto::v1::Container {
        name: "main".to_owned(),
        image: "app:1".to_owned(),
        ..Default::default()
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            ..PodSpec::default()
        }),
    }
}

fn selector() -> Option<LabelSelector> {
    Some(LabelSelector {
        match_labels: [("app".to_owned(), "web".to_owned())].into(),
        ..LabelSelector::default()
    })
}

/// A ReplicaSet that somebody applies.
fn own(name: &str) -> Object {
    let mut metadata = named(name);
    metadata.labels.insert("by".to_owned(), "hand".to_owned());
    ReplicaSet {
        metadata: Some(metadata),
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            selector: selector(),
            template: Some(template()),
            ..ReplicaSetSpec::default()
        }),
        ..ReplicaSet::default()
    }
    .into()
}

impl World {
    /// With the Deployment web.
    async fn new() -> Self {
        let cluster = Cluster::new(1).await.started().await;
        let store = cluster.store(1);
        let key = KeyFile::Clear(SealingKey::generate());
        let mut world = Self {
            _cluster: cluster,
            store,
            kinds: Registry::default(),
            vault: Vault::new(Keyring::new(Path::new(""), key)),
            pins: Pins::default(),
            deployment: String::new(),
        };
        let raised = soon("a level", world.store.propose(raise(LEVEL))).await;
        assert_eq!(raised.unwrap().refusal, None);
        let namespace = Namespace {
            metadata: Some(ObjectMeta {
                name: SHOP.to_owned(),
                ..ObjectMeta::default()
            }),
            ..Namespace::default()
        };
        world.apply(namespace.into()).await.unwrap();
        let deployment = Deployment {
            metadata: Some(named("web")),
            spec: Some(DeploymentSpec {
                selector: selector(),
                template: Some(template()),
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        };
        let applied = world.apply(deployment.into()).await.unwrap();
        let object = applied.results[0].object.as_ref().unwrap();
        world.deployment = object.uid().to_owned();
        world
    }

    fn revision(&self, name: &str) -> Revision {
        let (_, hash) = name.split_once('-').unwrap();
        let mut template = template();
        let labels = &mut template.metadata.as_mut().unwrap().labels;
        labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
        Revision {
            metadata: Some(ObjectMeta {
                uid: format!("uid-of-{name}"),
                labels: labels.clone(),
                owner_references: vec![self.owner()],
                ..named(name)
            }),
            number: 1,
            template: Some(template),
            ..Revision::default()
        }
    }

    /// A template that is no revision of a Deployment.
    fn hidden(&self, name: &str) -> Revision {
        let mut revision = self.revision(name);
        revision.metadata.as_mut().unwrap().labels.clear();
        revision
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            uid: self.deployment.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    fn pod(&self, name: &str, revision: &str) -> PodRecord {
        PodRecord {
            metadata: Some(ObjectMeta {
                uid: format!("uid-of-{name}"),
                owner_references: vec![self.owner()],
                ..named(name)
            }),
            template_uid: format!("uid-of-{revision}"),
            ..PodRecord::default()
        }
    }

    /// A Revision with a number of pods, as the Deployment's plan reports it.
    fn counted(&self, name: &str, pods: i32) -> Revision {
        Revision {
            status: Some(RevisionStatus {
                desired: pods,
                replicas: pods,
                ready: pods,
                available: pods,
            }),
            ..self.revision(name)
        }
    }

    async fn write(&self, fill: impl FnOnce(&mut Draft)) {
        let mut draft = Draft::new();
        fill(&mut draft);
        let transaction = draft.build(BY.to_owned(), None);
        let outcome = soon("a write", self.store.propose(transaction)).await;
        assert_eq!(outcome.unwrap().refusal, None);
    }

    async fn apply(&self, object: Object) -> Result<ApplyResponse, ApiError> {
        self.apply_as(object, Way::Merged).await
    }

    async fn apply_as(&self, object: Object, way: Way) -> Result<ApplyResponse, ApiError> {
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
            (&request, way),
            None,
        );
        soon("an apply", applying).await
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &str,
        how: DeletionPropagation,
    ) -> Result<(), ApiError> {
        let request = DeleteRequest {
            kind: kind.into(),
            namespace: SHOP.to_owned(),
            name: name.to_owned(),
            propagation: how.into(),
            ..DeleteRequest::default()
        };
        let deleted = delete(&self.store, &self.kinds, BY.to_owned(), request);
        soon("a deletion", deleted).await.map(|_| ())
    }

    fn get(&self, kind: Kind, name: &str) -> Result<Object, ApiError> {
        let request = GetRequest {
            kind: kind.into(),
            namespace: SHOP.to_owned(),
            name: name.to_owned(),
            ..GetRequest::default()
        };
        let found = self
            .store
            .read(|state| get(state, kind.info().unwrap(), &request));
        Ok(found?.object.unwrap())
    }

    fn set(&self, name: &str) -> ReplicaSet {
        self.get(Kind::ReplicaSet, name)
            .unwrap()
            .try_into()
            .unwrap()
    }

    async fn list(&self, request: ListRequest) -> ListResponse {
        let request = ListRequest {
            kind: match request.kind {
                0 => Kind::ReplicaSet.into(),
                kind => kind,
            },
            ..request
        };
        let listed = list(&self.store, &self.pins, &self.kinds, BY, &request);
        soon("a list", listed).await.unwrap()
    }

    async fn names(&self, request: ListRequest) -> Vec<String> {
        names(&self.list(request).await)
    }

    async fn watch(&self, revision: u64, name: &str) -> Watched {
        let request = WatchRequest {
            kind: Kind::ReplicaSet.into(),
            namespace: SHOP.to_owned(),
            name: name.to_owned(),
            revision,
            ..WatchRequest::default()
        };
        let everything = Access::Everything;
        let watched = watch::open(&self.store, &self.vault, &self.kinds, &everything, &request);
        Box::pin(soon("a watch", watched).await.unwrap())
    }
}

fn names(page: &ListResponse) -> Vec<String> {
    page.objects.iter().map(|it| it.name().to_owned()).collect()
}

/// The next events: what happened to which, how many pods are wanted, and its revision.
async fn events(watched: &mut Watched, count: usize) -> Vec<(ChangeType, String, i32, u64)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = timeout(DEADLINE, watched.next()).await.expect("a change");
        let next = next.unwrap().unwrap();
        if next.r#type() != ChangeType::Bookmark {
            let (r#type, revision) = (next.r#type(), next.revision);
            let set = ReplicaSet::try_from(next.object.unwrap()).unwrap();
            let name = set.metadata.unwrap().name;
            let replicas = set.spec.unwrap().replicas.unwrap();
            seen.push((r#type, name, replicas, revision));
        }
    }
    seen
}

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

    // What belongs to it goes with it, as with any ReplicaSet.
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
    let applied = world.apply(other).await.unwrap();
    assert_eq!(applied.results[0].outcome(), ApplyOutcome::Created);

    // While its last pods end, its name is taken, too.
    let how = DeletionPropagation::Orphan;
    world.delete(Kind::Deployment, "web", how).await.unwrap();
    let said = world.apply(own("web-a")).await.unwrap_err().to_string();
    assert!(said.contains("take another name"), "{said}");
    world
        .write(|draft| draft.remove::<PodRecord>("uid-of-p1"))
        .await;
    world.apply(own("web-a")).await.unwrap();
    let gone = world.get(Kind::ReplicaSet, "web-z").unwrap_err();
    assert!(matches!(gone, ApiError::NotFound(_)), "{gone}");
}
