//! What a watch is about, and where a change looks for it.

use std::{collections::BTreeSet, sync::Arc};

use barge_state::{Changed, RecordKind};

/// What a watch is about. Everything that is given has to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Kinds of records; all when empty.
    pub kinds: Vec<RecordKind>,
    /// Only records of this namespace.
    pub namespace: Option<String>,
    /// Only pods that are or were bound to the node with this uid, and the node itself.
    pub node: Option<String>,
    /// Only records of this name; the namespace has to be given, too.
    pub name: Option<String>,
}

impl Scope {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Records of these kinds.
    pub fn kinds(kinds: impl IntoIterator<Item = RecordKind>) -> Self {
        Self {
            kinds: kinds.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(super) fn matches(&self, change: &Changed) -> bool {
        (self.kinds.is_empty() || change.kind().is_some_and(|kind| self.kinds.contains(&kind)))
            && self
                .namespace
                .as_deref()
                .is_none_or(|namespace| change.namespace() == namespace)
            && self
                .node
                .as_deref()
                .is_none_or(|node| change.node_uids().any(|uid| uid == node))
            && self
                .name
                .as_deref()
                .is_none_or(|name| change.name() == name)
    }

    /// Where a change looks for this watch.
    pub(super) fn keys(&self) -> Vec<Key> {
        let kinds: &[_] = if self.kinds.is_empty() {
            RecordKind::ALL
        } else {
            &self.kinds
        };
        kinds
            .iter()
            .map(|kind| Key {
                kind: *kind,
                // One of the two is enough to find it; the other one is checked then.
                namespace: self.namespace.clone().filter(|_| self.node.is_none()),
                name: self.name.clone().filter(|_| self.node.is_none()),
                node: self.node.clone(),
            })
            .collect()
    }
}

/// What a watch is about, when that is several things: changes that are in any of the scopes, in the order of their revisions.
#[derive(Debug, Clone)]
pub struct Scopes(Arc<[Scope]>);

impl From<Scope> for Scopes {
    fn from(scope: Scope) -> Self {
        Self(Arc::new([scope]))
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        Self(scopes.into())
    }
}

impl<const N: usize> From<[Scope; N]> for Scopes {
    fn from(scopes: [Scope; N]) -> Self {
        Self(Arc::new(scopes))
    }
}

impl Scopes {
    pub(super) fn matches(&self, change: &Changed) -> bool {
        self.0.iter().any(|scope| scope.matches(change))
    }

    /// Where a change looks for this watch; each once.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        self.0.iter().flat_map(Scope::keys).collect()
    }
}

/// Under which a change finds watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: RecordKind,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) node: Option<String>,
}
