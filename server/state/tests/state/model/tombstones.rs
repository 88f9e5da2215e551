//! Tombstones, as simply as possible.

use barge_proto::v1::{Node, ObjectMeta, PodGone, PodTombstone};
use barge_state::{Kind, PackedPod, RecordKind, Stored};

use super::Model;

impl Model {
    pub fn tombstones_on(&self, node_uid: &str) -> Vec<Stored> {
        let all = self.records.iter().filter_map(PodTombstone::from_stored);
        let here = all.filter(|tombstone| tombstone.node_uid == node_uid);
        here.cloned().map(Stored::PodTombstone).collect()
    }

    pub fn bury(&mut self, pod: &PackedPod) {
        if !self.tombstones || self.get(RecordKind::Node, pod.node_uid()).is_none() {
            return;
        }
        self.make_room(pod.node_uid(), self.limits.tombstones_per_node);
        self.buried.retain(|uid| uid != pod.uid());
        self.buried.push(pod.uid().to_owned());
        let tombstone = PodTombstone {
            metadata: Some(ObjectMeta {
                uid: pod.uid().to_owned(),
                name: pod.uid().to_owned(),
                creation_timestamp: Some(self.now),
                ..ObjectMeta::default()
            }),
            node_uid: pod.node_uid().to_owned(),
            pod_namespace: pod.namespace().to_owned(),
            pod_name: pod.name().to_owned(),
            deleted: Some(self.now),
        };
        self.set(Stored::PodTombstone(tombstone.into()));
    }

    fn make_room(&mut self, node_uid: &str, most: usize) {
        while self.tombstones_on(node_uid).len() >= most {
            let tombstones = self.tombstones_on(node_uid);
            // Which one is the oldest: the order in which they were made.
            let oldest = tombstones
                .iter()
                .min_by_key(|tombstone| self.buried.iter().position(|uid| uid == tombstone.uid()))
                .unwrap();
            self.delete(oldest);
        }
    }

    pub fn bury_node(&mut self, node: &Node) {
        if !self.node_tombstones {
            return;
        }
        self.make_room("", self.limits.node_tombstones);
        let uid = Kind::uid(node).to_owned();
        self.buried.retain(|buried| *buried != uid);
        self.buried.push(uid.clone());
        let tombstone = PodTombstone {
            metadata: Some(ObjectMeta {
                uid: uid.clone(),
                name: uid,
                creation_timestamp: Some(self.now),
                ..ObjectMeta::default()
            }),
            pod_name: node.metadata.clone().unwrap().name,
            deleted: Some(self.now),
            ..PodTombstone::default()
        };
        self.set(Stored::PodTombstone(tombstone.into()));
    }

    pub fn gone(&mut self, gone: &PodGone) {
        for tombstone in self.tombstones_on(&gone.node_uid) {
            if tombstone.uid() == gone.uid && !gone.node_uid.is_empty() {
                self.delete(&tombstone);
            }
        }
        let pod = self.get(RecordKind::Pod, &gone.uid);
        let Some(pod) = pod.filter(|pod| pod.node_uid() == Some(&gone.node_uid)) else {
            return;
        };
        let tombstones = std::mem::replace(&mut self.tombstones, false);
        self.delete(&pod);
        self.tombstones = tombstones;
        self.cascade(self.orphans(&pod));
    }
}
