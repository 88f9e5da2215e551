//! What the keeper of the rules says.

use std::{collections::BTreeSet, io};

use super::{
    Desired, NftError, ServiceRules,
    model::{Conflict, Holder, Wanting},
    script,
};
use crate::events::{Recorder, Severity, node_reference, pod_reference, service_reference};

/// Of whole tables that `nft` refuses one after the other, events tell the first, second, fourth and so on, and each of which the number is a
/// multiple of this one.
const REFUSALS: u32 = 30;

impl ServiceRules {
    /// Ports that somebody wants and does not get, each once.
    pub(super) fn tell_conflicts(&mut self, desired: &Desired, conflicts: BTreeSet<Conflict>) {
        for conflict in conflicts.difference(&self.told) {
            let (number, protocol) = (conflict.port, conflict.protocol);
            let port = format!("{number}/{protocol}");
            let (object, reason, message) = match (&conflict.who, &conflict.holder) {
                (Wanting::Service(uid), holder) => {
                    let Some(service) = desired.services.get(uid) else {
                        continue;
                    };
                    let (reason, message) = match holder {
                        Holder::Service(name) => (
                            "PortConflict",
                            format!("port {port} of the node belongs to the older Service {name}"),
                        ),
                        Holder::Node(what) => (
                            "PortReserved",
                            format!(
                                "port {port} is the node's own ({what}): the Service is not reached there; choose another port"
                            ),
                        ),
                    };
                    (service_reference(service), reason, message)
                }
                (Wanting::Pod(uid), holder) => {
                    let Some(pod) = desired.pods.get(uid) else {
                        continue;
                    };
                    let holder = match holder {
                        Holder::Service(name) => format!("belongs to the Service {name}"),
                        Holder::Node(what) => format!("is the node's own ({what})"),
                    };
                    let message = format!(
                        "host port {port} {holder}: the pod is not reached there; choose another hostPort"
                    );
                    (pod_reference(pod), "PortReserved", message)
                }
            };
            let recorder = &self.recorder;
            recorder.record(object, Severity::Warning, reason, message);
        }
        self.told = conflicts;
    }

    /// That `nft` did not write the rules. When it was to change a part (not the `whole` table), the reason may be that somebody has removed the
    /// table: the whole one is written next then, and that is told.
    pub(super) fn tell_refused(&mut self, desired: &Desired, whole: bool, error: &NftError) {
        if !whole && self.changed_by.is_some() {
            return;
        }
        tracing::error!(%error, "cannot write the rules of Services");
        self.refusals = self.refusals.saturating_add(u32::from(whole));
        let refusals = self.refusals;
        if !whole || refusals.is_power_of_two() || refusals.is_multiple_of(REFUSALS) {
            self.tell_node(desired, "FailedServiceRules", error.to_string());
        }
    }

    /// That the rules are there again. In a fight the times are 1, 2, 4, 8 and so on: events of a node are bounded. What was written because the
    /// assignment had changed, and not at its pace, is only logged.
    pub(super) fn tell_restored(&mut self, desired: &Desired, is_paced: bool) {
        let Some(by) = self.changed_by.take() else {
            return;
        };
        let (table, times) = (script::TABLE, self.pace.times());
        tracing::warn!(
            by,
            table,
            times,
            "the rules of Services were changed by another process, and are written again"
        );
        if is_paced && times.is_power_of_two() {
            let message = format!(
                "{by} changed the nftables table {table}, and the agent wrote it again. It does so at once, and ever \
                 more slowly while the changes go on, so Services may not answer meanwhile: have {by} leave that table alone"
            );
            self.tell_node(desired, "ServiceRulesRestored", message);
        }
    }

    fn tell_node(&self, desired: &Desired, reason: &str, message: String) {
        if let Some(node) = desired.node() {
            let node = node_reference(node);
            self.recorder
                .record(node, Severity::Warning, reason, message);
        }
    }
}

/// That clients of UDP may go on sending to endpoints that went.
pub(super) fn connections_stay(desired: &Desired, recorder: &Recorder, error: &io::Error) {
    tracing::error!(%error, "cannot drop UDP connections to endpoints that went");
    let message = format!(
        "The kernel does not drop UDP connections to endpoints that went: {error}. Clients of UDP that keep their port may go on sending there until they pause for some minutes; \
         load the kernel's module nf_conntrack_netlink. It is tried again every minute"
    );
    if let Some(node) = desired.node() {
        let node = node_reference(node);
        recorder.record(node, Severity::Warning, "FailedForgetConnections", message);
    }
}
