//! The registry of kinds: the properties of each by its options in the schema, and the parts that an [`Object`] of any kind has.

pub mod custom;
mod registry;

use std::{borrow::Cow, fmt, sync::LazyLock};

use serde::Serializer;

use crate::v1::{self, Kind, Object, ObjectMeta, object};

pub use self::{
    custom::{CustomKind, RegisterError},
    registry::{KindRef, MOST, Registry},
};

include!(concat!(env!("OUT_DIR"), "/kinds.rs"));

/// What the API knows of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindInfo {
    /// The number of the kind.
    pub kind: Kind,
    /// Group and version as in a manifest ("v1", "apps/v1").
    pub api_version: Cow<'static, str>,
    /// As in a manifest ("Deployment").
    pub name: Cow<'static, str>,
    /// "deployments"
    pub plural: Cow<'static, str>,
    /// "deployment"
    pub singular: Cow<'static, str>,
    /// What fingers type ("deploy").
    pub short: &'static [&'static str],
    /// False for kinds whose objects belong to the whole cluster.
    pub namespaced: bool,
    /// The name of its message in the schema.
    pub message: &'static str,
    /// The managers keep its objects: nobody else applies or deletes them.
    pub kept_by_managers: bool,
    /// Subresources, which rules of roles name apart ("scale").
    pub parts: &'static [&'static str],
    /// The least of the built-in roles that may read its objects; none of them may when it is absent.
    pub read: Option<BuiltinRole>,
    /// The least that may write its objects.
    pub write: Option<BuiltinRole>,
    /// Fields that objects are selected by, besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// The feature level of the cluster from which on there can be objects of this kind.
    pub level: u32,
}

/// The built-in roles that are given within a namespace. Each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuiltinRole {
    /// "view"
    View,
    /// "edit"
    Edit,
    /// "admin"
    Admin,
}

impl KindInfo {
    /// The group ("apps"), empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    /// The version ("v1").
    pub fn version(&self) -> &str {
        let parts = self.api_version.split_once('/');
        parts.map_or(&self.api_version, |(_, version)| version)
    }

    /// What can be done with its objects, in the words of roles' rules.
    pub fn verbs(&self) -> &'static [&'static str] {
        const READ: &[&str] = &["get", "list", "watch"];
        const ALL: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
        match self.kept_by_managers {
            true => READ,
            false => ALL,
        }
    }

    /// The singular with its group, as kubectl prints it before a name ("deployment.apps", "pod").
    pub fn qualified(&self) -> String {
        match self.group() {
            "" => self.singular.to_string(),
            group => format!("{}.{group}", self.singular),
        }
    }

    /// Whether `name` means this kind: kind, plural, singular or short, with or without the group, in any case.
    fn is_called(&self, name: &str) -> bool {
        let bare = match name.split_once('.') {
            Some((bare, group)) if group.eq_ignore_ascii_case(self.group()) => bare,
            Some(_) => return false,
            None => name,
        };
        self.has_name(bare)
    }

    /// Whether one of its names, without the group, is this one, in any case.
    fn has_name(&self, name: &str) -> bool {
        let names = [&*self.name, &*self.plural, &*self.singular];
        let mut names = names.into_iter().chain(self.short.iter().copied());
        names.any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// A kind that Barge does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownKind {
    /// No kind of this name, in any group.
    #[error("unknown kind {0:?}; there are {kinds}", kinds = names())]
    Name(String),
    /// The kind exists, in another group or version.
    #[error("{name} has apiVersion {expected:?}, not {found:?}")]
    ApiVersion {
        /// The kind.
        name: String,
        /// The one apiVersion it has.
        expected: String,
        /// The one that was asked for.
        found: String,
    },
}

/// Finds a kind by what a manifest says.
pub fn by_type(api_version: &str, kind: &str) -> Result<&'static KindInfo, UnknownKind> {
    let info = KINDS
        .iter()
        .find(|info| info.name == kind)
        .ok_or_else(|| UnknownKind::Name(kind.to_owned()))?;
    if info.api_version != api_version {
        return Err(UnknownKind::ApiVersion {
            name: info.name.to_string(),
            expected: info.api_version.to_string(),
            found: api_version.to_owned(),
        });
    }
    Ok(info)
}

/// Finds a kind by what a person types: "Pod", "pods", "po", "deployment.apps".
pub fn by_name(name: &str) -> Result<&'static KindInfo, UnknownKind> {
    KINDS
        .iter()
        .find(|info| info.is_called(name))
        .ok_or_else(|| UnknownKind::Name(name.to_owned()))
}

/// All kinds, for messages to people: "Namespace, Node, …".
fn names() -> String {
    let names: Vec<_> = KINDS.iter().map(|info| &*info.name).collect();
    names.join(", ")
}

impl Kind {
    /// What the API knows of this kind; none for `KIND_UNSPECIFIED`, and for `KIND_CUSTOM`, which stands for many: see [`Registry`].
    pub fn info(self) -> Option<&'static KindInfo> {
        // They are numbered from 1 on.
        let index = usize::try_from(i32::from(self)).ok()?.checked_sub(1)?;
        KINDS.get(index)
    }
}

/// "true" or "false".
fn word(value: bool) -> &'static str {
    match value {
        true => "true",
        false => "false",
    }
}

macro_rules! define {
    ($($variant:ident($record:ident) $table:ident = $number:literal [$($object:ident($message:ident))?] $options:tt,)*) => {
        $($(
            impl From<v1::$message> for Object {
                fn from(message: v1::$message) -> Self {
                    Self { kind: Some(object::Kind::$object(message)) }
                }
            }

            /// Gives the object back when it is of another kind.
            impl TryFrom<Object> for v1::$message {
                type Error = Object;

                fn try_from(object: Object) -> Result<Self, Object> {
                    match object.kind {
                        Some(object::Kind::$object(message)) => Ok(message),
                        kind => Err(Object { kind }),
                    }
                }
            }
        )?)*

        impl Object {
            /// What kind of object this is; `KIND_UNSPECIFIED` for an empty one.
            pub fn kind(&self) -> Kind {
                match &self.kind {
                    $($(Some(object::Kind::$object(_)) => Kind::$object,)?)*
                    None => Kind::Unspecified,
                }
            }

            /// The metadata; an empty one when there is none.
            pub fn metadata(&self) -> &ObjectMeta {
                let metadata = match &self.kind {
                    $($(Some(object::Kind::$object(message)) => message.metadata.as_ref(),)?)*
                    None => None,
                };
                metadata.unwrap_or(&EMPTY)
            }

            /// The metadata, created when there is none; nothing for an empty object.
            pub fn metadata_mut(&mut self) -> Option<&mut ObjectMeta> {
                match &mut self.kind {
                    $($(Some(object::Kind::$object(message)) => {
                        Some(message.metadata.get_or_insert_default())
                    })?)*
                    None => None,
                }
            }

            /// With apiVersion and kind filled in, where they follow from the kind.
            pub fn typed(mut self) -> Self {
                let Some(info) = self.kind().info() else {
                    return self;
                };
                match &mut self.kind {
                    $($(Some(object::Kind::$object(message)) => {
                        (*info.api_version).clone_into(&mut message.api_version);
                        (*info.name).clone_into(&mut message.kind);
                    })?)*
                    None => {}
                }
                self
            }

            /// apiVersion and kind as the object itself says, which may be empty or wrong.
            pub fn stated_type(&self) -> (&str, &str) {
                match &self.kind {
                    $($(Some(object::Kind::$object(message)) => {
                        (&message.api_version, &message.kind)
                    })?)*
                    None => ("", ""),
                }
            }
        }

        pub(crate) fn serialize<S: Serializer>(
            object: &Object,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match &object.kind {
                $($(Some(object::Kind::$object(message)) => {
                    serde::Serialize::serialize(message, serializer)
                })?)*
                None => serializer.serialize_unit(),
            }
        }

        /// Reads an object of a known kind, from JSON that need not say which.
        ///
        /// # Errors
        /// What does not fit.
        pub fn deserialize<'de, D: serde::Deserializer<'de>>(
            kind: Kind,
            deserializer: D,
        ) -> Result<Object, D::Error> {
            match kind {
                $($(Kind::$object => {
                    <v1::$message as serde::Deserialize>::deserialize(deserializer)
                        .map(Object::from)
                })?)*
                Kind::Unspecified => Ok(Object::default()),
            }
        }
    };
}
for_each_kind!(define);

static EMPTY: LazyLock<ObjectMeta> = LazyLock::new(ObjectMeta::default);

impl Object {
    /// The name, which may be empty.
    pub fn name(&self) -> &str {
        &self.metadata().name
    }

    /// The namespace; empty for kinds without one.
    pub fn namespace(&self) -> &str {
        &self.metadata().namespace
    }

    /// The identity of this incarnation; empty before the server set it.
    pub fn uid(&self) -> &str {
        &self.metadata().uid
    }
}

/// "deployment.apps/nginx"
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object::Kind::Custom(custom)) = &self.kind {
            let group = custom.api_version.split('/').next().unwrap_or_default();
            let kind = custom.kind.to_lowercase();
            return write!(f, "{kind}.{group}/{}", self.name());
        }
        match self.kind().info() {
            Some(info) => write!(f, "{}/{}", info.qualified(), self.name()),
            None => f.write_str("(no object)"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::v1::{Deployment, Pod};

    #[test]
    fn every_kind_of_the_schema_is_in_the_table_once() {
        for number in 1.. {
            let Ok(kind) = Kind::try_from(number) else {
                assert_eq!(number as usize, KINDS.len() + 1);
                break;
            };
            assert_eq!(kind.info().unwrap().kind, kind);
        }
        assert_eq!(Kind::Unspecified.info(), None);
    }

    #[test]
    fn kinds_are_found_by_what_people_type() {
        for name in [
            "deploy",
            "Deployment",
            "DEPLOYMENTS",
            "deployment.apps",
            "deployments.apps",
        ] {
            assert_eq!(by_name(name).unwrap().kind, Kind::Deployment, "{name}");
        }
        for name in ["", "pod.apps", "statefulset", "deployments.extensions"] {
            assert_eq!(by_name(name), Err(UnknownKind::Name(name.to_owned())));
        }
    }

    #[test]
    fn no_two_kinds_share_a_name() {
        for info in KINDS {
            let names = [&*info.name, &*info.plural, &*info.singular];
            for name in names.iter().chain(info.short) {
                assert_eq!(by_name(name).unwrap(), info, "{name}");
            }
        }
    }

    #[test]
    fn a_wrong_group_is_told_from_an_unknown_kind() {
        let error = by_type("extensions/v1beta1", "Deployment").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Deployment has apiVersion \"apps/v1\", not \"extensions/v1beta1\""
        );
        let error = by_type("v1", "Widget").unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(
                "unknown kind \"Widget\"; there are Namespace, Node, Deployment, Pod, "
            ),
            "{said}"
        );
        assert!(
            KINDS.iter().all(|kind| said.contains(&*kind.name)),
            "{said}"
        );
    }

    #[test]
    fn an_object_knows_its_kind_and_metadata() {
        let mut object = Object::from(Deployment::default());
        assert_eq!(object.name(), "");
        object.metadata_mut().unwrap().name = "web".to_owned();
        assert_eq!(object.to_string(), "deployment.apps/web");
        let object = object.typed();
        assert_eq!(object.stated_type(), ("apps/v1", "Deployment"));
        let object = Pod::try_from(object).unwrap_err();
        assert_eq!(Deployment::try_from(object).unwrap().kind, "Deployment");
    }
}
