//! The kinds of one cluster, found by group, version and resource.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    KindInfo, UnknownKind, by_type,
    custom::{CustomKind, RegisterError},
};
use crate::v1::{GroupVersionResource, Kind, Object};

/// Kinds that can be registered. Each takes a few hundred bytes on every manager.
pub const MOST: usize = 1000;

/// A kind: one that every cluster has, or one that was registered.
#[derive(Debug, Clone)]
pub enum KindRef {
    /// One of [`super::KINDS`].
    Builtin(&'static KindInfo),
    /// A registered one.
    Custom(Arc<KindInfo>),
}

impl Deref for KindRef {
    type Target = KindInfo;

    fn deref(&self) -> &KindInfo {
        match self {
            Self::Builtin(info) => info,
            Self::Custom(info) => info,
        }
    }
}

/// The kinds of a cluster: those that every cluster has, and those that were registered. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Registry(Arc<RwLock<Custom>>);

/// The registered kinds, by group and then by plural.
type Custom = BTreeMap<String, BTreeMap<String, Arc<KindInfo>>>;

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.registered()).finish()
    }
}

impl Registry {
    /// Registers a kind, or replaces the one of its group and plural.
    ///
    /// # Errors
    /// [`RegisterError`] when a name breaks a rule or is taken, or when there are too many.
    pub fn register(&self, kind: &CustomKind) -> Result<KindRef, RegisterError> {
        let info = Arc::new(kind.info()?);
        let group = info.group().to_owned();
        let mut custom = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let beside = custom.get(&group).into_iter().flat_map(BTreeMap::values);
        let beside = beside.filter(|other| other.plural != info.plural);
        let builtin = super::KINDS.iter().filter(|other| other.group() == group);
        for other in beside.map(Arc::as_ref).chain(builtin) {
            let names = [&info.name, &info.plural, &info.singular];
            if let Some(name) = names.into_iter().find(|name| other.has_name(name)) {
                return Err(RegisterError::Taken {
                    name: name.to_string(),
                    other: other.name.to_string(),
                    group,
                });
            }
        }
        let known = custom
            .get(&group)
            .is_some_and(|kinds| kinds.contains_key(&*info.plural));
        if !known && custom.values().map(BTreeMap::len).sum::<usize>() >= MOST {
            return Err(RegisterError::TooMany { most: MOST });
        }
        let kinds = custom.entry(group).or_default();
        kinds.insert(info.plural.to_string(), info.clone());
        Ok(KindRef::Custom(info))
    }

    /// Takes a kind away; nothing when there is none of this group and plural.
    pub fn remove(&self, group: &str, plural: &str) {
        let mut custom = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(kinds) = custom.get_mut(group) {
            kinds.remove(plural);
            if kinds.is_empty() {
                custom.remove(group);
            }
        }
    }

    /// The registered kinds, by group and plural.
    pub fn registered(&self) -> Vec<Arc<KindInfo>> {
        let custom = self.0.read().unwrap_or_else(PoisonError::into_inner);
        custom
            .values()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    /// A kind as a request names it: by its number, and a registered one by group, version and plural.
    pub fn get(&self, kind: Kind, resource: Option<&GroupVersionResource>) -> Option<KindRef> {
        if kind != Kind::Custom {
            return kind.info().map(KindRef::Builtin);
        }
        let resource = resource?;
        let custom = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = custom.get(&resource.group)?.get(&resource.resource)?;
        (found.version() == resource.version).then(|| KindRef::Custom(found.clone()))
    }

    /// A kind as a manifest names it.
    ///
    /// # Errors
    /// [`UnknownKind`].
    pub fn by_type(&self, api_version: &str, kind: &str) -> Result<KindRef, UnknownKind> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let custom = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut kinds = custom.get(group).into_iter().flat_map(BTreeMap::values);
        match kinds.find(|info| info.name == kind) {
            Some(info) if info.api_version == api_version => Ok(KindRef::Custom(info.clone())),
            Some(info) => Err(UnknownKind::ApiVersion {
                name: info.name.to_string(),
                expected: info.api_version.to_string(),
                found: api_version.to_owned(),
            }),
            None => by_type(api_version, kind).map(KindRef::Builtin),
        }
    }

    /// The kind of an object; none when it has none, or one that is not registered.
    pub fn of(&self, object: &Object) -> Option<KindRef> {
        match object.kind() {
            Kind::Custom => {
                let (api_version, kind) = object.stated_type();
                let found = self.by_type(api_version, kind).ok()?;
                (found.kind == Kind::Custom).then_some(found)
            }
            kind => kind.info().map(KindRef::Builtin),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn widget(group: &str, version: &str) -> CustomKind {
        CustomKind {
            resource: GroupVersionResource {
                group: group.to_owned(),
                version: version.to_owned(),
                resource: "widgets".to_owned(),
            },
            name: "Widget".to_owned(),
            singular: String::new(),
            namespaced: true,
        }
    }

    #[test]
    fn a_registered_kind_is_found_as_the_others_are() {
        let registry = Registry::default();
        let kind = widget("example.com", "v1");
        assert!(registry.get(Kind::Custom, Some(&kind.resource)).is_none());
        registry.register(&kind).unwrap();
        let found = registry.get(Kind::Custom, Some(&kind.resource)).unwrap();
        assert_eq!(found.qualified(), "widget.example.com");
        let found = registry.by_type("example.com/v1", "Widget").unwrap();
        assert_eq!(found.plural, "widgets");
        assert_eq!(registry.get(Kind::Pod, None).unwrap().plural, "pods");
        assert_eq!(
            registry.by_type("apps/v1", "Deployment").unwrap().singular,
            "deployment"
        );
        let error = registry.by_type("example.com/v2", "Widget").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Widget has apiVersion \"example.com/v1\", not \"example.com/v2\""
        );
        registry.remove("example.com", "widgets");
        assert!(registry.by_type("example.com/v1", "Widget").is_err());
    }

    #[test]
    fn names_are_checked_and_unique_within_a_group() {
        let registry = Registry::default();
        registry.register(&widget("example.com", "v1")).unwrap();
        // The same again, or with another version, replaces it.
        registry.register(&widget("example.com", "v2")).unwrap();
        assert_eq!(registry.registered().len(), 1);
        registry
            .register(&widget("other.example.com", "v1"))
            .unwrap();
        let mut second = widget("example.com", "v1");
        second.resource.resource = "gadgets".to_owned();
        let error = registry.register(&second).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("Widget is Widget in the group"),
            "{error}"
        );
        for (group, version) in [
            ("", "v1"),
            ("example", "v1"),
            ("example.com", ""),
            ("a b", "v1"),
        ] {
            let error = registry.register(&widget(group, version)).unwrap_err();
            assert!(matches!(error, RegisterError::Invalid { .. }), "{error}");
        }
        let mut role = widget("rbac.authorization.k8s.io", "v1");
        role.name = "Role".to_owned();
        assert!(matches!(
            registry.register(&role),
            Err(RegisterError::Taken { .. })
        ));
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let registry = Registry::default();
        for number in 0..MOST {
            let group = format!("g{number}.example.com");
            registry.register(&widget(&group, "v1")).unwrap();
        }
        let error = registry.register(&widget("example.com", "v1")).unwrap_err();
        assert_eq!(error, RegisterError::TooMany { most: MOST });
    }
}
