//! Waiting for objects by a watch.

use std::collections::BTreeSet;

use anyhow::Result;
use barge_client::{
    Client, Selection, WatchEvent,
    v1::{Kind, Object},
};

/// Objects of one kind in one namespace that are waited for, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub kind: Kind,
    /// Empty for kinds without.
    pub namespace: String,
    pub names: BTreeSet<String>,
}

/// The objects by kind and namespace, in order of the first of each.
pub fn groups<'a>(objects: impl IntoIterator<Item = (Kind, &'a str, &'a str)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (kind, namespace, name) in objects {
        let mut known = groups.iter_mut();
        match known.find(|it| it.kind == kind && it.namespace == namespace) {
            Some(group) => {
                group.names.insert(name.to_owned());
            }
            None => groups.push(Group {
                kind,
                namespace: namespace.to_owned(),
                names: [name.to_owned()].into(),
            }),
        }
    }
    groups
}

impl Group {
    /// One watch for all: of the object if it is one, else of the kind in the namespace.
    fn selection(&self) -> Selection {
        let all = Selection::of(self.kind, &self.namespace);
        let mut names = self.names.iter();
        match (names.next(), names.next()) {
            (Some(only), None) => Selection {
                name: only.clone(),
                fields: format!("metadata.name={only}"),
                ..all
            },
            _ => all,
        }
    }

    /// Returns when `judge` was true of every object; takes those out of `names` meanwhile. `judge` sees an object as it is
    /// now, and nothing in place of one that is not there. With `once` it is asked about each once only.
    pub async fn follow(
        &mut self,
        client: &Client,
        once: bool,
        mut judge: impl FnMut(&str, Option<&Object>) -> Result<bool>,
    ) -> Result<()> {
        let mut watcher = client.list_and_watch(self.selection());
        while !self.names.is_empty() {
            match watcher.next().await? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let name = object.name();
                    if self.names.contains(name) && judge(name, Some(&object))? {
                        self.names.remove(name);
                    }
                }
                WatchEvent::Deleted(object) => {
                    let name = object.name();
                    if self.names.contains(name) && judge(name, None)? {
                        self.names.remove(name);
                    }
                }
                WatchEvent::Synced { .. } => {
                    let there: BTreeSet<_> = watcher.objects().map(Object::name).collect();
                    let mut left = BTreeSet::new();
                    for name in std::mem::take(&mut self.names) {
                        if there.contains(name.as_str()) || !judge(&name, None)? {
                            left.insert(name);
                        }
                    }
                    self.names = left;
                    if once {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_watch_serves_all_of_a_kind_and_namespace() {
        let groups = groups([
            (Kind::Pod, "a", "x"),
            (Kind::Service, "a", "x"),
            (Kind::Pod, "a", "y"),
            (Kind::Pod, "b", "x"),
        ]);
        let names: Vec<_> = groups
            .iter()
            .map(|it| (it.kind, it.namespace.as_str(), it.names.len()))
            .collect();
        assert_eq!(
            names,
            [
                (Kind::Pod, "a", 2),
                (Kind::Service, "a", 1),
                (Kind::Pod, "b", 1)
            ]
        );
        assert_eq!(groups[0].selection(), Selection::of(Kind::Pod, "a"));
        assert_eq!(groups[1].selection().fields, "metadata.name=x");
    }
}
