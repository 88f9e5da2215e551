//! Tombstones, as simply as possible.

use barge_proto::v1::{ObjectMeta, PodGone, PodTombstone};
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
        while self.tombstones_on(pod.node_uid()).len() >= self.limits.tombstones_per_node {
            let tombstones = self.tombstones_on(pod.node_uid());
            // Which one is the oldest: the order in which they were made.
            let oldest = tombstones
                .iter()
                .min_by_key(|tombstone| self.buried.iter().position(|uid| uid == tombstone.uid()))
                .unwrap();
            self.delete(oldest);
        }
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

    pub fn gone(&mut self, gone: &PodGone) {
        for tombstone in self.tombstones_on(&gone.node_uid) {
            if tombstone.uid() == gone.uid {
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
