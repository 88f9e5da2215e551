//! Removing, as simply as possible.

use barge_proto::v1::{PodRecord, record::Record as Body};
use barge_state::{Kind, RecordKind, Stored, is_finished};

use super::{Model, metadata, terminating};

impl Model {
    /// Everything that is reached is found first, then dealt with.
    pub fn remove(&mut self, kind: RecordKind, uid: &str) {
        let Some(target) = self.get(kind, uid) else {
            return;
        };
        let reached: Vec<Stored> = match &target {
            Stored::Namespace(_) => {
                let inside = |r: &&Stored| r.meta().namespace == target.meta().name;
                self.records.iter().filter(inside).cloned().collect()
            }
            Stored::Revision(_) => vec![target.clone()],
            _ => {
                let on_node =
                    |r: &&Stored| r.kind() == RecordKind::Pod && r.node_uid() == Some(uid);
                let pods: Vec<_> = self.records.iter().filter(on_node).cloned().collect();
                self.delete(&target);
                if kind == RecordKind::Node {
                    pods.iter().for_each(|pod| self.delete(pod));
                    pods.into_iter()
                        .flat_map(|pod| self.orphans(&pod))
                        .collect()
                } else {
                    self.orphans(&target)
                }
            }
        };
        self.cascade(reached);
        if kind == RecordKind::Namespace {
            self.release(&target);
        }
    }

    pub fn cascade(&mut self, mut reached: Vec<Stored>) {
        let mut templates = Vec::new();
        while let Some(next) = reached.pop() {
            match self.get(next.kind(), next.uid()) {
                None => {}
                Some(Stored::Pod(pod)) if self.on_node(&next) && !is_finished(&pod) => {
                    self.mark_pod(&Stored::Pod(pod), None, "");
                }
                Some(revision @ Stored::Revision(_)) => {
                    reached.extend(self.orphans(&revision));
                    templates.push(revision);
                }
                Some(other) => {
                    self.delete(&other);
                    reached.extend(self.orphans(&other));
                }
            }
        }
        templates.dedup();
        for template in templates {
            self.release(&template);
        }
    }

    pub fn orphans(&self, gone: &Stored) -> Vec<Stored> {
        let uid = gone.uid();
        let owned = self
            .records
            .iter()
            .filter(|r| r.kind() != RecordKind::Event)
            .filter(|r| {
                let owners = r.owners();
                owners.iter().any(|owner| owner.uid == *uid)
                    && !owners
                        .iter()
                        .any(|owner| owner.uid != *uid && self.exists(&owner.uid))
            });
        owned.cloned().collect()
    }

    /// Removes a template or a namespace, or marks it while pods need it.
    fn release(&mut self, record: &Stored) {
        let Some(record) = self.get(record.kind(), record.uid()) else {
            return;
        };
        if !self.is_needed(&record) {
            self.delete(&record);
            self.cascade(self.orphans(&record));
        } else if !terminating(&record) {
            let mut marked = record.to_record();
            metadata(&mut marked).deletion_timestamp = Some(self.now);
            if let Some(Body::Namespace(namespace)) = &mut marked.record {
                namespace.status.get_or_insert_default().phase = "Terminating".to_owned();
            }
            self.set(Stored::from_record(marked).unwrap());
        }
    }

    fn is_needed(&self, record: &Stored) -> bool {
        let mut pods = self.records.iter().filter_map(PodRecord::from_stored);
        pods.any(|pod| match record {
            Stored::Namespace(namespace) => pod.namespace() == namespace.meta().name,
            _ => pod.template_uid() == record.uid(),
        })
    }

    pub fn collect(&mut self) {
        while let Some(uid) = self.lost_pods.pop() {
            if let Some(template) = self.get(RecordKind::Revision, &uid)
                && !self.is_needed(&template)
            {
                let owners = template.owners();
                if terminating(&template) || !owners.iter().any(|o| self.exists(&o.uid)) {
                    self.release(&template);
                }
            }
        }
        for record in self.records.clone() {
            if let Stored::Namespace(namespace) = &record
                && terminating(&record)
                && !self.is_needed(&record)
            {
                let name = &namespace.meta().name;
                for inside in self.records.clone() {
                    if inside.meta().namespace == *name {
                        self.delete(&inside);
                    }
                }
                self.delete(&record);
            }
        }
    }
}
