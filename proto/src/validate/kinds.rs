//! What is valid and what is the default, kind by kind. The compiler demands an entry of every kind.

use super::{Checker, defaults};
use crate::v1::{
    ClusterRole, ClusterRoleBinding, ConfigMap, CustomObject, Deployment, Endpoints, Event,
    Namespace, Node, Object, Pod, PodDisruptionBudget, PodSpec, RbacRole, ReplicaSet, RoleBinding,
    Secret, Service, ServiceAccount, object,
};

/// The rules of a kind beside those of metadata, which all have.
pub(super) trait Rules {
    /// Fills in what was left out; see [`super::default`].
    fn default(&mut self);

    /// Fills in what an absent field means for a new object; see [`super::default_on_create`].
    fn default_on_create(&mut self) {}

    /// Checks an object by itself.
    fn check(&self, checker: &mut Checker);

    /// The pod that it is or makes, and in which field that stands.
    fn pod(&self) -> Option<(&'static str, &PodSpec)> {
        None
    }

    /// Checks that it can take the place of `old`.
    fn check_update(&self, old: &Self, checker: &mut Checker);
}

macro_rules! define {
    ($($variant:ident($record:ident) $table:ident = $number:literal [$($object:ident($message:ident))?] $options:tt,)*) => {
        pub(super) fn default(object: &mut Object) {
            match &mut object.kind {
                $($(Some(object::Kind::$object(it)) => Rules::default(it),)?)*
                None => {}
            }
        }

        pub(super) fn default_on_create(object: &mut Object) {
            match &mut object.kind {
                $($(Some(object::Kind::$object(it)) => Rules::default_on_create(it),)?)*
                None => {}
            }
        }

        pub(super) fn check(kind: &object::Kind, checker: &mut Checker) {
            match kind {
                $($(object::Kind::$object(it) => Rules::check(it, checker),)?)*
            }
        }

        /// The pod that an object is or makes, and in which field that stands; `None` for kinds that make none.
        pub fn pod(object: &Object) -> Option<(&'static str, &PodSpec)> {
            match object.kind.as_ref()? {
                $($(object::Kind::$object(it) => Rules::pod(it),)?)*
            }
        }

        /// Objects of two kinds are not compared.
        pub(super) fn check_update(old: &Object, new: &Object, checker: &mut Checker) {
            match &new.kind {
                $($(Some(object::Kind::$object(new)) => {
                    if let Some(object::Kind::$object(old)) = &old.kind {
                        Rules::check_update(new, old, checker);
                    }
                })?)*
                None => {}
            }
        }
    };
}
for_each_kind!(define);

impl Rules for Namespace {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        checker.pod_security_levels(self);
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}

impl Rules for Node {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        checker.node(self);
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        checker.same_range(old, self);
    }
}

impl Rules for Deployment {
    fn default(&mut self) {
        if let Some(spec) = &mut self.spec {
            defaults::deployment(spec);
        }
    }
    fn default_on_create(&mut self) {
        if let Some(spec) = &mut self.spec {
            spec.replicas.get_or_insert(1);
        }
    }
    fn check(&self, checker: &mut Checker) {
        checker.deployment(self);
    }
    fn pod(&self) -> Option<(&'static str, &PodSpec)> {
        let template = self.spec.as_ref()?.template.as_ref()?;
        Some(("spec.template.spec", template.spec.as_ref()?))
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        let selector = |it: &Self| it.spec.clone().and_then(|spec| spec.selector);
        checker.same_selector("Deployment", selector(old) == selector(self));
    }
}

impl Rules for ReplicaSet {
    fn default(&mut self) {
        let template = self.spec.as_mut().and_then(|it| it.template.as_mut());
        if let Some(pod) = template.and_then(|template| template.spec.as_mut()) {
            defaults::pod(pod);
        }
    }
    fn default_on_create(&mut self) {
        if let Some(spec) = &mut self.spec {
            spec.replicas.get_or_insert(1);
        }
    }
    fn check(&self, checker: &mut Checker) {
        checker.replica_set(self);
    }
    fn pod(&self) -> Option<(&'static str, &PodSpec)> {
        let template = self.spec.as_ref()?.template.as_ref()?;
        Some(("spec.template.spec", template.spec.as_ref()?))
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        let selector = |it: &Self| it.spec.clone().and_then(|spec| spec.selector);
        checker.same_selector("ReplicaSet", selector(old) == selector(self));
    }
}

impl Rules for Pod {
    fn default(&mut self) {
        if let Some(spec) = &mut self.spec {
            defaults::pod(spec);
        }
    }
    fn check(&self, checker: &mut Checker) {
        match &self.spec {
            Some(spec) => checker.pod_spec("spec", spec),
            None => checker.required("spec"),
        }
    }
    fn pod(&self) -> Option<(&'static str, &PodSpec)> {
        Some(("spec", self.spec.as_ref()?))
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        checker.same_pod(old, self);
    }
}

impl Rules for Service {
    fn default(&mut self) {
        if let Some(spec) = &mut self.spec {
            defaults::service(spec);
        }
    }
    fn check(&self, checker: &mut Checker) {
        checker.service(self);
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        checker.same_address(old, self);
    }
}

impl Rules for PodDisruptionBudget {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        checker.disruption_budget(self);
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}

impl Rules for Endpoints {
    fn default(&mut self) {
        defaults::endpoints(self);
    }
    fn check(&self, checker: &mut Checker) {
        checker.endpoints(self);
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}

impl Rules for Event {
    fn default(&mut self) {
        defaults::fill(&mut self.r#type, "Normal");
    }
    fn check(&self, checker: &mut Checker) {
        checker.event(self);
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}

impl Rules for Secret {
    fn default(&mut self) {
        defaults::fill(&mut self.r#type, "Opaque");
        self.fold_string_data();
    }
    fn check(&self, checker: &mut Checker) {
        checker.secret(self);
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        checker.same_secret(old, self);
    }
}

impl Rules for ConfigMap {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        checker.config_map(self);
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        checker.same_config_map(old, self);
    }
}

impl Rules for RbacRole {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        checker.rules(&self.rules);
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}

impl Rules for ClusterRole {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        checker.rules(&self.rules);
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}

impl Rules for RoleBinding {
    fn default(&mut self) {
        defaults::binding(&mut self.subjects, &mut self.role_ref);
    }
    fn check(&self, checker: &mut Checker) {
        let kinds = &["Role", "ClusterRole"];
        checker.binding(&self.subjects, self.role_ref.as_ref(), kinds);
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        checker.same_role(old.role_ref.as_ref(), self.role_ref.as_ref());
    }
}

impl Rules for ClusterRoleBinding {
    fn default(&mut self) {
        defaults::binding(&mut self.subjects, &mut self.role_ref);
    }
    fn check(&self, checker: &mut Checker) {
        checker.binding(&self.subjects, self.role_ref.as_ref(), &["ClusterRole"]);
    }
    fn check_update(&self, old: &Self, checker: &mut Checker) {
        checker.same_role(old.role_ref.as_ref(), self.role_ref.as_ref());
    }
}

impl Rules for ServiceAccount {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        checker.service_account(self);
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}

/// What a kind that was registered says of its fields is for whoever registered it to check.
impl Rules for CustomObject {
    fn default(&mut self) {}
    fn check(&self, checker: &mut Checker) {
        if let Err(error) = self.fields() {
            checker.violated("json", "", error.to_string());
        }
    }
    fn check_update(&self, _: &Self, _: &mut Checker) {}
}
