//! Taints of nodes, and tolerations of pods.

use std::collections::HashSet;

use super::{Checker, names};
use crate::v1::{Taint, Toleration};

const NO_EXECUTE: &str = "NoExecute";

impl Checker {
    pub(super) fn taints(&mut self, taints: &[Taint]) {
        let mut seen = HashSet::new();
        for (index, taint) in taints.iter().enumerate() {
            let path = format!("spec.taints[{index}]");
            if taint.key.is_empty() {
                self.required(format!("{path}.key"));
            } else {
                let result = names::label_key(&taint.key);
                self.text(format!("{path}.key"), &taint.key, result);
            }
            let result = names::label_value(&taint.value);
            self.text(format!("{path}.value"), &taint.value, result);
            let field = format!("{path}.effect");
            match taint.effect.as_str() {
                "" => self.required(field),
                "PreferNoSchedule" => {
                    let rule =
                        "is not implemented: there are NoSchedule and NoExecute; leave it out";
                    self.violated(field, format_args!("{:?}", taint.effect), rule);
                }
                effect => self.one_of(field, effect, &["NoSchedule", NO_EXECUTE]),
            }
            if let Some(time) = taint.time_added.filter(|time| !time.is_valid()) {
                let rule = "must be before the year 10000";
                self.violated(format!("{path}.timeAdded"), time, rule);
            }
            if !seen.insert((&taint.key, &taint.effect)) {
                let what = format_args!("{}:{}", taint.key, taint.effect);
                self.violated(path, what, "is there twice");
            }
        }
    }

    /// Kubernetes' rules. A toleration of PreferNoSchedule is as good as there: no node has such a taint.
    pub(super) fn tolerations(&mut self, path: &str, tolerations: &[Toleration]) {
        for (index, toleration) in tolerations.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let exists = toleration.operator == "Exists";
            self.one_of(
                format!("{path}.operator"),
                &toleration.operator,
                &["Equal", "Exists"],
            );
            if !toleration.key.is_empty() {
                let result = names::label_key(&toleration.key);
                self.text(format!("{path}.key"), &toleration.key, result);
            } else if !exists {
                let rule = "is required, unless operator is Exists: then all taints are tolerated";
                self.violated(format!("{path}.key"), "", rule);
            }
            let field = format!("{path}.value");
            if exists && !toleration.value.is_empty() {
                let value = format_args!("{:?}", toleration.value);
                self.violated(field, value, "must be empty when operator is Exists");
            } else {
                let result = names::label_value(&toleration.value);
                self.text(field, &toleration.value, result);
            }
            let effects = ["NoSchedule", "PreferNoSchedule", NO_EXECUTE];
            self.one_of(format!("{path}.effect"), &toleration.effect, &effects);
            if let Some(seconds) = toleration.toleration_seconds
                && toleration.effect != NO_EXECUTE
            {
                let rule = "is possible only when effect is NoExecute";
                self.violated(format!("{path}.tolerationSeconds"), seconds, rule);
            }
        }
    }
}
