//! Lookups in the state.

use std::sync::Arc;

use barge_proto::v1::{
    ClusterRecord, ManagerRecord, Node, Outcome, PodTombstone, RecordRef, Refusal, RequestRecord,
    Revision, Service, Time,
};

use crate::{
    apply::{find, is_before},
    capacity::Usage,
    claims::Claim,
    kind::{Kind, Stored},
    packed::PackedPod,
    ports::PortsInUse,
    state::State,
};

impl State {
    /// The record of this name; the namespace is empty for kinds that have none.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<&Arc<K::Kept>> {
        K::table(&self.tables).by_name(namespace, name)
    }

    /// The record with this uid.
    pub fn by_uid<K: Kind>(&self, uid: &str) -> Option<&Arc<K::Kept>> {
        K::table(&self.tables).by_uid(uid)
    }

    /// The records of one namespace, or of all, by namespace and name.
    pub fn list<K: Kind>(
        &self,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &Arc<K::Kept>> + use<'_, K> {
        K::table(&self.tables).list(namespace, None)
    }

    /// As [`State::list`], from the record after (namespace, name), which need not exist.
    pub fn list_after<K: Kind>(
        &self,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &Arc<K::Kept>> + use<'_, K> {
        K::table(&self.tables).list(namespace, after)
    }

    /// Of [`State::list_after`], those whose names begin with `prefix`: objects of one registered kind.
    pub fn list_prefixed<K: Kind>(
        &self,
        prefix: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &Arc<K::Kept>> + use<'_, K> {
        K::table(&self.tables).list_prefixed(prefix, namespace, after)
    }

    /// How many records of a kind there are.
    pub fn count<K: Kind>(&self) -> usize {
        K::table(&self.tables).len()
    }

    /// The records that belong to the object with this uid, by their own uid. Events belong to the object
    /// that they are about.
    pub fn owned<K: Kind>(
        &self,
        owner_uid: &str,
    ) -> impl DoubleEndedIterator<Item = &Arc<K::Kept>> + use<'_, K> {
        K::table(&self.tables).owned(owner_uid)
    }

    /// As [`State::owned`], from the record after the one with this uid on; "" for all.
    pub fn owned_after<K: Kind>(
        &self,
        owner_uid: &str,
        uid: &str,
    ) -> impl Iterator<Item = &Arc<K::Kept>> + use<'_, K> {
        K::table(&self.tables).owned_after(owner_uid, uid)
    }

    /// How many records [`State::owned`] has.
    pub fn owned_count<K: Kind>(&self, owner_uid: &str) -> usize {
        K::table(&self.tables).owned_count(owner_uid)
    }

    /// The record that a reference names, by uid or else by namespace and name; where both are given both
    /// have to fit.
    pub fn find(&self, target: &RecordRef) -> Option<Stored> {
        find(&self.tables, target)
    }

    /// The pods bound to a node, by uid; "" for those that are not bound.
    pub fn pods_on(&self, node_uid: &str) -> impl Iterator<Item = &Arc<PackedPod>> + use<'_> {
        self.tables.pods_by_node.get(node_uid)
    }

    /// How many pods [`State::pods_on`] has.
    pub fn pods_on_count(&self, node_uid: &str) -> usize {
        self.tables.pods_by_node.count(node_uid)
    }

    /// The recorded deletions of pods that a node has not confirmed, by the pods' uids.
    pub fn tombstones_on(
        &self,
        node_uid: &str,
    ) -> impl Iterator<Item = &Arc<PodTombstone>> + use<'_> {
        self.tables.tombstones_by_node.get(node_uid)
    }

    /// The recorded deletion of the node with this uid, if it is still remembered.
    pub fn deleted_node(&self, uid: &str) -> Option<&Arc<PodTombstone>> {
        self.by_uid::<PodTombstone>(uid)
            .filter(|tombstone| tombstone.node_uid.is_empty())
    }

    /// The pods that are lost with a node, by uid.
    pub fn lost_on(&self, node_uid: &str) -> impl Iterator<Item = &Arc<PackedPod>> + use<'_> {
        self.tables.lost_by_node.get(node_uid)
    }

    /// The pods made from a template, by uid.
    pub fn pods_of(&self, template_uid: &str) -> impl Iterator<Item = &Arc<PackedPod>> + use<'_> {
        self.tables.pods_by_template.get(template_uid)
    }

    /// As [`State::pods_of`], from the pod after the one with this uid on; "" for all.
    pub fn pods_of_after(
        &self,
        template_uid: &str,
        uid: &str,
    ) -> impl Iterator<Item = &Arc<PackedPod>> + use<'_> {
        self.tables.pods_by_template.after(template_uid, uid)
    }

    /// How many pods [`State::pods_of`] has.
    pub fn pods_of_count(&self, template_uid: &str) -> usize {
        self.tables.pods_by_template.count(template_uid)
    }

    /// The template of a pod.
    pub fn template(&self, pod: &PackedPod) -> Option<&Arc<Revision>> {
        self.by_uid::<Revision>(pod.template_uid())
    }

    /// What the unfinished pods bound to a node reserve there.
    pub fn node_usage(&self, node_uid: &str) -> Usage {
        self.tables.capacity.node(node_uid)
    }

    /// The ports of a node that its unfinished pods claim; `None`: none.
    pub fn node_ports(&self, node_uid: &str) -> Option<&PortsInUse> {
        self.tables.capacity.ports(node_uid)
    }

    /// What one pod of a template reserves.
    pub fn template_usage(&self, template_uid: &str) -> Usage {
        self.tables.capacity.template(template_uid)
    }

    /// The record of the cluster itself; absent before bootstrap.
    pub fn cluster(&self) -> Option<&Arc<ClusterRecord>> {
        self.tables.clusters.iter().next()
    }

    /// The Service with this cluster address.
    pub fn service_with_cluster_ip(&self, address: &str) -> Option<&Arc<Service>> {
        self.by_uid::<Service>(
            self.tables
                .claims
                .holder(&Claim::ClusterIp(address.to_owned()))?,
        )
    }

    /// The Service that has this port on every node; the protocol is TCP or UDP.
    pub fn service_with_node_port(&self, port: i32, protocol: &str) -> Option<&Arc<Service>> {
        self.by_uid::<Service>(
            self.tables
                .claims
                .holder(&Claim::NodePort(port, protocol.to_owned()))?,
        )
    }

    /// The node with this range of pod addresses.
    pub fn node_with_pod_cidr(&self, range: &str) -> Option<&Arc<Node>> {
        self.by_uid::<Node>(
            self.tables
                .claims
                .holder(&Claim::PodCidr(range.to_owned()))?,
        )
    }

    /// The manager with this id in Raft.
    pub fn manager_with_raft_id(&self, raft_id: u64) -> Option<&Arc<ManagerRecord>> {
        self.by_uid::<ManagerRecord>(self.tables.claims.holder(&Claim::RaftId(raft_id))?)
    }

    /// The earlier answer to a client's request, as [`State::apply`] would give it; absent when it is new.
    ///
    /// # Errors
    /// A refusal when the id was used for another request, or may have been forgotten.
    pub fn answered(
        &self,
        request: &RequestRecord,
        principal: &str,
    ) -> Result<Option<Outcome>, Refusal> {
        self.requests.check(request, principal, self.revision)
    }

    /// Whether there are events that were last seen before `time`.
    pub fn has_events_before(&self, time: Time) -> bool {
        let oldest = self.tables.event_ages.oldest();
        oldest.is_some_and(|event| is_before(event, time))
    }

    /// The revision of the oldest answer to a request that is remembered; absent when there is none.
    pub fn oldest_request(&self) -> Option<u64> {
        self.requests.oldest()
    }

    /// How many answers to requests are remembered, and about how many bytes they take in memory.
    pub fn requests_size(&self) -> (usize, usize) {
        self.requests.size()
    }

    /// All values that must be unique and are given away, with the uids that have them: what an allocator
    /// has to avoid.
    pub fn claims(&self) -> impl Iterator<Item = (&Claim, &str)> {
        self.tables.claims.iter()
    }
}
