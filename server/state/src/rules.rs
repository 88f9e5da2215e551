//! Each kind's rules for puts and for status reports.

use barge_proto::{
    for_each_kind,
    v1::{
        ClusterRecord, ClusterRole, ClusterRoleBinding, ConfigMap, CredentialRecord, CustomObject,
        Deployment, Endpoints, Event, ManagerRecord, Namespace, Node, PodDisruptionBudget,
        PodRecord, PodTombstone, RbacRole, ReplicaSet, Revision, RoleBinding, Secret, Service,
        ServiceAccount, TokenRecord,
    },
};

use crate::{kind::Kind, pods};

/// How a kind is written.
pub trait Rules: Kind {
    /// Brings a record that is put into the form in which it is kept: types are not stored, and what a put
    /// may not change comes from `old`.
    ///
    /// # Errors
    /// The rule it breaks, as a sentence.
    fn prepare(&mut self, old: Option<&Self>) -> Result<(), String>;

    /// Whether the generation stays.
    fn same_spec(&self, _old: &Self) -> bool {
        true
    }

    /// This record with the status of another; absent for kinds that have no status.
    fn with_status(&self, _from: &Self) -> Option<Self> {
        None
    }
}

/// The rules of a kind whose records are its objects, by the kind's options: which field is the status, and which are the spec.
macro_rules! rules_of {
    ($kind:ident own) => {};
    ($kind:ident plain [] [$($spec:ident)*]) => {
        impl Rules for $kind {
            fn prepare(&mut self, _old: Option<&Self>) -> Result<(), String> {
                self.api_version.clear();
                self.kind.clear();
                Ok(())
            }

            rules_of!(same_spec $($spec)*);
        }
    };
    ($kind:ident plain [status] [$($spec:ident)*]) => {
        impl Rules for $kind {
            fn prepare(&mut self, old: Option<&Self>) -> Result<(), String> {
                self.api_version.clear();
                self.kind.clear();
                if let Some(old) = old {
                    self.status.clone_from(&old.status);
                }
                Ok(())
            }

            fn with_status(&self, from: &Self) -> Option<Self> {
                Some($kind { status: from.status.clone(), ..self.clone() })
            }

            rules_of!(same_spec $($spec)*);
        }
    };
    (same_spec) => {};
    (same_spec $($spec:ident)+) => {
        fn same_spec(&self, old: &Self) -> bool {
            true $(&& self.$spec == old.$spec)+
        }
    };
}

macro_rules! define {
    ($($variant:ident($message:ident) $table:ident = $number:literal $object:tt
        { level $level:literal, rules [$($rules:tt)*], about $about:tt, ends_with_owner $ends:literal },)*) => {
        $(rules_of!($message $($rules)*);)*
    };
}
for_each_kind!(define);

/// Sealed values are longer than what they hold: one byte of version, a nonce and a tag.
const SEALED_OVERHEAD: usize = 1 + 24 + 16;

impl Rules for Secret {
    fn prepare(&mut self, _old: Option<&Self>) -> Result<(), String> {
        let plain = |value: &Vec<u8>| value.len() < SEALED_OVERHEAD;
        if !self.string_data.is_empty() || self.data.values().any(plain) {
            return Err("a Secret is sealed before it is proposed".to_owned());
        }
        self.api_version.clear();
        self.kind.clear();
        Ok(())
    }

    fn same_spec(&self, old: &Self) -> bool {
        (&self.r#type, &self.data, self.immutable) == (&old.r#type, &old.data, old.immutable)
    }
}

macro_rules! internal {
    ($($kind:ident),*) => {
        $(impl Rules for $kind {
            fn prepare(&mut self, _old: Option<&Self>) -> Result<(), String> {
                Ok(())
            }
        })*
    };
}
internal!(ManagerRecord, TokenRecord, CredentialRecord);

impl Rules for ClusterRecord {
    fn prepare(&mut self, old: Option<&Self>) -> Result<(), String> {
        // What was allowed to be written stays written.
        match old {
            Some(old) if old.feature_level > self.feature_level => {
                Err("the cluster's feature level never sinks".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Rules for CustomObject {
    fn prepare(&mut self, old: Option<&Self>) -> Result<(), String> {
        if !self.meta().name.contains('/') {
            return Err("its name begins with resource, group and a slash".to_owned());
        }
        match old {
            Some(old) if old.kind != self.kind => {
                Err(format!("it is a {}, not a {}", old.kind, self.kind))
            }
            _ => Ok(()),
        }
    }

    fn same_spec(&self, old: &Self) -> bool {
        self.json == old.json
    }
}

impl Rules for PodTombstone {
    fn prepare(&mut self, _old: Option<&Self>) -> Result<(), String> {
        Err("a tombstone is written when its pod is removed, and in no other way".to_owned())
    }
}

impl Rules for Revision {
    fn prepare(&mut self, old: Option<&Self>) -> Result<(), String> {
        // Pods hold on to the template, and its requests are accounted for once.
        match old {
            Some(old) if old.template != self.template => {
                Err("a Revision's template never changes".to_owned())
            }
            _ => {
                self.status = old.and_then(|old| old.status);
                Ok(())
            }
        }
    }

    fn with_status(&self, from: &Self) -> Option<Self> {
        Some(Revision {
            status: from.status,
            ..self.clone()
        })
    }
}

impl Rules for PodRecord {
    fn prepare(&mut self, old: Option<&Self>) -> Result<(), String> {
        if self.template_uid.is_empty() {
            return Err("a pod has a template".to_owned());
        }
        if let Some(old) = old {
            if self.template_uid != old.template_uid {
                return Err("a pod's template never changes".to_owned());
            }
            self.node_uid.clone_from(&old.node_uid);
            self.bound = old.bound;
            self.lost = old.lost;
            self.reported = old.reported;
            self.status.clone_from(&old.status);
        } else if !self.node_uid.is_empty() {
            return Err("a pod is bound to a node by Bind only".to_owned());
        } else {
            self.bound = None;
            self.lost = None;
            self.reported = None;
            self.status = self
                .status
                .take()
                .map(|status| pods::compact(status, false));
        }
        Ok(())
    }

    fn with_status(&self, from: &Self) -> Option<Self> {
        let status = pods::report(self, from.status.clone().unwrap_or_default());
        Some(PodRecord {
            status: Some(status),
            ..self.clone()
        })
    }
}
