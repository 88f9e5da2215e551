//! Objects as the API shows them.

use std::sync::Arc;

use barge_proto::{
    for_each_kind,
    v1::{self, Node, Object, Pod, PodRecord, Revision},
};

use crate::{
    changed::Changed,
    kind::{Kind, Stored},
    packed::PackedPod,
    parts::{Parts, whole_pod},
    revisions,
    state::State,
};

macro_rules! define {
    ($($variant:ident($message:ident) $table:ident = $number:literal [$($object:ident($shown:ident))?] $options:tt,)*) => {
        impl State {
            /// What [`State::object`] puts together, to be put together later.
            pub fn object_parts(
                &self,
                kind: v1::Kind,
                namespace: &str,
                name: &str,
            ) -> Option<Parts> {
                let found = match kind {
                    $($(v1::Kind::$object => self.named::<v1::$message>(namespace, name),)?)*
                    v1::Kind::Unspecified => None,
                };
                match kind {
                    v1::Kind::ReplicaSet => found.or_else(|| {
                        let revision = self.revision_shown(namespace, name)?.clone();
                        Some(Parts::alone(Stored::Revision(revision)))
                    }),
                    _ => found,
                }
            }

            /// The objects of a kind by namespace and name: of one namespace or of all, after (namespace, name).
            pub fn objects<'a>(
                &'a self,
                kind: v1::Kind,
                namespace: Option<&str>,
                after: Option<(&str, &str)>,
            ) -> Box<dyn Iterator<Item = Object> + 'a> {
                match kind {
                    $($(v1::Kind::$object => self.listed::<v1::$message>(namespace, after),)?)*
                    v1::Kind::Unspecified => Box::new(std::iter::empty()),
                }
            }
        }
    };
}
for_each_kind!(define);

impl State {
    /// The Revision that is shown as the ReplicaSet of this name.
    pub fn revision_shown(&self, namespace: &str, name: &str) -> Option<&Arc<Revision>> {
        let found = self.get::<Revision>(namespace, name)?;
        revisions::deployment(found).map(|_| found)
    }

    /// The whole pod: its record, its template, the name and address of its node.
    pub fn pod(&self, pod: &PackedPod) -> Pod {
        self.pod_from(pod.record(), self.template(pod).map(Arc::as_ref))
    }

    /// As [`State::pod`] with a template that need not be in the state any more.
    pub fn pod_from(&self, record: PodRecord, template: Option<&Revision>) -> Pod {
        let node = self.by_uid::<Node>(&record.node_uid);
        whole_pod(record, template, node.map(Arc::as_ref))
    }

    /// The object of this name, with its type filled in.
    pub fn object(&self, kind: v1::Kind, namespace: &str, name: &str) -> Option<Object> {
        self.object_parts(kind, namespace, name)?.object()
    }

    /// A record as an object; absent for kinds that the API does not show. The values of Secrets are sealed: a caller that has
    /// the key opens them. Pods take their template from the state unless one is given.
    pub fn view(&self, record: &Stored, template: Option<&Arc<Revision>>) -> Option<Object> {
        self.parts(record.clone(), template.cloned()).object()
    }

    /// What [`State::view`] puts together, to be put together later.
    pub fn parts(&self, record: Stored, template: Option<Arc<Revision>>) -> Parts {
        let Stored::Pod(pod) = &record else {
            return Parts::alone(record);
        };
        let template = template.or_else(|| self.template(pod).cloned());
        let node = self.by_uid::<Node>(pod.node_uid()).cloned();
        Parts {
            record,
            template,
            node,
        }
    }

    /// What a watcher sees of a change: the object after it, or as it was last, with the revision of its
    /// removal. Absent for kinds that the API does not show.
    pub fn changed_object(&self, change: &Changed) -> Option<Object> {
        let object = self.view(change.record()?, change.template.as_ref())?;
        Some(change.shown(object))
    }

    fn named<K: Kind>(&self, namespace: &str, name: &str) -> Option<Parts> {
        let record = self.get::<K>(namespace, name)?.clone();
        Some(self.parts(K::stored(record), None))
    }

    fn listed<'a, K: Kind>(
        &'a self,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = Object> + 'a> {
        let records = self.list_after::<K>(namespace, after);
        Box::new(records.filter_map(|record| self.view(&K::stored(record.clone()), None)))
    }
}
