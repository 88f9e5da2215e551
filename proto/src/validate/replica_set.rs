//! ReplicaSets.

use super::Checker;
use crate::v1::ReplicaSet;

impl Checker {
    pub(super) fn replica_set(&mut self, set: &ReplicaSet) {
        let Some(spec) = &set.spec else {
            return self.required("spec");
        };
        self.at_least("spec.replicas", spec.replicas.unwrap_or(1), 0);
        self.selector_and_template("ReplicaSet", spec.selector.as_ref(), spec.template.as_ref());
        self.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0);
    }
}
