//! What a pod's containers are given by the cluster: the ConfigMaps and Secrets that they use, and the pod's ServiceAccount.

use std::collections::{BTreeMap, BTreeSet};

use barge_proto::{
    accounts,
    configuration::{Source, used},
    v1::{Pod, ServiceAccount},
};

use super::links::Linked;
use crate::{configuration::Found, desired::Desired};

/// Of one pod. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Given {
    objects: BTreeMap<(Source, String), Found>,
    /// What is missing and may exist.
    unknown: BTreeSet<(Source, String)>,
    /// The Services of its namespace, unless it wants none.
    links: Linked,
}

impl Given {
    /// What there is for a pod.
    pub fn to(pod: &Pod, desired: &Desired) -> Self {
        let configuration = &desired.configuration;
        let namespace = pod.metadata.as_ref().map_or("", |meta| &meta.namespace);
        let used = pod.spec.as_ref().map(used).unwrap_or_default();
        let wants_links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links);
        let mut given = Self::default();
        if wants_links != Some(false) {
            given.links = desired.links.get(namespace);
        }
        let mut take = |source: Source, name: &str| {
            let key = (source, name.to_owned());
            match configuration.get(source, namespace, name) {
                Some(found) => drop(given.objects.insert(key, found)),
                None if configuration.is_unknown(source, namespace, name) => {
                    given.unknown.insert(key);
                }
                None => {}
            }
        };
        for (source, name) in used {
            take(source, name);
            if source == Source::ServiceAccount
                && let Some(Found::ServiceAccount(account)) =
                    configuration.get(source, namespace, name)
            {
                for secret in &account.image_pull_secrets {
                    take(Source::Secret, &secret.name);
                }
            }
        }
        given
    }

    /// The Services that its containers are told of in variables.
    pub fn links(&self) -> &Linked {
        &self.links
    }

    /// Whether a container that could not start for lack of something has to wait on.
    pub fn is(&self, other: &Self) -> bool {
        let mut pairs = self.objects.iter().zip(&other.objects);
        self.unknown == other.unknown
            && self.objects.len() == other.objects.len()
            && pairs.all(|(one, other)| one.0 == other.0 && one.1.is(other.1))
    }

    /// The ServiceAccount of a pod. `None` for the account that every namespace has, where there is no object for it.
    ///
    /// # Errors
    /// A sentence: the account does not exist, or the node has not heard of it yet.
    pub fn account(&self, pod: &Pod) -> Result<Option<&ServiceAccount>, String> {
        let name = pod
            .spec
            .as_ref()
            .map_or(accounts::DEFAULT, accounts::of_pod);
        let found = self.find(Source::ServiceAccount, name, name == accounts::DEFAULT);
        let namespace = pod.metadata.as_ref().map_or("", |meta| &meta.namespace);
        match found {
            Ok(Some(Found::ServiceAccount(account))) => Ok(Some(account)),
            Ok(_) => Ok(None),
            Err(why) => Err(format!(
                "error looking up service account {namespace}/{name}: {why}"
            )),
        }
    }

    /// The ConfigMap or Secret of this name; `None` when there is none and it is optional.
    ///
    /// # Errors
    /// A sentence: it is needed and not there, or the node has not heard of it yet.
    pub fn find(
        &self,
        source: Source,
        name: &str,
        optional: bool,
    ) -> Result<Option<&Found>, String> {
        let kind = source.kind();
        let key = (source, name.to_owned());
        match self.objects.get(&key) {
            Some(found) => Ok(Some(found)),
            None if self.unknown.contains(&key) => Err(format!(
                "{kind} {name:?} is not known on this node yet: it was booted since (Secrets do not outlive that), or the managers' keys are \
                 locked; the container starts when a manager has told of it"
            )),
            None if optional => Ok(None),
            None => Err(format!(
                "{kind} {name:?} does not exist: create it in the pod's namespace, and the container starts"
            )),
        }
    }
}
