//! Probes of containers.

use super::*;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: web
    image: nginx:1
    livenessProbe: {exec: {command: [alive]}}
    readinessProbe: {httpGet: {port: http}, successThreshold: 2}
    startupProbe: {grpc: {port: 9000}}
";

#[test]
fn probes_get_kubernetes_defaults() {
    let text = manifest::to_yaml(&read(POD)).unwrap();
    let expected = "    livenessProbe:
      exec:
        command:
        - alive
      failureThreshold: 3
      periodSeconds: 10
      successThreshold: 1
      timeoutSeconds: 1
    name: web
    readinessProbe:
      failureThreshold: 3
      httpGet:
        path: /
        port: http
        scheme: HTTP
      periodSeconds: 10
      successThreshold: 2
      timeoutSeconds: 1
    startupProbe:
      failureThreshold: 3
      grpc:
        port: 9000
        service: ''
      periodSeconds: 10
";
    let of_probes = text
        .split_once("imagePullPolicy: IfNotPresent\n")
        .unwrap()
        .1;
    let of_probes = of_probes.replace("service: \"\"", "service: ''");
    assert!(of_probes.starts_with(expected), "{of_probes}");
}

#[test]
fn probes_have_rules() {
    let live = "{exec: {command: [alive]}}";
    let ready = "{port: http}";
    let of = |probe: &str, field: &str| format!("spec.containers[0].{probe}Probe{field}");
    let one_way = of("liveness", ": must have exactly one of exec");
    let cases = [
        (live, "{periodSeconds: 3}", one_way.clone()),
        (
            live,
            "{exec: {command: [a]}, tcpSocket: {port: 1}}",
            one_way,
        ),
        (
            live,
            "{exec: {}}",
            of("liveness", ".exec.command: is required"),
        ),
        (
            live,
            "{tcpSocket: {port: 0}}",
            of("liveness", ".tcpSocket.port: 0 must be a port"),
        ),
        (
            live,
            "{tcpSocket: {port: a_b}}",
            of("liveness", ".tcpSocket.port: \"a_b\" must be"),
        ),
        (
            live,
            "{exec: {command: [a]}, timeoutSeconds: -1}",
            of("liveness", ".timeoutSeconds: -1 must be at least 0"),
        ),
        (
            live,
            "{exec: {command: [a]}, successThreshold: 2}",
            of("liveness", ".successThreshold: 2 must be 1"),
        ),
        (
            live,
            "{exec: {command: [a]}, terminationGracePeriodSeconds: 0}",
            of(
                "liveness",
                ".terminationGracePeriodSeconds: 0 must be at least 1",
            ),
        ),
        (
            ready,
            "{port: http}, terminationGracePeriodSeconds: 3",
            of(
                "readiness",
                ".terminationGracePeriodSeconds: 3 must be absent",
            ),
        ),
        (
            ready,
            "{port: http, scheme: http}",
            of(
                "readiness",
                ".httpGet.scheme: \"http\" must be HTTP or HTTPS",
            ),
        ),
        (
            ready,
            "{port: http, httpHeaders: [{name: a b, value: c}]}",
            of("readiness", ".httpGet.httpHeaders[0].name: \"a b\" must"),
        ),
        (
            ready,
            "{port: http, httpHeaders: [{name: a, value: \"b\\nc\"}]}",
            of("readiness", ".httpGet.httpHeaders[0].value: \"b\\nc\" must"),
        ),
        (
            "{port: 9000}",
            "{port: 70000}",
            of("startup", ".grpc.port: 70000 must be a port"),
        ),
    ];
    for (from, to, expected) in cases {
        check(POD, &[(from, to, &expected)]);
    }
}

#[test]
fn the_hosts_of_probes_break_the_baseline() {
    use crate::validate::pod_security::Level;
    let text = POD.replace("{port: http}", "{port: http, host: 169.254.169.254}");
    let object = read(&text);
    let Some(Kind::Pod(pod)) = object.kind else {
        panic!("{text}");
    };
    let spec = pod.spec.unwrap();
    assert!(Level::Privileged.violations("spec", &spec).is_empty());
    let found = Level::Baseline.violations("spec", &spec);
    let found: Vec<_> = found.iter().map(Violation::to_string).collect();
    let field = "spec.containers[0].readinessProbe.httpGet.host: 169.254.169.254 must be absent";
    assert!(found.len() == 1 && found[0].starts_with(field), "{found:?}");
}
