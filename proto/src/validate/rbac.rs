//! Roles and bindings.

use super::{Checker, names};
use crate::v1::{PolicyRule, RoleRef, Subject};

/// The API group of roles, users and groups.
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

impl Checker {
    pub(super) fn rules(&mut self, rules: &[PolicyRule]) {
        for (index, rule) in rules.iter().enumerate() {
            for (field, values) in [
                ("verbs", &rule.verbs),
                ("apiGroups", &rule.api_groups),
                ("resources", &rule.resources),
            ] {
                if values.is_empty() {
                    // A rule that names nothing is an oversight: the core group is "", all is "*".
                    let field = format!("rules[{index}].{field}");
                    self.violated(field, "", "must name at least one");
                }
            }
        }
    }

    pub(super) fn binding(
        &mut self,
        subjects: &[Subject],
        role: Option<&RoleRef>,
        kinds: &'static [&'static str],
    ) {
        for (index, subject) in subjects.iter().enumerate() {
            self.subject(&format!("subjects[{index}]"), subject);
        }
        let Some(role) = role else {
            return self.required("roleRef");
        };
        self.one_of("roleRef.apiGroup", &role.api_group, &[GROUP]);
        match role.kind.as_str() {
            "" => self.required("roleRef.kind"),
            kind => self.one_of("roleRef.kind", kind, kinds),
        }
        match role.name.as_str() {
            "" => self.required("roleRef.name"),
            name => self.text("roleRef.name", name, names::path_segment(name)),
        }
    }

    fn subject(&mut self, path: &str, subject: &Subject) {
        let Subject {
            kind,
            api_group,
            name,
            namespace,
        } = subject;
        if name.is_empty() {
            self.required(format!("{path}.name"));
        }
        let group = format!("{path}.apiGroup");
        let place = format!("{path}.namespace");
        match kind.as_str() {
            "" => self.required(format!("{path}.kind")),
            "ServiceAccount" => {
                if !api_group.is_empty() {
                    let rule = "must be empty for a ServiceAccount";
                    self.violated(group, format_args!("{api_group:?}"), rule);
                }
                if !name.is_empty() {
                    self.text(format!("{path}.name"), name, names::dns_subdomain(name));
                }
                match namespace.as_str() {
                    "" => self.required(place),
                    namespace => self.text(place, namespace, names::dns_label(namespace)),
                }
            }
            "User" | "Group" => {
                self.one_of(group, api_group, &[GROUP]);
                if !namespace.is_empty() {
                    let rule = format!("must be empty: a {kind} belongs to no namespace");
                    self.violated(place, format_args!("{namespace:?}"), rule);
                }
            }
            _ => self.one_of(
                format!("{path}.kind"),
                kind,
                &["User", "Group", "ServiceAccount"],
            ),
        }
    }

    /// Otherwise a user that may change a binding's subjects could also give them another role.
    pub(super) fn same_role(&mut self, old: Option<&RoleRef>, new: Option<&RoleRef>) {
        if old != new {
            let rule = "cannot change: delete the binding and create it anew";
            self.violated("roleRef", "", rule);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use crate::{
        manifest::{self, Source},
        v1::Object,
        validate::{default, validate, validate_update},
    };

    fn object(text: &str) -> Object {
        let mut read =
            manifest::parse([Source::new("test", text)]).unwrap_or_else(|e| panic!("{e}"));
        let mut object = read.remove(0).object;
        default(&mut object);
        object
    }

    fn broken(text: &str) -> Vec<String> {
        let broken = validate(&object(text)).err().unwrap_or_default();
        broken.iter().map(ToString::to_string).collect()
    }

    fn binding(kind: &str, subject: &str, role: &str) -> String {
        format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: {kind}, metadata: {{name: it}}, \
             subjects: [{subject}], roleRef: {role}}}"
        )
    }

    const VIEW: &str = "{kind: ClusterRole, name: view}";

    #[test]
    fn rules_name_verbs_groups_and_resources() {
        let role = |rule: &str| {
            broken(&format!(
                "{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: 'a:b'}}, rules: [{rule}]}}"
            ))
        };
        assert!(role("{verbs: [get], apiGroups: [''], resources: [pods]}").is_empty());
        assert_eq!(role("{apiGroups: [''], resources: [pods]}").len(), 1);
        assert_eq!(role("{}").len(), 3);
    }

    #[test]
    fn subjects_are_users_groups_and_service_accounts() {
        let of = |subject: &str| broken(&binding("RoleBinding", subject, VIEW));
        assert!(of("{kind: User, name: alice}").is_empty());
        assert!(of("{kind: Group, name: 'system:authenticated'}").is_empty());
        assert!(of("{kind: ServiceAccount, name: ci, namespace: shop}").is_empty());
        assert!(of("{kind: ServiceAccount, name: ci}")[0].contains("namespace: is required"));
        assert!(of("{kind: User, name: alice, namespace: shop}")[0].contains("no namespace"));
        assert!(of("{kind: Robot, name: r2}")[0].contains("User or Group or ServiceAccount"));
        assert!(of("{kind: User}")[0].contains("name: is required"));
    }

    #[test]
    fn a_cluster_role_binding_gives_cluster_roles_only() {
        let role = "{kind: Role, name: mine}";
        assert!(broken(&binding("RoleBinding", "", role)).is_empty());
        let text = broken(&binding("ClusterRoleBinding", "", role));
        assert_eq!(text, ["roleRef.kind: \"Role\" must be ClusterRole"]);
        let other = "{kind: Role, name: mine, apiGroup: apps}";
        assert_eq!(broken(&binding("RoleBinding", "", other)).len(), 1);
    }

    #[test]
    fn what_a_binding_gives_never_changes() {
        let old = object(&binding("RoleBinding", "{kind: User, name: alice}", VIEW));
        let others = object(&binding("RoleBinding", "{kind: User, name: bob}", VIEW));
        assert!(validate_update(&old, &others).is_ok());
        let edit = object(&binding(
            "RoleBinding",
            "",
            "{kind: ClusterRole, name: edit}",
        ));
        let broken = validate_update(&old, &edit).unwrap_err();
        assert_eq!(broken[0].field, "roleRef");
    }

    #[test]
    fn what_is_not_implemented_is_refused() {
        let rule = "{verbs: [get], nonResourceURLs: ['/healthz']}";
        let text = format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {{name: it}}, rules: [{rule}]}}"
        );
        let error = manifest::parse([Source::new("test", text)]).unwrap_err();
        assert!(error.to_string().contains("nonResourceURLs"), "{error}");
    }
}
