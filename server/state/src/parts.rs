//! The parts of an object, as references into the state. Taking them under the lock is cheap; the object is built
//! after the lock was released.

use std::sync::Arc;

use barge_proto::{
    for_each_kind,
    kinds::custom::object_name,
    v1::{self, Condition, Node, Object, Pod, PodIp, PodRecord, PodStatus, Revision, Time, object},
};

use crate::{
    changed::Changed,
    kind::{Kind, Stored},
    labels::Own,
    pods::POD_SCHEDULED,
};

/// The reason of a pod that is lost with its node.
const NODE_LOST: &str = "NodeLost";
/// The condition that says whether a pod serves.
const READY: &str = "Ready";

/// A record, and for pods their template and node.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The record.
    pub record: Stored,
    pub(crate) template: Option<Arc<Revision>>,
    pub(crate) node: Option<Arc<Node>>,
}

impl Parts {
    /// Of a record that is shown by itself: any but a pod.
    pub fn alone(record: Stored) -> Parts {
        Parts {
            record,
            template: None,
            node: None,
        }
    }

    /// The template of a pod.
    pub fn template(&self) -> Option<&Revision> {
        self.template.as_deref()
    }
}

/// The object behind what is kept of a record: mostly the same message.
macro_rules! shown {
    ($parts:ident $kept:ident PodRecord) => {{
        let (template, node) = ($parts.template.as_deref(), $parts.node.as_deref());
        whole_pod($kept.record(), template, node)
    }};
    ($parts:ident $kept:ident CustomObject) => {{
        let mut shown = $kept.as_ref().clone();
        let name = object_name(&shown.meta().name).to_owned();
        shown.meta_mut().name = name;
        shown
    }};
    ($parts:ident $kept:ident $message:ident) => {
        $kept.as_ref().clone()
    };
}

macro_rules! define {
    ($($variant:ident($message:ident) $table:ident = $number:literal [$($object:ident($shown:ident))?] $options:tt,)*) => {
        impl Parts {
            /// The object; absent for kinds that the API does not show. The values of Secrets are sealed.
            pub fn object(&self) -> Option<Object> {
                let kind = match &self.record {
                    $(Stored::$variant(_kept) => object_kind!(self _kept $message [$($object)?]),)*
                };
                Some(Object { kind: Some(kind) }.typed())
            }
        }
    };
}

/// The object of a row; leaves the function for kinds that are none.
macro_rules! object_kind {
    ($parts:ident $kept:ident $message:ident []) => {
        return None
    };
    ($parts:ident $kept:ident $message:ident [$object:ident]) => {
        object::Kind::$object(shown!($parts $kept $message))
    };
}
for_each_kind!(define);

impl Changed {
    /// An object of this change as a watcher sees it: one that was removed has the revision of its removal.
    #[must_use]
    pub fn shown(&self, mut object: Object) -> Object {
        if self.after.is_none()
            && let Some(metadata) = object.metadata_mut()
        {
            metadata.resource_version = self.revision.to_string();
        }
        object
    }
}

/// The whole pod: its record, its template, the name and address of its node.
pub fn whole_pod(mut record: PodRecord, template: Option<&Revision>, node: Option<&Node>) -> Pod {
    let template = template.and_then(|revision| revision.template.as_ref());
    let mut metadata = record.metadata.take().unwrap_or_default();
    if let Some(common) = template.and_then(|template| template.metadata.as_ref()) {
        for (set, removed, common) in [
            (&mut metadata.labels, &record.removed_labels, &common.labels),
            (
                &mut metadata.annotations,
                &record.removed_annotations,
                &common.annotations,
            ),
        ] {
            *set = Own { set, removed }.over(common).into_owned();
        }
    }
    let mut spec = template
        .and_then(|template| template.spec.clone())
        .unwrap_or_default();
    spec.node_name = node
        .map(|node| node.meta().name.clone())
        .unwrap_or_default();
    let info = v1::Kind::Pod.info();
    Pod {
        api_version: info
            .map(|info| info.api_version.to_string())
            .unwrap_or_default(),
        kind: info.map(|info| info.name.to_string()).unwrap_or_default(),
        metadata: Some(metadata),
        spec: Some(spec),
        status: Some(pod_status(record, node)),
    }
}

/// The status with what its record leaves out.
fn pod_status(record: PodRecord, node: Option<&Node>) -> PodStatus {
    let mut status = record.status.unwrap_or_default();
    if status.phase.is_empty() {
        "Pending".clone_into(&mut status.phase);
    }
    if status.pod_ips.is_empty() && !status.pod_ip.is_empty() {
        status.pod_ips = vec![PodIp {
            ip: status.pod_ip.clone(),
        }];
    }
    if !record.node_uid.is_empty() {
        let scheduled = Condition {
            r#type: POD_SCHEDULED.to_owned(),
            status: "True".to_owned(),
            last_transition_time: record.bound,
            ..Condition::default()
        };
        status.conditions.insert(0, scheduled);
    }
    let addresses = node
        .and_then(|node| node.status.as_ref())
        .map(|status| &status.addresses);
    let internal = addresses
        .into_iter()
        .flatten()
        .find(|address| address.r#type == "InternalIP");
    if let Some(address) = internal {
        status.host_ip.clone_from(&address.address);
    }
    if let Some(lost) = record.lost {
        let name = node.map_or("", |node| &node.meta().name);
        show_lost(&mut status, name, lost);
    }
    status
}

/// Shows a lost pod: the status that its agent reported last stays, but `Ready` is false, because the leader does not hear the agent.
fn show_lost(status: &mut PodStatus, node: &str, since: Time) {
    NODE_LOST.clone_into(&mut status.reason);
    status.message = format!("Node {node}, which was running pod, is unreachable");
    let ready = Condition {
        r#type: READY.to_owned(),
        status: "False".to_owned(),
        reason: NODE_LOST.to_owned(),
        last_transition_time: Some(since),
        ..Condition::default()
    };
    let mut conditions = status.conditions.iter_mut();
    match conditions.find(|condition| condition.r#type == READY) {
        Some(condition) => *condition = ready,
        None => status.conditions.push(ready),
    }
}
