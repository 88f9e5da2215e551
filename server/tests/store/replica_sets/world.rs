//! A manager with a Deployment, whose revisions a test writes itself, and what people ask of it.

use barge_proto::{
    kinds::Registry,
    v1::{
        ApplyRequest, ApplyResponse, ChangeType, DeleteRequest, DeletionPropagation, Deployment,
        DeploymentSpec, GetRequest, Kind, LabelSelector, ListRequest, ListResponse, Namespace,
        Object, ObjectMeta, OwnerReference, PodRecord, PodSpec, PodTemplateSpec, ReplicaSet,
        ReplicaSetSpec, Revision, RevisionStatus, WatchRequest, WatchResponse,
    },
};
use barge_server::{
    api::{
        apply::{Edge, Way, apply},
        delete::delete,
        read::{Pins, get, list},
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

pub const BY: &str = "admin/test";
pub const SHOP: &str = "shop";

pub struct World {
    _cluster: Cluster,
    pub store: Store,
    pub kinds: Registry,
    vault: Vault,
    pins: Pins,
    /// The uid of the Deployment web.
    pub deployment: String,
}

pub type Watched = Pin<Box<dyn Stream<Item = Result<WatchResponse, tonic::Status>> + Send>>;

pub fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: name.to_owned(),
        namespace: SHOP.to_owned(),
        ..ObjectMeta::default()
    }
}

pub fn template() -> PodTemplateSpec {
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

pub fn selector() -> Option<LabelSelector> {
    Some(LabelSelector {
        match_labels: [("app".to_owned(), "web".to_owned())].into(),
        ..LabelSelector::default()
    })
}

/// A ReplicaSet that somebody applies.
pub fn own(name: &str) -> Object {
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
    pub async fn new() -> Self {
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

    pub fn revision(&self, name: &str) -> Revision {
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
    pub fn hidden(&self, name: &str) -> Revision {
        let mut revision = self.revision(name);
        revision.metadata.as_mut().unwrap().labels.clear();
        revision
    }

    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            uid: self.deployment.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    pub fn pod(&self, name: &str, revision: &str) -> PodRecord {
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
    pub fn counted(&self, name: &str, pods: i32) -> Revision {
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

    pub async fn write(&self, fill: impl FnOnce(&mut Draft)) {
        let mut draft = Draft::new();
        fill(&mut draft);
        let transaction = draft.build(BY.to_owned(), None);
        let outcome = soon("a write", self.store.propose(transaction)).await;
        assert_eq!(outcome.unwrap().refusal, None);
    }

    pub async fn apply(&self, object: Object) -> Result<ApplyResponse, ApiError> {
        self.apply_as(object, Way::Merged).await
    }

    pub async fn apply_as(&self, object: Object, way: Way) -> Result<ApplyResponse, ApiError> {
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

    pub async fn delete(
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

    pub fn get(&self, kind: Kind, name: &str) -> Result<Object, ApiError> {
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

    pub fn set(&self, name: &str) -> ReplicaSet {
        self.get(Kind::ReplicaSet, name)
            .unwrap()
            .try_into()
            .unwrap()
    }

    pub async fn list(&self, request: ListRequest) -> ListResponse {
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

    pub async fn names(&self, request: ListRequest) -> Vec<String> {
        names(&self.list(request).await)
    }

    pub async fn watch(&self, revision: u64, name: &str) -> Watched {
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

pub fn names(page: &ListResponse) -> Vec<String> {
    page.objects.iter().map(|it| it.name().to_owned()).collect()
}

/// The next events: what happened to which, how many pods are wanted, and its revision.
pub async fn events(watched: &mut Watched, count: usize) -> Vec<(ChangeType, String, i32, u64)> {
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
