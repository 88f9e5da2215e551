//! PodDisruptionBudgets.

use super::Checker;
use crate::v1::{IntOrString, PodDisruptionBudget, int_or_string::Value};

impl Checker {
    pub(super) fn disruption_budget(&mut self, budget: &PodDisruptionBudget) {
        let Some(spec) = &budget.spec else {
            return self.required("spec");
        };
        let shares = [
            ("spec.minAvailable", spec.min_available.as_ref()),
            ("spec.maxUnavailable", spec.max_unavailable.as_ref()),
        ];
        for (field, share) in shares {
            self.share(field, share);
            self.at_most_all(field, share);
        }
        match (&spec.min_available, &spec.max_unavailable) {
            (Some(_), Some(unavailable)) => {
                let rule =
                    "must be absent, because minAvailable is there: a budget has one of the two";
                self.violated("spec.maxUnavailable", unavailable, rule);
            }
            (None, None) => {
                let rule = "or maxUnavailable is required: it says how many pods must stay";
                self.violated("spec.minAvailable", "", rule);
            }
            _ => {}
        }
        if let Some(selector) = &spec.selector {
            self.requirements("spec.selector", selector);
        }
        if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
            let policies = ["IfHealthyBudget", "AlwaysAllow"];
            self.one_of("spec.unhealthyPodEvictionPolicy", policy, &policies);
        }
    }

    /// A percentage above 100 is none of a whole.
    pub(super) fn at_most_all(&mut self, field: &str, share: Option<&IntOrString>) {
        if let Some(Value::String(text)) = share.and_then(|share| share.value.as_ref())
            && matches!(text.trim_end_matches('%').parse(), Ok(101..=i32::MAX))
        {
            self.violated(field, text, "must be at most 100%");
        }
    }
}
