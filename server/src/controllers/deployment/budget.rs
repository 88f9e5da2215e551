//! How many pods a rollout may have too many and too few.

use crate::controllers::replicas::count;
use barge_proto::v1::{DeploymentSpec, IntOrString, int_or_string::Value};

/// A Deployment's numbers, percentages resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Pods wanted.
    pub replicas: usize,
    /// Pods that a rollout may have beyond that.
    pub max_surge: usize,
    /// Pods that a rollout may leave unavailable.
    pub max_unavailable: usize,
}

impl Budget {
    /// The numbers of a Deployment. As in Kubernetes: both limits default to 25 %, surge is rounded
    /// up, unavailable down, and when both come out as zero one pod may be unavailable, or nothing
    /// could ever move. Recreate has neither.
    pub fn of(spec: &DeploymentSpec) -> Self {
        let replicas = count(spec.replicas.unwrap_or(1));
        if is_recreate(spec) {
            return Self {
                replicas,
                max_surge: 0,
                max_unavailable: 0,
            };
        }
        let update = spec
            .strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.as_ref());
        let max_surge = resolve(
            update.and_then(|update| update.max_surge.as_ref()),
            replicas,
            usize::div_ceil,
        );
        let mut max_unavailable = resolve(
            update.and_then(|update| update.max_unavailable.as_ref()),
            replicas,
            |part, whole| part / whole,
        );
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self {
            replicas,
            max_surge,
            max_unavailable: max_unavailable.min(replicas),
        }
    }

    /// The fewest pods that may be available because of a rollout.
    pub fn min_available(&self) -> usize {
        self.replicas.saturating_sub(self.max_unavailable)
    }

    /// The most pods there may be; those that are terminating don't count, as in Kubernetes.
    pub fn max_total(&self) -> usize {
        self.replicas.saturating_add(self.max_surge)
    }
}

/// Whether all old pods go before the first new one comes.
pub fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy
        .as_ref()
        .is_some_and(|strategy| strategy.r#type == "Recreate")
}

fn resolve(
    limit: Option<&IntOrString>,
    replicas: usize,
    divide: impl Fn(usize, usize) -> usize,
) -> usize {
    let percentage = |percent: usize| divide(percent.saturating_mul(replicas), 100);
    match limit.and_then(|limit| limit.value.as_ref()) {
        None => percentage(25),
        Some(Value::Int(number)) => count(*number),
        // Validation lets only percentages in; anything else counts as none.
        Some(Value::String(text)) => text
            .strip_suffix('%')
            .and_then(|digits| digits.parse().ok())
            .map_or(0, percentage),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use barge_proto::v1::{DeploymentStrategy, RollingUpdateDeployment};

    fn budget(replicas: i32, surge: Option<Value>, unavailable: Option<Value>) -> (usize, usize) {
        let limit = |value: Option<Value>| value.map(|value| IntOrString { value: Some(value) });
        let budget = Budget::of(&DeploymentSpec {
            replicas: Some(replicas),
            strategy: Some(DeploymentStrategy {
                r#type: "RollingUpdate".into(),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: limit(surge),
                    max_unavailable: limit(unavailable),
                }),
            }),
            ..DeploymentSpec::default()
        });
        (budget.max_surge, budget.max_unavailable)
    }

    fn percent(text: &str) -> Option<Value> {
        Some(Value::String(text.into()))
    }

    #[test]
    fn percentages_are_rounded_as_in_kubernetes() {
        assert_eq!(budget(3, None, None), (1, 0));
        assert_eq!(budget(4, None, None), (1, 1));
        assert_eq!(budget(10, None, None), (3, 2));
        assert_eq!(budget(10, percent("11%"), percent("19%")), (2, 1));
        assert_eq!(budget(5, percent("100%"), percent("100%")), (5, 5));
    }

    #[test]
    fn something_can_always_move() {
        assert_eq!(budget(3, Some(Value::Int(0)), Some(Value::Int(0))), (0, 1));
        assert_eq!(budget(3, percent("0%"), percent("10%")), (0, 1));
    }

    #[test]
    fn no_more_can_be_unavailable_than_there_are() {
        assert_eq!(budget(2, Some(Value::Int(5)), Some(Value::Int(5))), (5, 2));
        assert_eq!(budget(0, None, None), (0, 0));
    }

    #[test]
    fn replicas_default_to_one() {
        let budget = Budget::of(&DeploymentSpec::default());
        assert_eq!((budget.replicas, budget.max_surge), (1, 1));
    }
}
