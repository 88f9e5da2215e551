//! Fields that an update must not change.

use super::{Checker, Violation, kinds};
use crate::v1::{ConfigMap, Node, Object, Pod, Secret, Service};

/// Checks that the new object can take the place of the old one, which has its name. Both have their defaults and are
/// valid. What the server assigns (uid, cluster address, pod range) may be left out of the new one.
pub fn validate_update(old: &Object, new: &Object) -> Result<(), Vec<Violation>> {
    let mut checker = Checker::default();
    let (uid, old_uid) = (new.uid(), old.uid());
    if !uid.is_empty() && uid != old_uid {
        let rule = format!("is another object than the one of this name, {old_uid:?}");
        checker.violated("metadata.uid", format_args!("{uid:?}"), rule);
    }
    kinds::check_update(old, new, &mut checker);
    checker.finish()
}

impl Checker {
    /// The selector of an owner of this kind is the same.
    pub(super) fn same_selector(&mut self, owner: &str, same: bool) {
        if !same {
            let rule = format!("cannot change: delete the {owner} and create it anew");
            self.violated("spec.selector", "", rule);
        }
    }

    pub(super) fn same_address(&mut self, old: &Service, new: &Service) {
        let address = |object: &Service| object.spec.clone().unwrap_or_default().cluster_ip;
        let (old, new) = (address(old), address(new));
        if !old.is_empty() && !new.is_empty() && old != new {
            let rule = format!("cannot change: it is {old}");
            self.violated("spec.clusterIP", new, rule);
        }
    }

    /// Pods are made from a template that never changes. Labels and annotations are their own.
    pub(super) fn same_pod(&mut self, old: &Pod, new: &Pod) {
        let rule = "of a pod cannot change: delete it and create it anew, or use a Deployment";
        let old = old.spec.clone().unwrap_or_default();
        let mut new = new.spec.clone().unwrap_or_default();
        if new.node_name.is_empty() {
            new.node_name.clone_from(&old.node_name);
        }
        if old != new {
            self.violated("spec", "", rule);
        }
    }

    pub(super) fn same_range(&mut self, old: &Node, new: &Node) {
        let range = |node: &Node| node.spec.clone().unwrap_or_default().pod_cidr;
        let (old, new) = (range(old), range(new));
        if !old.is_empty() && !new.is_empty() && old != new {
            let rule = format!("cannot change: it is {old}");
            self.violated("spec.podCIDR", new, rule);
        }
    }

    pub(super) fn same_secret(&mut self, old: &Secret, new: &Secret) {
        if old.r#type != new.r#type {
            let rule = format!(
                "cannot change, it is {:?}: delete the Secret and create it anew",
                old.r#type
            );
            self.violated("type", format_args!("{:?}", new.r#type), rule);
        }
        self.immutable(
            "Secret",
            old.immutable,
            new.immutable,
            &[("data", old.data == new.data)],
        );
    }

    pub(super) fn same_config_map(&mut self, old: &ConfigMap, new: &ConfigMap) {
        let same = [
            ("data", old.data == new.data),
            ("binaryData", old.binary_data == new.binary_data),
        ];
        self.immutable("ConfigMap", old.immutable, new.immutable, &same);
    }

    /// What was declared immutable stays so, and as it is.
    fn immutable(
        &mut self,
        kind: &str,
        old: Option<bool>,
        new: Option<bool>,
        same: &[(&str, bool)],
    ) {
        if old != Some(true) {
            return;
        }
        let rule = format!(
            "cannot change, the {kind} is immutable: delete it and create it anew, or use another name"
        );
        if new != Some(true) {
            self.violated("immutable", "", rule.clone());
        }
        for (field, _) in same.iter().filter(|(_, same)| !same) {
            self.violated(*field, "", rule.clone());
        }
    }
}
