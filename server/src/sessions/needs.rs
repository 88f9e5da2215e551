//! The ConfigMaps, Secrets and ServiceAccounts that a node's pods use.
//!
//! A session tells its agent of these and of no others. Which they are follows from the templates of the pods that are bound to the node, so it is
//! looked up again when pods come that use what no other pod of the node does, and when pods go.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use barge_proto::{
    configuration::{Source, used},
    v1::{ConfigMap, HeldObject, ObjectMeta, Revision, Secret, ServiceAccount},
};
use barge_state::{Changed, Kind, PackedPod, RecordKind, State, Stored};

use crate::store::Scope;

/// What a pod uses: its kind, namespace and name.
pub type Need = (Source, String, String);

/// What there is under a name.
#[derive(Debug, Clone)]
pub enum Found {
    /// A ConfigMap.
    ConfigMap(Arc<ConfigMap>),
    /// A Secret, sealed.
    Secret(Arc<Secret>),
    /// A ServiceAccount.
    ServiceAccount(Arc<ServiceAccount>),
    /// Nothing, or nothing that the node needs.
    Nothing,
}

/// What the agent of a session was told of.
#[derive(Debug, Default)]
pub struct Needs {
    /// With the revision up to which the agent knows of each.
    told: BTreeMap<Need, u64>,
}

impl Needs {
    /// The agent was told of all of these, as they are at a revision.
    #[must_use]
    pub fn told(needs: BTreeSet<Need>, revision: u64) -> Self {
        let told = needs.into_iter().map(|need| (need, revision));
        Self {
            told: told.collect(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// What the agent has to hear of a change, if it was not told of it already.
    pub fn hear(&mut self, change: &Changed) -> Option<(Need, Found)> {
        let record = change.record()?;
        let need = need_of(record)?;
        let told = self.told.get_mut(&need)?;
        if change.revision <= *told {
            return None;
        }
        *told = change.revision;
        let found = change.after.as_ref().map_or(Found::Nothing, found);
        Some((need, found))
    }

    /// Takes over what the node needs now. Answers what is new, and what is needed no longer.
    pub fn replace(&mut self, needs: &BTreeSet<Need>, revision: u64) -> (Vec<Need>, Vec<Need>) {
        let (kept, gone) = std::mem::take(&mut self.told)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(need, _)| needs.contains(need));
        self.told = kept;
        let new = needs.iter().filter(|need| !self.told.contains_key(*need));
        let new: Vec<_> = new.cloned().collect();
        self.told
            .extend(new.iter().map(|need| (need.clone(), revision)));
        (new, gone.into_keys().collect())
    }

    /// Whether the agent was told of all of these.
    pub fn have<'a>(&self, needs: impl IntoIterator<Item = &'a Need>) -> bool {
        needs.into_iter().all(|need| self.told.contains_key(need))
    }

    /// Whether these are the ones that the agent was told of.
    #[must_use]
    pub fn are(&self, needs: &BTreeSet<Need>) -> bool {
        self.told.keys().eq(needs)
    }
}

/// What the pods of a node need.
#[must_use]
pub fn of_node(state: &State, node_uid: &str) -> BTreeSet<Need> {
    // Pods of one template need the same; a template is of one namespace.
    let templates: BTreeSet<&str> = state
        .pods_on(node_uid)
        .map(|pod| pod.template_uid())
        .collect();
    let templates = templates.into_iter();
    let templates = templates.filter_map(|uid| state.by_uid::<Revision>(uid));
    let mut needs: BTreeSet<Need> = templates
        .flat_map(|template| of_template(template))
        .collect();
    let of_accounts: Vec<_> = needs
        .iter()
        .flat_map(|need| of_account(state, need))
        .collect();
    needs.extend(of_accounts);
    needs
}

/// The Secrets with credentials for registries that a ServiceAccount gives to its pods.
fn of_account(state: &State, (source, namespace, name): &Need) -> Vec<Need> {
    let account = match source {
        Source::ServiceAccount => state.get::<ServiceAccount>(namespace, name),
        _ => None,
    };
    let secrets = account.into_iter().flat_map(|it| &it.image_pull_secrets);
    secrets
        .map(|it| (Source::Secret, namespace.clone(), it.name.clone()))
        .collect()
}

/// What the pods need that a change binds to a node.
#[must_use]
pub fn of_change(change: &Changed, node_uid: &str) -> Vec<Need> {
    let after = change.after.as_ref().and_then(|it| match it {
        Stored::Pod(pod) => Some(pod),
        _ => None,
    });
    let here = |pod: &&Arc<PackedPod>| pod.node_uid() == node_uid;
    match (after.filter(here), &change.template) {
        (Some(_), Some(template)) => of_template(template),
        _ => Vec::new(),
    }
}

/// What pods of a template need.
#[must_use]
pub fn of_template(template: &Revision) -> Vec<Need> {
    let spec = template.template.as_ref().and_then(|it| it.spec.as_ref());
    let Some(spec) = spec else {
        return Vec::new();
    };
    let namespace = &template.meta().namespace;
    let used = used(spec).into_iter();
    used.map(|(source, name)| (source, namespace.clone(), name.to_owned()))
        .collect()
}

/// What there is under a name.
#[must_use]
pub fn find(state: &State, (source, namespace, name): &Need) -> Found {
    match source {
        Source::ConfigMap => state
            .get::<ConfigMap>(namespace, name)
            .map_or(Found::Nothing, |it| Found::ConfigMap(it.clone())),
        Source::Secret => state
            .get::<Secret>(namespace, name)
            .map_or(Found::Nothing, |it| Found::Secret(it.clone())),
        Source::ServiceAccount => state
            .get::<ServiceAccount>(namespace, name)
            .map_or(Found::Nothing, |it| Found::ServiceAccount(it.clone())),
    }
}

/// What an agent has that is not as it is now, and what it need not have.
#[must_use]
pub fn since(state: &State, needs: &BTreeSet<Need>, held: &[HeldObject]) -> Vec<(Need, Found)> {
    let held: BTreeMap<Need, &str> = held
        .iter()
        .filter_map(|it| {
            let source = Source::ALL
                .into_iter()
                .find(|source| source.kind() == it.kind)?;
            let need = (source, it.namespace.clone(), it.name.clone());
            Some((need, it.resource_version.as_str()))
        })
        .collect();
    let changed = needs.iter().filter_map(|need| {
        let found = find(state, need);
        let held = held.get(need).copied();
        let same = match found.meta() {
            Some(meta) => held == Some(meta.resource_version.as_str()),
            None => held.is_none(),
        };
        (!same).then(|| (need.clone(), found))
    });
    let unused = held.keys().filter(|need| !needs.contains(*need));
    changed
        .chain(unused.map(|need| (need.clone(), Found::Nothing)))
        .collect()
}

/// The scopes of a watch for these.
pub fn scopes(needs: &BTreeSet<Need>) -> impl Iterator<Item = Scope> {
    needs.iter().map(|(source, namespace, name)| {
        let kind = match source {
            Source::ConfigMap => RecordKind::ConfigMap,
            Source::Secret => RecordKind::Secret,
            Source::ServiceAccount => RecordKind::ServiceAccount,
        };
        Scope {
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            ..Scope::kinds([kind])
        }
    })
}

impl Found {
    fn meta(&self) -> Option<&ObjectMeta> {
        match self {
            Self::ConfigMap(it) => Some(it.meta()),
            Self::Secret(it) => Some(it.meta()),
            Self::ServiceAccount(it) => Some(it.meta()),
            Self::Nothing => None,
        }
    }
}

/// What an agent needs of an object's metadata.
#[must_use]
pub fn short(meta: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectMeta::default()
    }
}

fn found(record: &Stored) -> Found {
    match record {
        Stored::ConfigMap(it) => Found::ConfigMap(it.clone()),
        Stored::Secret(it) => Found::Secret(it.clone()),
        Stored::ServiceAccount(it) => Found::ServiceAccount(it.clone()),
        _ => Found::Nothing,
    }
}

fn need_of(record: &Stored) -> Option<Need> {
    let source = match record {
        Stored::ConfigMap(_) => Source::ConfigMap,
        Stored::Secret(_) => Source::Secret,
        Stored::ServiceAccount(_) => Source::ServiceAccount,
        _ => return None,
    };
    let (namespace, name) = (record.namespace(), record.name());
    Some((source, namespace.to_owned(), name.to_owned()))
}
