//! Whether a caller may do what it asks for.

use barge_proto::v1::{ClusterRole, PolicyRule, RbacRole, RoleRef};
use barge_state::{Kind, State};

use super::{
    Asked, Identity,
    identity::MASTERS,
    rule::{self, ALL},
};

/// The rights of a caller, by a state.
#[derive(Debug, Clone, Copy)]
pub struct Review<'a> {
    state: &'a State,
    who: &'a Identity,
}

impl<'a> Review<'a> {
    /// Looks up the caller's bindings in the state.
    #[must_use]
    pub fn new(state: &'a State, who: &'a Identity) -> Self {
        Self { state, who }
    }

    /// Who it is.
    #[must_use]
    pub fn who(&self) -> &'a Identity {
        self.who
    }

    /// The state that is looked at.
    #[must_use]
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// Whether it is allowed.
    #[must_use]
    pub fn may(&self, asked: &Asked<'_>) -> bool {
        self.is_master() || {
            let mut found = self.found(asked.namespace).into_iter();
            found.any(|it| rule::allows(it, asked))
        }
    }

    /// Whether everything is.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.who.groups.iter().any(|group| group == MASTERS)
    }

    /// Every rule that holds in a namespace; in an empty one, those that hold everywhere.
    #[must_use]
    pub fn rules(&self, namespace: &str) -> Vec<PolicyRule> {
        let everything = self.is_master().then(everything);
        let found = self.found(namespace).into_iter().cloned();
        everything.into_iter().chain(found).collect()
    }

    fn found(&self, namespace: &str) -> Vec<&'a PolicyRule> {
        let Identity { user, groups } = self.who;
        let mut roles = Vec::new();
        for binding in self.state.cluster_role_bindings_for(user, groups) {
            roles.extend(binding.role_ref.as_ref());
        }
        if !namespace.is_empty() {
            for binding in self.state.role_bindings_for(namespace, user, groups) {
                roles.extend(binding.role_ref.as_ref());
            }
        }
        let rules = |role: &RoleRef| rules_of(self.state, namespace, role).unwrap_or_default();
        roles.into_iter().flat_map(rules).collect()
    }
}

/// The rules of the role that a binding of a namespace gives; absent when there is no such role, or it is being deleted.
#[must_use]
pub fn rules_of<'a>(state: &'a State, namespace: &str, role: &RoleRef) -> Option<&'a [PolicyRule]> {
    match role.kind.as_str() {
        "ClusterRole" => {
            let role = state.get::<ClusterRole>("", &role.name)?;
            (!role.is_being_deleted()).then_some(&role.rules)
        }
        "Role" => {
            let role = state.get::<RbacRole>(namespace, &role.name)?;
            (!role.is_being_deleted()).then_some(&role.rules)
        }
        _ => None,
    }
}

/// What `system:masters` may, as a rule.
#[must_use]
pub fn everything() -> PolicyRule {
    let all = || vec![ALL.to_owned()];
    PolicyRule {
        verbs: all(),
        api_groups: all(),
        resources: all(),
        resource_names: Vec::new(),
    }
}
