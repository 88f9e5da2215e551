use super::*;

const BUDGET: &str = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: web}}
";

#[test]
fn disruption_budgets_have_rules() {
    check(
        BUDGET,
        &[
            (
                "maxUnavailable: 1",
                "maxUnavailable: -1",
                "spec.maxUnavailable: -1 must be a whole number",
            ),
            (
                "maxUnavailable: 1",
                "maxUnavailable: 101%",
                "spec.maxUnavailable: 101% must be at most 100%",
            ),
            (
                "maxUnavailable: 1",
                "minAvailable: some",
                "spec.minAvailable: some must be a whole number",
            ),
            (
                "maxUnavailable: 1",
                "maxUnavailable: 1\n  minAvailable: 1",
                "spec.maxUnavailable: 1 must be absent",
            ),
            (
                "maxUnavailable: 1",
                "unhealthyPodEvictionPolicy: AlwaysAllow",
                "spec.minAvailable: or maxUnavailable is required",
            ),
            ("{app: web}", "{'a b': web}", "spec.selector.matchLabels"),
            (
                "maxUnavailable: 1",
                "maxUnavailable: 1\n  unhealthyPodEvictionPolicy: Never",
                "spec.unhealthyPodEvictionPolicy: \"Never\" must be",
            ),
        ],
    );
    // All pods of the namespace.
    assert_eq!(
        after(BUDGET, "{matchLabels: {app: web}}", "{}"),
        Vec::<String>::new()
    );
}
