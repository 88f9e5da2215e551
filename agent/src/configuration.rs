//! The ConfigMaps, Secrets and ServiceAccounts that the pods of this node use, as the managers last told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use barge_proto::{
    configuration::Source,
    v1::{Assignment, ConfigMap, HeldObject, ObjectMeta, ObjectName, Secret, ServiceAccount},
};

/// Namespace and name.
type Name = (String, String);

/// What pods use. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    config_maps: BTreeMap<Name, Arc<ConfigMap>>,
    secrets: BTreeMap<Name, Arc<Secret>>,
    accounts: BTreeMap<Name, Arc<ServiceAccount>>,
    /// A ServiceAccount that is missing does not exist, whatever is known of Secrets. False before the first full set.
    accounts_known: bool,
    /// One that is missing does not exist. False when this comes from a disk that lacks some: Secrets do not survive a boot.
    pub complete: bool,
    /// Secrets that are there, and that the managers could not open yet: what is here of them may be old.
    withheld: BTreeSet<Name>,
}

/// One of them.
#[derive(Debug, Clone)]
pub enum Found {
    /// A ConfigMap.
    ConfigMap(Arc<ConfigMap>),
    /// A Secret, open.
    Secret(Arc<Secret>),
    /// A ServiceAccount.
    ServiceAccount(Arc<ServiceAccount>),
}

impl Configuration {
    /// As it was kept.
    pub fn kept(config_maps: Vec<ConfigMap>, secrets: Vec<Secret>, complete: bool) -> Self {
        let config_maps = config_maps.into_iter();
        let secrets = secrets.into_iter();
        Self {
            config_maps: config_maps
                .map(|it| (name(&it.metadata), Arc::new(it)))
                .collect(),
            secrets: secrets
                .map(|it| (name(&it.metadata), Arc::new(it)))
                .collect(),
            complete,
            ..Self::default()
        }
    }

    /// This with the ServiceAccounts that were kept.
    pub fn with_accounts(mut self, accounts: Vec<ServiceAccount>) -> Self {
        let accounts = accounts.into_iter();
        self.accounts = accounts
            .map(|it| (name(&it.metadata), Arc::new(it)))
            .collect();
        self.accounts_known = true;
        self
    }

    /// Whether all is here, as it is.
    pub fn is_whole(&self) -> bool {
        self.complete && self.withheld.is_empty()
    }

    /// Whether nobody here can say what this is: it may exist.
    pub fn is_unknown(&self, source: Source, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        match source {
            Source::ConfigMap => !self.complete,
            Source::Secret => !self.complete || self.withheld.contains(&key),
            Source::ServiceAccount => !self.accounts_known,
        }
    }

    /// Takes what an assignment has of it. Tells whether anything changed.
    pub fn merge(&mut self, assignment: &mut Assignment) -> bool {
        let mut changed = false;
        let withheld: BTreeSet<_> = assignment.withheld_secrets.iter().map(key).collect();
        if assignment.full {
            changed = !self.is_empty() || !self.complete || !self.accounts_known;
            // What the manager cannot open stays as it was: it is there, maybe in another version.
            let mut secrets = std::mem::take(&mut self.secrets);
            secrets.retain(|name, _| withheld.contains(name));
            *self = Self {
                secrets,
                complete: true,
                accounts_known: true,
                ..Self::default()
            };
        }
        changed |= !withheld.is_subset(&self.withheld);
        self.withheld.extend(withheld);
        for it in std::mem::take(&mut assignment.config_maps) {
            self.config_maps.insert(name(&it.metadata), Arc::new(it));
            changed = true;
        }
        for it in std::mem::take(&mut assignment.secrets) {
            self.withheld.remove(&name(&it.metadata));
            self.secrets.insert(name(&it.metadata), Arc::new(it));
            changed = true;
        }
        for it in std::mem::take(&mut assignment.service_accounts) {
            self.accounts.insert(name(&it.metadata), Arc::new(it));
            changed = true;
        }
        for it in &assignment.removed_service_accounts {
            changed |= self.accounts.remove(&key(it)).is_some();
        }
        for it in &assignment.removed_config_maps {
            changed |= self.config_maps.remove(&key(it)).is_some();
        }
        for it in &assignment.removed_secrets {
            changed |= self.secrets.remove(&key(it)).is_some() | self.withheld.remove(&key(it));
        }
        changed
    }

    /// The object of this kind and name.
    pub fn get(&self, source: Source, namespace: &str, name: &str) -> Option<Found> {
        let key = (namespace.to_owned(), name.to_owned());
        match source {
            Source::ConfigMap => self.config_maps.get(&key).cloned().map(Found::ConfigMap),
            Source::Secret => self.secrets.get(&key).cloned().map(Found::Secret),
            Source::ServiceAccount => {
                let account = self.accounts.get(&key).cloned();
                account.map(Found::ServiceAccount)
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty() && self.accounts.is_empty()
    }

    /// All ConfigMaps.
    pub fn config_maps(&self) -> impl Iterator<Item = &ConfigMap> {
        self.config_maps.values().map(Arc::as_ref)
    }

    /// All Secrets.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.values().map(Arc::as_ref)
    }

    /// All ServiceAccounts.
    pub fn accounts(&self) -> impl Iterator<Item = &ServiceAccount> {
        self.accounts.values().map(Arc::as_ref)
    }

    /// Whether a ServiceAccount that is missing does not exist.
    pub fn knows_accounts(&self) -> bool {
        self.accounts_known
    }

    /// What a session can go on from.
    pub fn held(&self) -> Vec<HeldObject> {
        let config_maps = self.config_maps();
        let config_maps = config_maps.map(|it| held(Source::ConfigMap, &it.metadata));
        let secrets = self.secrets();
        let secrets = secrets.map(|it| held(Source::Secret, &it.metadata));
        let accounts = self.accounts();
        let accounts = accounts.map(|it| held(Source::ServiceAccount, &it.metadata));
        config_maps.chain(secrets).chain(accounts).collect()
    }
}

impl Found {
    /// Whether both are the same message.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ConfigMap(one), Self::ConfigMap(other)) => Arc::ptr_eq(one, other),
            (Self::Secret(one), Self::Secret(other)) => Arc::ptr_eq(one, other),
            (Self::ServiceAccount(one), Self::ServiceAccount(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

fn held(source: Source, metadata: &Option<ObjectMeta>) -> HeldObject {
    let metadata = metadata.clone().unwrap_or_default();
    HeldObject {
        kind: source.kind().to_owned(),
        namespace: metadata.namespace,
        name: metadata.name,
        resource_version: metadata.resource_version,
    }
}

fn name(metadata: &Option<ObjectMeta>) -> Name {
    let metadata = metadata.clone().unwrap_or_default();
    (metadata.namespace, metadata.name)
}

fn key(name: &ObjectName) -> Name {
    (name.namespace.clone(), name.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(name: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: Some(ObjectMeta {
                namespace: "shop".into(),
                name: name.into(),
                resource_version: version.into(),
                ..ObjectMeta::default()
            }),
            ..ConfigMap::default()
        }
    }

    fn names(configuration: &Configuration) -> Vec<String> {
        let held = configuration.held().into_iter();
        held.map(|it| format!("{}@{}", it.name, it.resource_version))
            .collect()
    }

    #[test]
    fn a_full_set_replaces_and_a_difference_adds_and_removes() {
        let mut configuration = Configuration::default();
        let mut full = Assignment {
            full: true,
            config_maps: vec![config_map("a", "1"), config_map("b", "1")],
            ..Assignment::default()
        };
        assert!(configuration.merge(&mut full.clone()));
        assert!(configuration.complete);
        assert_eq!(names(&configuration), ["a@1", "b@1"]);
        let mut difference = Assignment {
            config_maps: vec![config_map("b", "2")],
            removed_config_maps: vec![ObjectName {
                namespace: "shop".into(),
                name: "a".into(),
            }],
            ..Assignment::default()
        };
        assert!(configuration.merge(&mut difference));
        assert_eq!(names(&configuration), ["b@2"]);
        assert!(!configuration.merge(&mut Assignment::default()));
        full.config_maps.clear();
        assert!(configuration.merge(&mut full));
        assert!(names(&configuration).is_empty());
    }

    #[test]
    fn secrets_that_a_manager_cannot_open_stay_and_are_waited_for() {
        let secret = |name: &str| Secret {
            metadata: config_map(name, "1").metadata,
            ..Secret::default()
        };
        let named = |name: &str| ObjectName {
            namespace: "shop".into(),
            name: name.into(),
        };
        let unknown = |configuration: &Configuration, name: &str| {
            configuration.is_unknown(Source::Secret, "shop", name)
        };
        let mut configuration = Configuration::default();
        let mut full = Assignment {
            full: true,
            config_maps: vec![config_map("a", "1")],
            secrets: vec![secret("db"), secret("old")],
            ..Assignment::default()
        };
        configuration.merge(&mut full);
        assert!(configuration.is_whole());
        let mut locked = Assignment {
            full: true,
            withheld_secrets: vec![named("db"), named("new")],
            ..Assignment::default()
        };
        assert!(configuration.merge(&mut locked));
        assert_eq!(names(&configuration), ["db@1"]);
        assert!(unknown(&configuration, "new") && !configuration.is_whole());
        assert!(!unknown(&configuration, "old"), "it is gone");
        let mut difference = Assignment {
            secrets: vec![secret("new")],
            removed_secrets: vec![named("db")],
            ..Assignment::default()
        };
        configuration.merge(&mut difference);
        assert_eq!(names(&configuration), ["new@1"]);
        assert!(configuration.is_whole());
        let mut difference = Assignment {
            withheld_secrets: vec![named("late")],
            ..Assignment::default()
        };
        assert!(configuration.merge(&mut difference));
        assert!(unknown(&configuration, "late"));
    }
}
