use super::*;

const SET: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: nginx}]
";

#[test]
fn replica_sets_have_rules() {
    check(
        SET,
        &[
            (
                "replicas: 2",
                "replicas: -1",
                "spec.replicas: -1 must be at least 0",
            ),
            (
                "replicas: 2",
                "minReadySeconds: -1",
                "spec.minReadySeconds: -1 must be at least 0",
            ),
            (
                "{matchLabels: {app: web}}",
                "{}",
                "spec.selector: must not be empty: it would select everything",
            ),
            (
                "selector: {matchLabels: {app: web}}",
                "minReadySeconds: 0",
                "spec.selector: is required",
            ),
            (
                "{matchLabels: {app: web}}",
                "{matchLabels: {app: db}}",
                "spec.template.metadata.labels: \"app=web\" must match spec.selector (app=db)",
            ),
            (
                "containers:",
                "restartPolicy: Never\n      containers:",
                "spec.template.spec.restartPolicy: \"Never\" must be Always in a ReplicaSet",
            ),
        ],
    );
}
