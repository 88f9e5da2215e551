#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod changes;
mod disruption;
mod host;
mod host_namespaces;
mod lifecycle;
mod probes;
mod replica_set;
mod security;
mod service;
mod taints;

use super::*;
use crate::manifest::{self, Source};
use crate::v1::object::Kind;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:latest
        ports: [{containerPort: 80}]
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports:
  - {port: 80, name: http}
  - {port: 443, name: https}
";

fn read(text: &str) -> Object {
    let mut objects =
        manifest::parse([Source::new("test", text)]).unwrap_or_else(|e| panic!("{e}"));
    let mut object = objects.remove(0).object;
    default(&mut object);
    object
}

/// The violations of a manifest after a replacement in it.
fn after(text: &str, from: &str, to: &str) -> Vec<String> {
    assert!(text.contains(from), "{from}");
    match validate(&read(&text.replace(from, to))) {
        Ok(()) => Vec::new(),
        Err(violations) => violations.iter().map(Violation::to_string).collect(),
    }
}

/// Each replacement breaks one rule, and is told so.
fn check(text: &str, cases: &[(&str, &str, &str)]) {
    assert_eq!(validate(&read(text)), Ok(()));
    for (from, to, expected) in cases {
        let found = after(text, from, to);
        assert_eq!(found.len(), 1, "{to}: {found:#?}");
        assert!(found[0].starts_with(expected), "{to}: {found:#?}");
    }
}

#[test]
fn deployments_have_rules() {
    check(
        DEPLOYMENT,
        &[
            (
                "name: web}\n",
                "name: Web}\n",
                "metadata.name: \"Web\" must be",
            ),
            (
                "{name: web}\n",
                "{labels: {a: b}}\n",
                "metadata.name: is required",
            ),
            (
                "name: web}\n",
                "name: web, namespace: a.b}\n",
                "metadata.namespace: \"a.b\" must",
            ),
            (
                "name: web}\n",
                "name: web, labels: {a: -b}}\n",
                "metadata.labels[a]: \"-b\" must",
            ),
            (
                "name: web}\n",
                "name: web, annotations: {/: b}}\n",
                "metadata.annotations[/]: \"/\" must",
            ),
            (
                "replicas: 3",
                "replicas: -1",
                "spec.replicas: -1 must be at least 0",
            ),
            (
                "labels: {app: web}}\n    spec",
                "labels: {app: wbe}}\n    spec",
                "spec.template.metadata.labels: \"app=wbe\" must match spec.selector (app=web)",
            ),
            (
                "{matchLabels: {app: web}}",
                "{}",
                "spec.selector: must not be empty",
            ),
            (
                "selector: {matchLabels: {app: web}}",
                "selector: null",
                "spec.selector: is required",
            ),
            (
                "{matchLabels: {app: web}}",
                "{matchExpressions: [{key: app, operator: Has}]}",
                "spec.selector: unknown operator \"Has\"",
            ),
            (
                "replicas: 3",
                "minReadySeconds: -3",
                "spec.minReadySeconds: -3 must",
            ),
            (
                "replicas: 3",
                "revisionHistoryLimit: -1",
                "spec.revisionHistoryLimit: -1 must",
            ),
            (
                "replicas: 3",
                "minReadySeconds: 60\n  progressDeadlineSeconds: 60",
                "spec.progressDeadlineSeconds: 60 must be more than minReadySeconds, 60",
            ),
            (
                "replicas: 3",
                "strategy: {type: Rolling}",
                "spec.strategy.type: \"Rolling\" must be RollingUpdate or Recreate",
            ),
            (
                "replicas: 3",
                "strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}",
                "spec.strategy.rollingUpdate: must be absent",
            ),
            (
                "replicas: 3",
                "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}",
                "spec.strategy.rollingUpdate.maxUnavailable: must not be 0 while",
            ),
            (
                "replicas: 3",
                "strategy: {rollingUpdate: {maxSurge: half}}",
                "spec.strategy.rollingUpdate.maxSurge: half must be a whole number",
            ),
            (
                "replicas: 3",
                "strategy: {rollingUpdate: {maxUnavailable: 101%}}",
                "spec.strategy.rollingUpdate.maxUnavailable: 101% must be at most 100%",
            ),
            (
                "spec:\n      containers",
                "spec:\n      restartPolicy: Never\n      containers",
                "spec.template.spec.restartPolicy: \"Never\" must be Always",
            ),
            (
                "spec:\n      containers",
                "spec:\n      nodeName: a\n      containers",
                "spec.template.spec.nodeName: \"a\" must be empty",
            ),
        ],
    );
}

#[test]
fn containers_have_rules() {
    let container = "spec.template.spec.containers[0]";
    let cases = [
        (
            "image: nginx:latest",
            "image: Nginx",
            ".image: \"Nginx\" is no image",
        ),
        ("image: nginx:latest", "image: ''", ".image: is required"),
        ("- name: web", "- name: we_b", ".name: \"we_b\" must"),
        ("- name: web", "- name: ''", ".name: is required"),
        (
            "containerPort: 80",
            "containerPort: 65536",
            ".ports[0].containerPort: 65536 must",
        ),
        (
            "containerPort: 80",
            "name: http",
            ".ports[0].containerPort: 0 must",
        ),
        (
            "containerPort: 80",
            "containerPort: 80, protocol: SCTP",
            ".ports[0].protocol: \"SCTP\" must be TCP or UDP",
        ),
        (
            "containerPort: 80",
            "containerPort: 80, name: HTTP",
            ".ports[0].name: \"HTTP\" must",
        ),
        (
            "{containerPort: 80}",
            "{containerPort: 80, name: a}, {containerPort: 81, name: a}",
            ".ports[1].name: \"a\" is the name of another port",
        ),
        (
            "ports: [{containerPort: 80}]",
            "env: [{name: A=B}]",
            ".env[0].name: \"A=B\" must",
        ),
        (
            "image: nginx:latest",
            "image: a\n        imagePullPolicy: Sometimes",
            ".imagePullPolicy: \"Sometimes\" must",
        ),
        (
            "ports: [{containerPort: 80}]",
            "resources: {limits: {cpu: 1}, requests: {cpu: 1001m}}",
            ".resources.requests[cpu]: 1001m must be at most the limit, 1",
        ),
        (
            "ports: [{containerPort: 80}]",
            "resources: {limits: {memory: -1Mi}}",
            ".resources.limits[memory]: -1Mi must be at least 0",
        ),
        (
            "ports: [{containerPort: 80}]",
            "resources: {requests: {cpu: 100u}}",
            ".resources.requests[cpu]: 100u must be a multiple",
        ),
        (
            "ports: [{containerPort: 80}]",
            "resources: {requests: {cpu: 7E}}",
            ".resources.requests[cpu]: 7E is more",
        ),
        (
            "ports: [{containerPort: 80}]",
            "resources: {requests: {gpu: 1}}",
            ".resources.requests[gpu]: \"gpu\" is not a resource",
        ),
    ];
    for (from, to, rule) in cases {
        check(DEPLOYMENT, &[(from, to, &format!("{container}{rule}"))]);
    }
    check(
        DEPLOYMENT,
        &[
            (
                "- name: web",
                "- {name: web, image: a}\n      - name: web",
                "spec.template.spec.containers[1].name: \"web\" is the name of another container",
            ),
            (
                "spec:\n      containers",
                "spec:\n      terminationGracePeriodSeconds: -1\n      containers",
                "spec.template.spec.terminationGracePeriodSeconds: -1 must",
            ),
            (
                "spec:\n      containers",
                "spec:\n      nodeSelector: {a b: c}\n      containers",
                "spec.template.spec.nodeSelector[a b]: \"a b\" must",
            ),
        ],
    );
}

#[test]
fn every_violation_is_told() {
    let text = DEPLOYMENT
        .replace("replicas: 3", "replicas: -3")
        .replace("nginx:latest", "Nginx")
        .replace("containerPort: 80", "containerPort: 0");
    let fields: Vec<_> = validate(&read(&text))
        .unwrap_err()
        .into_iter()
        .map(|violation| violation.field)
        .collect();
    let container = "spec.template.spec.containers[0]";
    assert_eq!(
        fields,
        [
            "spec.replicas".to_owned(),
            format!("{container}.image"),
            format!("{container}.ports[0].containerPort")
        ]
    );
}

#[test]
fn cluster_scoped_kinds_have_no_namespace() {
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.244.1.0/24}\n";
    check(
        text,
        &[
            (
                "{name: a}",
                "{name: a, namespace: b}",
                "metadata.namespace: \"b\" must be empty: a Node",
            ),
            (
                "10.244.1.0/24",
                "10.244.1.0",
                "spec.podCIDR: \"10.244.1.0\" must be a range",
            ),
            (
                "10.244.1.0/24",
                "10.244.1.0/33",
                "spec.podCIDR: \"10.244.1.0/33\" must be a range",
            ),
        ],
    );
}

#[test]
fn what_is_too_large_is_refused() {
    let large = "x".repeat(256 * 1024);
    let annotated = format!("name: web, annotations: {{a: {large}}}}}\n");
    let found = after(DEPLOYMENT, "name: web}\n", &annotated);
    assert_eq!(
        found,
        ["metadata.annotations: 262145 bytes must be at most 262144 bytes in all"]
    );

    let larger = "x".repeat(OBJECT_BYTES);
    let found = after(
        DEPLOYMENT,
        "image: nginx:latest",
        &format!("image: a\n        args: [{larger}]"),
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("is too large: at most 1572864 bytes"),
        "{found:?}"
    );
}

#[test]
fn objects_of_other_types_than_stated_are_refused() {
    let mut object = read(SERVICE);
    if let Some(Kind::Service(service)) = &mut object.kind {
        service.kind = "Pod".to_owned();
    }
    assert_eq!(
        validate(&object).unwrap_err()[0].to_string(),
        "kind: \"Pod\" must be Service"
    );
    assert!(validate(&Object::default()).is_err());
}

#[test]
fn times_that_cannot_be_printed_are_refused() {
    let mut object = read(SERVICE);
    object.metadata_mut().unwrap().creation_timestamp =
        Some(crate::v1::Time::from_seconds(i64::MAX));
    assert_eq!(
        validate(&object).unwrap_err()[0].field,
        "metadata.creationTimestamp"
    );
}
