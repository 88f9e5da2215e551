//! The index of bindings by subject. Managers look it up for every request of a caller who is not an administrator.

use std::{collections::BTreeSet, sync::Arc};

use barge_proto::v1::{ClusterRoleBinding, RoleBinding, Subject};

use crate::{
    kept::Kept,
    kind::{Kind, Stored},
    state::State,
    table::Index,
};

/// The user that a service account is.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Bindings by their subjects; those of a namespace by it, too.
#[derive(Debug, Default)]
pub struct Subjects {
    in_namespace: Index<RoleBinding>,
    everywhere: Index<ClusterRoleBinding>,
}

impl Subjects {
    /// Follows a change of a binding; of other kinds there is nothing to follow.
    pub fn swap(&mut self, before: Option<&Stored>, after: Option<&Stored>) {
        match before.or(after) {
            Some(Stored::RoleBinding(_)) => {
                let keys = |binding: &RoleBinding| {
                    let namespace = &binding.meta().namespace;
                    let keys = keys(&binding.subjects);
                    keys.into_iter()
                        .map(|key| within(namespace, &key))
                        .collect()
                };
                swap(&mut self.in_namespace, of(before), of(after), keys);
            }
            Some(Stored::ClusterRoleBinding(_)) => {
                let keys = |binding: &ClusterRoleBinding| keys(&binding.subjects);
                swap(&mut self.everywhere, of(before), of(after), keys);
            }
            _ => {}
        }
    }
}

fn of<K: Kind<Kept = K>>(stored: Option<&Stored>) -> Option<&Arc<K>> {
    stored.and_then(K::from_stored)
}

fn swap<K: Kept>(
    index: &mut Index<K>,
    before: Option<&Arc<K>>,
    after: Option<&Arc<K>>,
    keys: impl Fn(&K) -> BTreeSet<String>,
) {
    if let Some(before) = before {
        for key in keys(before) {
            index.remove(&key, before.uid());
        }
    }
    if let Some(after) = after {
        for key in keys(after) {
            index.insert(&key, after);
        }
    }
}

/// One subject may be named twice.
fn keys(subjects: &[Subject]) -> BTreeSet<String> {
    subjects.iter().filter_map(key).collect()
}

fn key(subject: &Subject) -> Option<String> {
    let name = &subject.name;
    match subject.kind.as_str() {
        "User" => Some(user_key(name)),
        "Group" => Some(group_key(name)),
        "ServiceAccount" => Some(user_key(&service_account_user(&subject.namespace, name))),
        _ => None,
    }
}

fn user_key(name: &str) -> String {
    format!("user {name}")
}

fn group_key(name: &str) -> String {
    format!("group {name}")
}

/// Namespaces have no spaces in their names.
fn within(namespace: &str, key: &str) -> String {
    format!("{namespace} {key}")
}

impl State {
    /// The bindings of a namespace that are for this user or one of these groups, but those that are being deleted. One that is for
    /// several of them comes several times.
    pub fn role_bindings_for(
        &self,
        namespace: &str,
        user: &str,
        groups: &[String],
    ) -> Vec<&Arc<RoleBinding>> {
        let index = &self.tables.subjects.in_namespace;
        let keys = std::iter::once(user_key(user)).chain(groups.iter().map(|g| group_key(g)));
        keys.flat_map(|key| index.get(&within(namespace, &key)))
            .filter(|binding| !binding.is_being_deleted())
            .collect()
    }

    /// The bindings of the whole cluster that are for this user or one of these groups, as [`State::role_bindings_for`].
    pub fn cluster_role_bindings_for(
        &self,
        user: &str,
        groups: &[String],
    ) -> Vec<&Arc<ClusterRoleBinding>> {
        let index = &self.tables.subjects.everywhere;
        let keys = std::iter::once(user_key(user)).chain(groups.iter().map(|g| group_key(g)));
        keys.flat_map(|key| index.get(&key))
            .filter(|binding| !binding.is_being_deleted())
            .collect()
    }
}
