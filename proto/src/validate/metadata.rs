//! Metadata of objects and of templates.

use std::fmt;

use super::{Checker, names};
use crate::v1::{Kind, Object, ObjectMeta, Time};

/// All annotations of an object together, keys and values.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// What an object has that waits for what it owns.
const FOREGROUND: &str = "foregroundDeletion";

impl Checker {
    pub(super) fn object_metadata(&mut self, object: &Object) {
        let metadata = object.metadata();
        let rule = match object.kind() {
            Kind::Namespace => names::dns_label,
            Kind::Service | Kind::Endpoints => names::dns_1035_label,
            Kind::Role | Kind::ClusterRole | Kind::RoleBinding | Kind::ClusterRoleBinding => {
                names::path_segment
            }
            _ => names::dns_subdomain,
        };
        if metadata.name.is_empty() {
            self.required("metadata.name");
        } else {
            self.text("metadata.name", &metadata.name, rule(&metadata.name));
        }
        let namespace = &metadata.namespace;
        if !namespace.is_empty() {
            match object.kind().info() {
                Some(info) if !info.namespaced => {
                    let rule = format!("must be empty: a {} belongs to no namespace", info.name);
                    self.violated("metadata.namespace", format_args!("{namespace:?}"), rule);
                }
                _ => self.text("metadata.namespace", namespace, names::dns_label(namespace)),
            }
        }
        if let Some(name) = metadata.finalizers.iter().find(|name| *name != FOREGROUND) {
            let rule = "is not possible: finalizers are set by the server";
            self.violated("metadata.finalizers", format_args!("{name:?}"), rule);
        }
        self.metadata("metadata", metadata);
    }

    /// What templates have too.
    pub(super) fn metadata(&mut self, path: &str, metadata: &ObjectMeta) {
        for (field, time) in [
            ("creationTimestamp", metadata.creation_timestamp),
            ("deletionTimestamp", metadata.deletion_timestamp),
        ] {
            if let Some(time) = time.filter(|time: &Time| !time.is_valid()) {
                self.violated(
                    format!("{path}.{field}"),
                    time,
                    "must be before the year 10000",
                );
            }
        }
        self.labels(format_args!("{path}.labels"), &metadata.labels);
        for key in metadata.annotations.keys() {
            // Kubernetes allows capitals in the prefix here.
            let result = match key.chars().any(char::is_uppercase) {
                true => names::label_key(&key.to_lowercase()),
                false => names::label_key(key),
            };
            self.text(format_args!("{path}.annotations[{key}]"), key, result);
        }
        let size: usize = metadata
            .annotations
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if size > MAX_ANNOTATION_BYTES {
            let rule = format!("must be at most {MAX_ANNOTATION_BYTES} bytes in all");
            let field = format!("{path}.annotations");
            self.violated(field, format_args!("{size} bytes"), rule);
        }
        self.owners(path, metadata);
    }

    fn owners(&mut self, path: &str, metadata: &ObjectMeta) {
        let mut controllers = 0;
        for (index, owner) in metadata.owner_references.iter().enumerate() {
            let field = format!("{path}.ownerReferences[{index}]");
            for (name, value) in [
                ("apiVersion", &owner.api_version),
                ("kind", &owner.kind),
                ("name", &owner.name),
                ("uid", &owner.uid),
            ] {
                if value.is_empty() {
                    self.required(format!("{field}.{name}"));
                }
            }
            controllers += usize::from(owner.controller == Some(true));
            if controllers == 2 {
                let rule = "only one owner can be the controller";
                self.violated(format!("{field}.controller"), "", rule);
            }
        }
    }

    pub(super) fn labels(
        &mut self,
        path: impl fmt::Display,
        labels: &std::collections::BTreeMap<String, String>,
    ) {
        for (key, value) in labels {
            self.text(format_args!("{path}[{key}]"), key, names::label_key(key));
            let result = names::label_value(value);
            self.text(format_args!("{path}[{key}]"), value, result);
        }
    }
}
