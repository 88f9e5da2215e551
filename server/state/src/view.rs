//! Objects as the API shows them.

use std::sync::Arc;

use barge_proto::v1::{
    self, Condition, Node, Object, Pod, PodIp, PodRecord, PodStatus, Revision, Time,
};

use crate::{
    changed::Changed,
    kind::{Kind, Stored},
    packed::PackedPod,
    pods::POD_SCHEDULED,
    state::State,
};

/// The reason of a pod that is lost with its node.
const NODE_LOST: &str = "NodeLost";
/// The condition that says whether a pod serves.
const READY: &str = "Ready";

impl State {
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
        match kind {
            v1::Kind::Unspecified => None,
            v1::Kind::Namespace => self.named::<v1::Namespace>(namespace, name),
            v1::Kind::Node => self.named::<Node>(namespace, name),
            v1::Kind::Deployment => self.named::<v1::Deployment>(namespace, name),
            v1::Kind::Pod => self.named::<PodRecord>(namespace, name),
            v1::Kind::Service => self.named::<v1::Service>(namespace, name),
            v1::Kind::Endpoints => self.named::<v1::Endpoints>(namespace, name),
            v1::Kind::Event => self.named::<v1::Event>(namespace, name),
            v1::Kind::Secret => self.named::<v1::Secret>(namespace, name),
            v1::Kind::ConfigMap => self.named::<v1::ConfigMap>(namespace, name),
            v1::Kind::Role => self.named::<v1::RbacRole>(namespace, name),
            v1::Kind::ClusterRole => self.named::<v1::ClusterRole>(namespace, name),
            v1::Kind::RoleBinding => self.named::<v1::RoleBinding>(namespace, name),
            v1::Kind::ClusterRoleBinding => self.named::<v1::ClusterRoleBinding>(namespace, name),
            v1::Kind::ServiceAccount => self.named::<v1::ServiceAccount>(namespace, name),
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
            v1::Kind::Unspecified => Box::new(std::iter::empty()),
            v1::Kind::Namespace => self.listed::<v1::Namespace>(namespace, after),
            v1::Kind::Node => self.listed::<Node>(namespace, after),
            v1::Kind::Deployment => self.listed::<v1::Deployment>(namespace, after),
            v1::Kind::Pod => self.listed::<PodRecord>(namespace, after),
            v1::Kind::Service => self.listed::<v1::Service>(namespace, after),
            v1::Kind::Endpoints => self.listed::<v1::Endpoints>(namespace, after),
            v1::Kind::Event => self.listed::<v1::Event>(namespace, after),
            v1::Kind::Secret => self.listed::<v1::Secret>(namespace, after),
            v1::Kind::ConfigMap => self.listed::<v1::ConfigMap>(namespace, after),
            v1::Kind::Role => self.listed::<v1::RbacRole>(namespace, after),
            v1::Kind::ClusterRole => self.listed::<v1::ClusterRole>(namespace, after),
            v1::Kind::RoleBinding => self.listed::<v1::RoleBinding>(namespace, after),
            v1::Kind::ClusterRoleBinding => self.listed::<v1::ClusterRoleBinding>(namespace, after),
            v1::Kind::ServiceAccount => self.listed::<v1::ServiceAccount>(namespace, after),
        }
    }

    /// A record as an object; absent for kinds that the API does not show. The values of Secrets are sealed: whoever has
    /// the key opens them. Pods take their template from the
    /// state unless one is given.
    pub fn view(&self, record: &Stored, template: Option<&Arc<Revision>>) -> Option<Object> {
        let object: Object = match record {
            Stored::Namespace(record) => record.as_ref().clone().into(),
            Stored::Node(record) => record.as_ref().clone().into(),
            Stored::Deployment(record) => record.as_ref().clone().into(),
            Stored::Service(record) => record.as_ref().clone().into(),
            Stored::Endpoints(record) => record.as_ref().clone().into(),
            Stored::Event(record) => record.as_ref().clone().into(),
            Stored::Secret(record) => record.as_ref().clone().into(),
            Stored::ConfigMap(record) => record.as_ref().clone().into(),
            Stored::Role(record) => record.as_ref().clone().into(),
            Stored::ClusterRole(record) => record.as_ref().clone().into(),
            Stored::RoleBinding(record) => record.as_ref().clone().into(),
            Stored::ClusterRoleBinding(record) => record.as_ref().clone().into(),
            Stored::ServiceAccount(record) => record.as_ref().clone().into(),
            Stored::Pod(pod) => {
                let template = template.or_else(|| self.template(pod));
                self.pod_from(pod.record(), template.map(Arc::as_ref))
                    .into()
            }
            _ => return None,
        };
        Some(object.typed())
    }

    /// What a watcher sees of a change: the object after it, or as it was last, with the revision of its
    /// removal. Absent for kinds that the API does not show.
    pub fn changed_object(&self, change: &Changed) -> Option<Object> {
        let mut object = self.view(change.record()?, change.template.as_ref())?;
        if change.after.is_none()
            && let Some(metadata) = object.metadata_mut()
        {
            metadata.resource_version = change.revision.to_string();
        }
        Some(object)
    }

    fn named<K: Kind>(&self, namespace: &str, name: &str) -> Option<Object> {
        self.view(&K::stored(self.get::<K>(namespace, name)?.clone()), None)
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

/// The whole pod, put together from its record, its template and its node, as far as they are there.
pub fn whole_pod(mut record: PodRecord, template: Option<&Revision>, node: Option<&Node>) -> Pod {
    let template = template.and_then(|revision| revision.template.as_ref());
    let mut metadata = record.metadata.take().unwrap_or_default();
    if let Some(common) = template.and_then(|template| template.metadata.as_ref()) {
        for (own, common) in [
            (&mut metadata.labels, &common.labels),
            (&mut metadata.annotations, &common.annotations),
        ] {
            for (key, value) in common {
                own.entry(key.clone()).or_insert_with(|| value.clone());
            }
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
            .map(|info| info.api_version.to_owned())
            .unwrap_or_default(),
        kind: info.map(|info| info.name.to_owned()).unwrap_or_default(),
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

/// What the agent said last stays, but for what the pod is asked for: it is not ready, because nobody hears from it.
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
