//! Taints and tolerations.

use super::*;

const NODE: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
spec:
  taints:
  - {key: dedicated, value: database, effect: NoSchedule}
  - {key: dedicated, value: database, effect: NoExecute}
";

#[test]
fn taints_have_a_key_and_an_effect_that_barge_knows() {
    check(
        NODE,
        &[
            (
                "{key: dedicated, value: database, effect: NoS",
                "{value: a, effect: NoS",
                "spec.taints[0].key: is required",
            ),
            (
                "key: dedicated, value: database, effect: NoS",
                "key: 'a b', effect: NoS",
                "spec.taints[0].key: \"a b\" must be a name",
            ),
            (
                "value: database, effect: NoS",
                "value: 'a b', effect: NoS",
                "spec.taints[0].value: \"a b\" must be",
            ),
            (
                ", effect: NoSchedule",
                "",
                "spec.taints[0].effect: is required",
            ),
            (
                "NoSchedule",
                "PreferNoSchedule",
                "spec.taints[0].effect: \"PreferNoSchedule\" is not implemented",
            ),
            (
                "NoSchedule",
                "Never",
                "spec.taints[0].effect: \"Never\" must be NoSchedule or NoExecute",
            ),
            (
                "NoSchedule",
                "NoExecute",
                "spec.taints[1]: dedicated:NoExecute is there twice",
            ),
        ],
    );
}

#[test]
fn tolerations_are_checked_as_in_kubernetes() {
    let text = DEPLOYMENT.replace(
        "      containers:",
        "      tolerations:
      - {key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
      - {key: b, value: c}
      - {operator: Exists}
      - {key: d, operator: Equal, value: e, effect: PreferNoSchedule}
      containers:",
    );
    let at = |rest: &str| format!("spec.template.spec.tolerations{rest}");
    let cases = [
        (
            "{key: b, value: c}",
            "{value: c}",
            at("[1].key: is required"),
        ),
        (
            "operator: Equal",
            "operator: Gt",
            at("[3].operator: \"Gt\" must be Equal or Exists"),
        ),
        (
            "{operator: Exists}",
            "{operator: Exists, value: x}",
            at("[2].value: \"x\" must be empty"),
        ),
        (
            "PreferNoSchedule",
            "Never",
            at("[3].effect: \"Never\" must be"),
        ),
        (
            "NoExecute, ",
            "NoSchedule, ",
            at("[0].tolerationSeconds: 30 is possible only"),
        ),
        ("value: c", "value: 'a b'", at("[1].value: \"a b\" must be")),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(from, to, expected)| (*from, *to, expected.as_str()))
        .collect();
    check(&text, &cases);
}
