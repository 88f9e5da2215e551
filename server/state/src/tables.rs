//! All tables, and the indexes that go with them.

use std::sync::Arc;

use barge_proto::{
    for_each_kind,
    v1::{
        ClusterRecord, ClusterRole, ClusterRoleBinding, ConfigMap, CredentialRecord, CustomObject,
        Deployment, Endpoints, Event, ManagerRecord, Namespace, Node, PodDisruptionBudget,
        PodRecord, PodTombstone, RbacRole, ReplicaSet, Revision, RoleBinding, Secret, Service,
        ServiceAccount, TokenRecord,
    },
};

use crate::{
    ages::Ages,
    capacity::Capacity,
    claims::Claims,
    deletions::{Deletions, Place},
    kind::{Kind, Stored},
    made,
    packed::{PackedPod, Pool},
    subjects::Subjects,
    table::{Index, Table},
};

macro_rules! define {
    ($($variant:ident($message:ident) $table:ident = $number:literal [$($object:ident($shown:ident))?] $options:tt,)*) => {
        /// Every record, found by all its keys.
        #[derive(Debug, Default)]
        pub struct Tables {
            $(pub $table: Table<<$message as Kind>::Kept>,)*
            /// Pods by the node they are bound to; unbound ones under "".
            pub pods_by_node: Index<PackedPod>,
            /// Pods that are lost, by the node they were lost with.
            pub lost_by_node: Index<PackedPod>,
            /// Pods by their template.
            pub pods_by_template: Index<PackedPod>,
            /// Pods whose labels are not those of their template, by namespace.
            pub pods_with_own_labels: Index<PackedPod>,
            /// Pods that no owner counts as its own, by namespace.
            pub pods_without_controller: Index<PackedPod>,
            /// Tombstones by the node that has to confirm them.
            pub tombstones_by_node: Index<PodTombstone>,
            /// Events by when they were last seen.
            pub event_ages: Ages,
            /// Values that must be unique.
            pub claims: Claims,
            /// What pods take of nodes.
            pub capacity: Capacity,
            /// What pods share.
            pub pool: Pool,
            /// Bindings by whom they are for.
            pub subjects: Subjects,
            /// Records that are deleted together with what belongs to them.
            pub deletions: Deletions,
        }

        impl Tables {
            /// Replaces one record by another of the same kind, uid and name, in its table and all indexes.
            /// This is the only way a record changes; called with its arguments exchanged it undoes itself.
            pub fn swap(&mut self, before: Option<&Stored>, after: Option<&Stored>) {
                let kind = before.or(after).map(Stored::kind);
                match kind {
                    $(Some(crate::kind::RecordKind::$variant) => {
                        let before = before.and_then(<$message>::from_stored);
                        let after = after.and_then(<$message>::from_stored);
                        self.$table.swap(before, after);
                    })*
                    None => {}
                }
                self.claims.swap(before, after);
                self.deletions.swap(before, after);
                self.swap_indexes(before, after);
            }

            /// All records: by kind, namespace and name.
            pub fn iter(&self) -> impl Iterator<Item = Stored> + use<'_> {
                std::iter::empty()
                    $(.chain(self.$table.iter().map(|record| Stored::$variant(record.clone()))))*
            }

            /// The record of any kind that has this uid.
            pub fn find_uid(&self, kind: crate::kind::RecordKind, uid: &str) -> Option<Stored> {
                match kind {
                    $(crate::kind::RecordKind::$variant => {
                        self.$table.by_uid(uid).cloned().map(Stored::$variant)
                    })*
                }
            }

            /// The record of any kind that has this name.
            pub fn find_name(
                &self,
                kind: crate::kind::RecordKind,
                namespace: &str,
                name: &str,
            ) -> Option<Stored> {
                match kind {
                    $(crate::kind::RecordKind::$variant => {
                        self.$table.by_name(namespace, name).cloned().map(Stored::$variant)
                    })*
                }
            }

            /// The latest plan that made a record of this kind of those that an owner has; 0 for none.
            pub fn latest_plan(&self, kind: crate::kind::RecordKind, owner: &str) -> u64 {
                match kind {
                    $(crate::kind::RecordKind::$variant => made::latest(&self.$table, owner),)*
                }
            }

            /// Whether an object has this uid. A tombstone has that of a pod which is gone.
            pub fn exists(&self, uid: &str) -> bool {
                use crate::kind::RecordKind;
                $((RecordKind::$variant != RecordKind::PodTombstone
                    && self.$table.by_uid(uid).is_some()))||*
            }

            /// What an object owns. What is about it (events) outlives it.
            pub fn owned(&self, uid: &str) -> impl Iterator<Item = Stored> + use<'_> {
                let owned = std::iter::empty()
                    $(.chain(self.$table.owned(uid).cloned().map(Stored::$variant)))*;
                owned.filter(|record| !record.kind().is_about())
            }

            /// As [`Tables::owned`], from the record after a place on: by kind and uid.
            pub fn owned_after(
                &self,
                uid: &str,
                place: &Place,
            ) -> impl Iterator<Item = Stored> + use<'_> {
                let owned = std::iter::empty()
                    $(.chain(
                        place
                            .within(crate::kind::RecordKind::$variant)
                            .map(|last| self.$table.owned_after(uid, last))
                            .into_iter()
                            .flatten()
                            .cloned()
                            .map(Stored::$variant),
                    ))*;
                owned.filter(|record| !record.kind().is_about())
            }

            /// How many records [`Tables::owned`] has.
            pub fn owned_count(&self, uid: &str) -> usize {
                let count = |kind: crate::kind::RecordKind, count: usize| match kind.is_about() {
                    true => 0,
                    false => count,
                };
                0 $(+ count(crate::kind::RecordKind::$variant, self.$table.owned_count(uid)))*
            }

            /// As [`Tables::in_namespace`], from the record after a place on: by kind and name.
            pub fn in_namespace_after(
                &self,
                namespace: &str,
                place: &Place,
            ) -> impl Iterator<Item = Stored> + use<'_> {
                std::iter::empty()
                    $(.chain(
                        place
                            .within(crate::kind::RecordKind::$variant)
                            .map(|last| self.$table.list(Some(namespace), Some((namespace, last))))
                            .into_iter()
                            .flatten()
                            .cloned()
                            .map(Stored::$variant),
                    ))*
            }

            /// How many records a namespace has.
            pub fn count_in(&self, namespace: &str) -> usize {
                0 $(+ self.$table.count_in(namespace))*
            }

            /// All records of a namespace.
            pub fn in_namespace(&self, namespace: &str) -> Vec<Stored> {
                let mut inside = Vec::new();
                $(inside.extend(
                    self.$table.list(Some(namespace), None).cloned().map(Stored::$variant),
                );)*
                inside
            }
        }
    };
}
for_each_kind!(define);

impl Tables {
    fn swap_indexes(&mut self, before: Option<&Stored>, after: Option<&Stored>) {
        match before.or(after) {
            Some(Stored::Pod(_)) => self.swap_pod(of::<PodRecord>(before), of::<PodRecord>(after)),
            Some(Stored::Revision(_)) => {
                let (before, after) = (of::<Revision>(before), of::<Revision>(after));
                self.capacity.swap_template(before, after);
            }
            Some(Stored::Event(_)) => self
                .event_ages
                .swap(of::<Event>(before), of::<Event>(after)),
            Some(Stored::PodTombstone(_)) => {
                let (before, after) = (of::<PodTombstone>(before), of::<PodTombstone>(after));
                self.tombstones_by_node.swap(
                    before.map(|tombstone| (tombstone.node_uid.as_str(), tombstone)),
                    after.map(|tombstone| (tombstone.node_uid.as_str(), tombstone)),
                );
            }
            Some(Stored::RoleBinding(_) | Stored::ClusterRoleBinding(_)) => {
                self.subjects.swap(before, after);
            }
            // These have no index of their own.
            Some(
                Stored::Namespace(_)
                | Stored::Node(_)
                | Stored::Deployment(_)
                | Stored::ReplicaSet(_)
                | Stored::Service(_)
                | Stored::Endpoints(_)
                | Stored::Cluster(_)
                | Stored::Manager(_)
                | Stored::Token(_)
                | Stored::Credential(_)
                | Stored::Secret(_)
                | Stored::ConfigMap(_)
                | Stored::Role(_)
                | Stored::ClusterRole(_)
                | Stored::ServiceAccount(_)
                | Stored::PodDisruptionBudget(_)
                | Stored::Custom(_),
            )
            | None => {}
        }
    }

    fn swap_pod(&mut self, before: Option<&Arc<PackedPod>>, after: Option<&Arc<PackedPod>>) {
        self.pods_by_node.swap(
            before.map(|pod| (pod.node_uid(), pod)),
            after.map(|pod| (pod.node_uid(), pod)),
        );
        let lost = |pod: &&Arc<PackedPod>| pod.is_lost();
        self.lost_by_node.swap(
            before.filter(lost).map(|pod| (pod.node_uid(), pod)),
            after.filter(lost).map(|pod| (pod.node_uid(), pod)),
        );
        self.pods_by_template.swap(
            before.map(|pod| (pod.template_uid(), pod)),
            after.map(|pod| (pod.template_uid(), pod)),
        );
        let is_labelled = |pod: &&Arc<PackedPod>| !pod.own_labels().is_none();
        self.pods_with_own_labels.swap(
            before.filter(is_labelled).map(|pod| (pod.namespace(), pod)),
            after.filter(is_labelled).map(|pod| (pod.namespace(), pod)),
        );
        let is_alone = |pod: &&Arc<PackedPod>| !pod.has_controller();
        self.pods_without_controller.swap(
            before.filter(is_alone).map(|pod| (pod.namespace(), pod)),
            after.filter(is_alone).map(|pod| (pod.namespace(), pod)),
        );
        self.capacity.swap_pod(before, after);
    }
}

/// A record as what is kept of its kind.
fn of<K: Kind>(stored: Option<&Stored>) -> Option<&Arc<K::Kept>> {
    stored.and_then(K::from_stored)
}
