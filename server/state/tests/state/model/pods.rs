//! Pods and what their nodes report, as simply as possible.

use barge_proto::{
    host_ports::{self, HostPort},
    v1::{PodRecord, PodStatus, ReportPod, Time, record::Record as Body},
};
use barge_state::{Kind, PackedPod, RecordKind, Stored, Usage, is_finished};

use super::{Model, at, edit, terminating};

impl Model {
    pub fn put_status(&mut self, body: &Body) {
        let stored = Stored::from_record(barge_proto::v1::Record {
            record: Some(body.clone()),
        });
        let stored = stored.unwrap();
        let Some(old) = self.get(stored.kind(), stored.uid()) else {
            return;
        };
        let new = match (&stored, &old) {
            (Stored::Pod(report), Stored::Pod(pod)) => {
                let status = believed(&old, pod, report.status());
                edit(&old, |pod: &mut PodRecord| pod.status = Some(status))
            }
            (Stored::Node(report), _) => edit(&old, |node: &mut barge_proto::v1::Node| {
                node.status.clone_from(&report.status);
            }),
            (Stored::Deployment(report), _) => {
                edit(&old, |deployment: &mut barge_proto::v1::Deployment| {
                    deployment.status.clone_from(&report.status);
                })
            }
            (Stored::Revision(report), _) => edit(&old, |it: &mut barge_proto::v1::Revision| {
                it.status = report.status;
            }),
            (Stored::ReplicaSet(report), _) => {
                edit(&old, |it: &mut barge_proto::v1::ReplicaSet| {
                    it.status.clone_from(&report.status);
                })
            }
            _ => unreachable!("not generated"),
        };
        if new != old {
            self.set(new);
        }
    }

    pub fn report(&mut self, report: &ReportPod) {
        let Some(old) = self.get(RecordKind::Pod, &report.uid) else {
            return;
        };
        let Stored::Pod(pod) = &old else {
            return;
        };
        let late = pod
            .record()
            .reported
            .zip(report.version)
            .is_some_and(|(known, version)| {
                (version.incarnation, version.counter) <= (known.incarnation, known.counter)
            });
        if old.node_uid() != Some(report.node_uid.as_str()) || late {
            return;
        }
        let status = believed(&old, pod, report.status.clone().unwrap_or_default());
        let new = edit(&old, |pod: &mut PodRecord| {
            pod.status = Some(status);
            pod.reported = report.version.or(pod.reported);
        });
        if new != old {
            self.set(new);
        }
    }

    pub fn fits(&self, pod: &str, node: &str) -> bool {
        let Some(Stored::Pod(pod)) = self.get(RecordKind::Pod, pod) else {
            return false;
        };
        let Some(Stored::Node(node)) = self.get(RecordKind::Node, node) else {
            return false;
        };
        let status = node.status.clone().unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .any(|c| c.r#type == "Ready" && c.status == "True");
        let open = !node.spec.as_ref().unwrap().unschedulable;
        let waiting = !pod.is_bound() && !is_finished(&pod);
        let Some(wanted) = self.request(&pod) else {
            return false;
        };
        let pods = self.records.iter().filter_map(PodRecord::from_stored);
        let here =
            pods.filter(|other| other.node_uid() == Kind::uid(&*node) && !is_finished(other));
        let here: Vec<_> = here.collect();
        let taken = here.iter().flat_map(|other| self.ports(other));
        let taken: Vec<_> = taken.collect();
        let free = |port: &HostPort| !taken.iter().any(|other| other.conflicts(port));
        let ports = self.ports(&pod).iter().all(free);
        let sum = here
            .into_iter()
            .fold(wanted, |sum, pod| sum.plus(self.request(pod).unwrap()));
        let has = Usage::allocatable(&node);
        let enough = sum.cpu_milli <= has.cpu_milli
            && sum.memory_bytes <= has.memory_bytes
            && sum.storage_bytes <= has.storage_bytes
            && sum.pods <= has.pods;
        ready && open && waiting && ports && enough
    }

    fn ports(&self, pod: &PackedPod) -> Vec<HostPort> {
        match self.get(RecordKind::Revision, pod.template_uid()) {
            Some(Stored::Revision(revision)) => {
                let spec = revision.template.as_ref().unwrap().spec.as_ref();
                let claims = host_ports::claims(spec.unwrap());
                claims.into_iter().map(|claim| claim.host).collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn request(&self, pod: &PackedPod) -> Option<Usage> {
        let Some(Stored::Revision(revision)) = self.get(RecordKind::Revision, pod.template_uid())
        else {
            return None;
        };
        Some(Usage::of_spec(revision.template.as_ref()?.spec.as_ref()?))
    }

    pub fn on_node(&self, pod: &Stored) -> bool {
        pod.node_uid()
            .is_some_and(|node| self.get(RecordKind::Node, node).is_some())
    }

    pub fn mark_pod(&mut self, stored: &Stored, grace: Option<i64>, reason: &str) {
        let grace = grace.unwrap_or(30);
        let until = Some(Time {
            seconds: self.now.seconds + grace,
            nanos: 0,
        });
        let marked = edit(stored, |pod: &mut PodRecord| {
            let meta = pod.metadata.as_mut().unwrap();
            if meta.deletion_timestamp.is_none() || at(until) < at(meta.deletion_timestamp) {
                meta.deletion_timestamp = until;
                meta.deletion_grace_period_seconds = Some(grace);
            }
            if !reason.is_empty() {
                let status = pod.status.get_or_insert_default();
                if status.reason.is_empty() {
                    status.reason = reason.to_owned();
                }
            }
        });
        if marked != *stored {
            self.set(marked);
        }
    }
}

/// A pod's status after its node reported this one.
fn believed(old: &Stored, pod: &PackedPod, mut status: PodStatus) -> PodStatus {
    let had = pod.status();
    if is_finished(pod) && status.phase != had.phase {
        return had;
    }
    let order = ["", "Pending", "Running", "Succeeded"];
    let progress = |phase: &str| order.iter().position(|known| *known == phase).unwrap_or(3);
    if progress(&status.phase) < progress(&had.phase) {
        status.phase.clone_from(&had.phase);
    }
    if terminating(old) && status.reason.is_empty() {
        status.reason.clone_from(&had.reason);
    }
    status
}
