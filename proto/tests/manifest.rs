//! Manifests as people write them: what is accepted, and what is said about the rest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/golden.rs"]
mod golden;

use std::fmt::Write;

use barge_proto::{
    manifest::{self, ManifestError, Source},
    v1::{Deployment, IntOrString, Kind, Object, Service},
};

fn parse(text: &str) -> Result<Vec<Object>, ManifestError> {
    let objects = manifest::parse([Source::new("web.yaml", text)])?;
    Ok(objects.into_iter().map(|located| located.object).collect())
}

/// The example's manifest, as it stands in deploy/examples.
const NGINX: &str = include_str!("../../deploy/examples/nginx.yaml");
const MY_APP: &str = include_str!("../../deploy/examples/my-app.yaml");

#[test]
fn the_examples_are_read() {
    let objects = parse(NGINX).unwrap();
    let [deployment, service] = <[Object; 2]>::try_from(objects).unwrap();
    let deployment = Deployment::try_from(deployment).unwrap();
    let spec = deployment.spec.unwrap();
    assert_eq!(spec.replicas, Some(3));
    let container = &spec.template.unwrap().spec.unwrap().containers[0];
    assert_eq!(container.image, "nginx:latest");
    assert_eq!(container.ports[0].container_port, 80);
    let service = Service::try_from(service).unwrap().spec.unwrap();
    assert_eq!(service.r#type, "LoadBalancer");
    assert_eq!(service.ports[0].target_port, Some(IntOrString::int(80)));

    assert_eq!(parse(MY_APP).unwrap()[0].kind(), Kind::Deployment);
}

#[test]
fn errors_say_what_where_and_what_else() {
    let cases = golden::read("manifest_errors.txt");
    let mut now = String::new();
    for case in cases.split("==== ").skip(1) {
        let (name, case) = case.split_once('\n').unwrap();
        let (text, _) = case.split_once("\n----\n").unwrap();
        let error = parse(text).expect_err(name);
        write!(now, "==== {name}\n{text}\n----\n{error}\n\n").unwrap();
    }
    golden::check("manifest_errors.txt", &now);
}

#[test]
fn kubernetes_defaults_are_accepted() {
    let with_defaults = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, creationTimestamp: null, managedFields: [], finalizers: []}
spec:
  template:
    spec:
      hostNetwork: false
      initContainers: []
      os: {name: linux}
      priority: 0
      schedulerName: default-scheduler
      volumes: null
      containers:
      - name: web
        tty: false
        ports: [{containerPort: 80, hostPort: 0}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  allocateLoadBalancerNodePorts: true
  ipFamilies: [IPv4]
  ipFamilyPolicy: SingleStack
";
    let without = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, ports: [{containerPort: 80}]}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {}
";
    assert_eq!(parse(with_defaults).unwrap(), parse(without).unwrap());
}

#[test]
fn the_old_name_of_a_pods_service_account_is_taken() {
    let read = |fields: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{fields}, containers: [{{name: a}}]}}\n"
        );
        parse(&text).map(|mut objects| {
            barge_proto::validate::default(&mut objects[0]);
            let pod = barge_proto::v1::Pod::try_from(objects.remove(0)).unwrap();
            pod.spec.unwrap().service_account_name
        })
    };
    for same in [
        "serviceAccount: ci",
        "serviceAccountName: ci",
        "serviceAccount: ci, serviceAccountName: ci",
    ] {
        assert_eq!(read(same).unwrap(), "ci", "{same}");
    }
    // Templates of before this field are the same.
    for default in ["serviceAccount: default", "serviceAccountName: default"] {
        assert_eq!(read(default).unwrap(), "", "{default}");
    }
    let error = read("serviceAccount: a, serviceAccountName: b").unwrap_err();
    assert!(
        error
            .message()
            .contains("`serviceAccount` is another name of `serviceAccountName`"),
        "{}",
        error.message()
    );
}

#[test]
fn json_is_read_too_and_lists_are_taken_apart() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "annotations": {"b": "\ud83d\ude00 \/"}}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b"}}
    ]}"#;
    let objects = parse(text).unwrap();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0].metadata().annotations["b"], "😀 /");
    assert_eq!(
        parse(&manifest::list_to_yaml(&objects).unwrap()),
        Ok(objects.clone())
    );
    assert_eq!(
        parse(&manifest::list_to_json(&objects).unwrap()),
        Ok(objects)
    );
}

#[test]
fn empty_texts_have_no_objects() {
    for text in ["", "\n", "---\n", "# nothing\n---\n---\n", "\u{feff}"] {
        assert_eq!(parse(text), Ok(Vec::new()), "{text:?}");
    }
}

#[test]
fn the_same_object_in_two_files_is_an_error() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let error =
        manifest::parse([Source::new("a.yaml", text), Source::new("b.yaml", text)]).unwrap_err();
    assert_eq!(error.file(), "b.yaml");
    assert_eq!(
        error.message(),
        "namespace/a is there twice; first at a.yaml:3:18"
    );
}

#[test]
fn anchors_and_merges_are_followed() {
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: a, labels: &labels {app: a}}
spec:
  nodeSelector: *labels
  containers: []
";
    let objects = parse(text).unwrap();
    let pod = barge_proto::v1::Pod::try_from(objects[0].clone()).unwrap();
    assert_eq!(pod.spec.unwrap().node_selector["app"], "a");
}

#[test]
fn any_field_can_be_pointed_at() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    example.com/app: x\n\
                spec:\n  containers:\n  - name: a\n  - name: b\n";
    let located = &manifest::parse([Source::new("pod.yaml", text)]).unwrap()[0];
    for (field, line, column) in [
        ("", 1, 1),
        ("metadata.labels[example.com/app]", 6, 22),
        ("metadata.namespace", 3, 1),
        ("spec.containers", 8, 3),
        ("spec.containers[1]", 10, 5),
        ("spec.containers[1].name", 10, 11),
        ("spec.containers[1].image", 10, 5),
        ("spec.containers[2].image", 8, 3),
    ] {
        let error = located.error(field, "no");
        assert_eq!((error.line(), error.column()), (line, column), "{field}");
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused() {
    let deep = 100_000;
    let (open, close) = ("[".repeat(deep), "]".repeat(deep));
    let maps = "{a: ".repeat(deep) + "1" + &"}".repeat(deep);
    let json = "{\"a\":".repeat(deep) + "1" + &"}".repeat(deep);
    let mut block = String::new();
    for depth in 0..2_000 {
        writeln!(block, "{}a:", " ".repeat(depth)).unwrap();
    }
    for text in [format!("{open}{close}"), maps, json, block, open] {
        let error = parse(&text).unwrap_err();
        assert!(!error.message().is_empty());
    }
}

/// The page for users lists what is refused; each row is.
#[test]
fn fields_that_the_guide_calls_refused_are_refused() {
    let page = include_str!("../../docs/guide/kubernetes-fields.md");
    let (_, refused) = page.split_once("## Refused").unwrap();
    let (refused, _) = refused.split_once("Of other kinds").unwrap();
    let rows = refused.lines().filter_map(|line| line.strip_prefix("| `"));
    let fields: Vec<&str> = rows
        .filter_map(|row| Some(row.split_once('`')?.0))
        .collect();
    assert!(fields.len() > 10, "{fields:?}");
    for field in fields {
        let name = field.rsplit('.').next().unwrap();
        let value = match name {
            "priorityClassName" | "runtimeClassName" => "x",
            "topologySpreadConstraints" | "ephemeralContainers" => "[{name: x}]",
            _ => "{x: {k: z}}",
        };
        let (pod, container, port) = match field.strip_prefix("containers[].") {
            None if field.starts_with("volumes[].") => (
                format!("volumes: [{{name: a, {name}: {value}}}], "),
                String::new(),
                String::new(),
            ),
            None => (format!("{name}: {value}, "), String::new(), String::new()),
            Some(rest) if rest.starts_with("ports") => {
                (String::new(), String::new(), format!(", {name}: {value}"))
            }
            Some(rest) if rest.starts_with("volumeMounts[]") => {
                let mount = format!(", volumeMounts: [{{name: a, {name}: {value}}}]");
                (String::new(), mount, String::new())
            }
            Some(_) => (String::new(), format!(", {name}: {value}"), String::new()),
        };
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{pod}containers: [{{name: a, ports: [{{containerPort: 1{port}}}]{container}}}]}}\n"
        );
        let error = parse(&text).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{name}` is a field of Kubernetes")),
            "{field}: {error}"
        );
    }
}
