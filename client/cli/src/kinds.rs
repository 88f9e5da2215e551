//! How each kind is shown to people. The compiler demands an entry of every kind.

use barge_client::v1::{
    ClusterRole, ClusterRoleBinding, ConfigMap, CustomObject, Deployment, Endpoints, Event, Kind,
    Namespace, Node, Object, Pod, PodDisruptionBudget, RbacRole, ReplicaSet, RoleBinding, Secret,
    Service, ServiceAccount, object,
};
use barge_proto::for_each_kind;

use crate::{
    commands::describe::{rbac, sections, text::Text},
    output::{
        Cells, age_of,
        columns::{self, rbac::binding},
    },
};

/// The names of the usual columns, and of those that `-o wide` adds.
pub type Names = (&'static [&'static str], &'static [&'static str]);

/// How objects of a kind are shown.
trait Printed {
    const COLUMNS: Names;

    /// The cells of a row; `name` is how the object is called in it.
    fn cells(&self, object: &Object, name: String, now: i64) -> Cells;

    /// What `describe` says beside the metadata.
    fn describe(&self, text: &mut Text, now: i64);
}

macro_rules! define {
    ($($variant:ident($record:ident) $table:ident = $number:literal [$($object:ident($message:ident))?] $options:tt,)*) => {
        /// The columns of a kind.
        pub fn columns(kind: Kind) -> Names {
            match kind {
                $($(Kind::$object => <$message as Printed>::COLUMNS,)?)*
                Kind::Unspecified => (&["NAME"], &[]),
            }
        }

        /// The cells of an object.
        pub fn cells(object: &Object, name: String, now: i64) -> Cells {
            match &object.kind {
                $($(Some(object::Kind::$object(it)) => Printed::cells(it, object, name, now),)?)*
                None => (vec![name], vec![]),
            }
        }

        /// What there is to say of an object besides its metadata.
        pub fn describe(object: &Object, text: &mut Text, now: i64) {
            match &object.kind {
                $($(Some(object::Kind::$object(it)) => Printed::describe(it, text, now),)?)*
                None => {}
            }
        }
    };
}
for_each_kind!(define);

/// The columns of kinds of which nothing else fits into a cell.
const NAME_AND_AGE: Names = (&["NAME", "AGE"], &[]);

fn name_and_age(object: &Object, name: String, now: i64) -> Cells {
    (vec![name, age_of(object.metadata(), now)], vec![])
}

impl Printed for Namespace {
    const COLUMNS: Names = (&["NAME", "STATUS", "AGE"], &[]);

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::namespace(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        let phase = self.status.as_ref().map_or("", |status| &status.phase);
        text.field("Status", phase);
    }
}

impl Printed for Node {
    const COLUMNS: Names = (
        &["NAME", "STATUS", "AGE", "VERSION"],
        &[
            "INTERNAL-IP",
            "OS-IMAGE",
            "KERNEL-VERSION",
            "CONTAINER-RUNTIME",
        ],
    );

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::node(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        sections::node(text, self);
    }
}

impl Printed for Deployment {
    const COLUMNS: Names = (
        &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
        &["CONTAINERS", "IMAGES", "SELECTOR"],
    );

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::deployment(self, name, now)
    }

    fn describe(&self, text: &mut Text, now: i64) {
        sections::deployment(text, self, now);
    }
}

impl Printed for ReplicaSet {
    const COLUMNS: Names = (
        &["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
        &["CONTAINERS", "IMAGES", "SELECTOR"],
    );

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::replica_set(self, name, now)
    }

    fn describe(&self, text: &mut Text, now: i64) {
        sections::replica_set(text, self, now);
    }
}

impl Printed for Pod {
    const COLUMNS: Names = (
        &["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
        &["IP", "NODE"],
    );

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::pod(self, name, now)
    }

    fn describe(&self, text: &mut Text, now: i64) {
        sections::pod(text, self, now);
    }
}

impl Printed for PodDisruptionBudget {
    const COLUMNS: Names = (
        &[
            "NAME",
            "MIN AVAILABLE",
            "MAX UNAVAILABLE",
            "ALLOWED DISRUPTIONS",
            "AGE",
        ],
        &[],
    );

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::disruption_budget(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        sections::disruption_budget(text, self);
    }
}

impl Printed for Service {
    const COLUMNS: Names = (
        &[
            "NAME",
            "TYPE",
            "CLUSTER-IP",
            "EXTERNAL-IP",
            "PORT(S)",
            "AGE",
        ],
        &["SELECTOR"],
    );

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::service(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        sections::service(text, self);
    }
}

impl Printed for Endpoints {
    const COLUMNS: Names = (&["NAME", "ENDPOINTS", "AGE"], &[]);

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::endpoints(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        sections::endpoints(text, self);
    }
}

impl Printed for Event {
    const COLUMNS: Names = (
        &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
        &["SOURCE", "FIRST SEEN", "COUNT", "NAME"],
    );

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::event(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        sections::event(text, self);
    }
}

impl Printed for Secret {
    const COLUMNS: Names = (&["NAME", "TYPE", "DATA", "AGE"], &[]);

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::secret(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        sections::secret(text, self);
    }
}

impl Printed for ConfigMap {
    const COLUMNS: Names = (&["NAME", "DATA", "AGE"], &[]);

    fn cells(&self, _: &Object, name: String, now: i64) -> Cells {
        columns::config_map(self, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        sections::config_map(text, self);
    }
}

impl Printed for ServiceAccount {
    const COLUMNS: Names = NAME_AND_AGE;

    fn cells(&self, object: &Object, name: String, now: i64) -> Cells {
        name_and_age(object, name, now)
    }

    fn describe(&self, _: &mut Text, _: i64) {}
}

macro_rules! roles {
    ($($kind:ident),*) => {
        $(impl Printed for $kind {
            const COLUMNS: Names = NAME_AND_AGE;

            fn cells(&self, object: &Object, name: String, now: i64) -> Cells {
                name_and_age(object, name, now)
            }

            fn describe(&self, text: &mut Text, _: i64) {
                rbac::rules(text, &self.rules);
            }
        })*
    };
}
roles!(RbacRole, ClusterRole);

macro_rules! bindings {
    ($($kind:ident),*) => {
        $(impl Printed for $kind {
            const COLUMNS: Names = (
                &["NAME", "ROLE", "AGE"],
                &["USERS", "GROUPS", "SERVICEACCOUNTS"],
            );

            fn cells(&self, object: &Object, name: String, now: i64) -> Cells {
                let age = age_of(object.metadata(), now);
                binding(self.role_ref.as_ref(), &self.subjects, name, age)
            }

            fn describe(&self, text: &mut Text, _: i64) {
                rbac::binding(text, self.role_ref.as_ref(), &self.subjects);
            }
        })*
    };
}
bindings!(RoleBinding, ClusterRoleBinding);

/// A kind that was registered while the cluster runs: what its fields mean is not known here.
impl Printed for CustomObject {
    const COLUMNS: Names = NAME_AND_AGE;

    fn cells(&self, object: &Object, name: String, now: i64) -> Cells {
        name_and_age(object, name, now)
    }

    fn describe(&self, text: &mut Text, _: i64) {
        match self.fields() {
            Ok(fields) => {
                for (name, value) in fields {
                    text.field(&name, value.to_string());
                }
            }
            Err(error) => text.field("json", error.to_string()),
        }
    }
}
