//! Init containers, sidecars, hooks, deadlines and last words.

use super::*;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  activeDeadlineSeconds: 30
  initContainers:
  - {name: first, image: 'a:1'}
  - {name: side, image: 'a:1', restartPolicy: Always, lifecycle: {stopSignal: SIGRTMIN+3}}
  containers:
  - name: web
    image: a:1
    lifecycle: {postStart: {exec: {command: [a]}}, preStop: {httpGet: {port: 80}}}
    terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: File
";

#[test]
fn what_a_life_may_hold_is_taken_and_its_defaults_stay_absent() {
    assert_eq!(after(POD, "name: web", "name: web"), [""; 0]);
    let text = manifest::to_yaml(&read(POD)).unwrap();
    assert!(!text.contains("terminationMessage"), "{text}");
    let hook = "preStop:\n        httpGet:\n          path: /\n          port: 80\n          scheme: HTTP\n";
    assert!(text.contains(hook), "{text}");
}

#[test]
fn lives_have_rules() {
    let side = "spec.initContainers[1]";
    let first = "spec.initContainers[0]";
    let web = "spec.containers[0]";
    let cases = [
        (
            "Seconds: 30",
            "Seconds: 0",
            "spec.activeDeadlineSeconds: 0 must be at least 1".to_owned(),
        ),
        (
            "restartPolicy: Always",
            "restartPolicy: Never",
            format!("{side}.restartPolicy: \"Never\" must be Always, or absent"),
        ),
        (
            "restartPolicy: Always, ",
            "",
            format!("{side}.lifecycle: must be absent for an init container"),
        ),
        (
            "name: first,",
            "readinessProbe: {tcpSocket: {port: 1}}, name: first,",
            format!("{first}.readinessProbe: must be absent for an init container"),
        ),
        (
            "name: first",
            "name: web",
            format!("{web}.name: \"web\" is the name of another container, too"),
        ),
        (
            "SIGRTMIN+3",
            "SIGSOON",
            format!("{side}.lifecycle.stopSignal: \"SIGSOON\" is no signal of Linux"),
        ),
        (
            "  - name: web",
            "  - restartPolicy: Always\n    name: web",
            format!("{web}.restartPolicy: \"Always\" must be absent"),
        ),
        (
            "{command: [a]}",
            "{}",
            format!("{web}.lifecycle.postStart.exec.command: is required"),
        ),
        (
            "{exec: {command: [a]}}",
            "{}",
            format!("{web}.lifecycle.postStart: must have exactly one of exec, httpGet and sleep"),
        ),
        (
            "{exec: {command: [a]}}",
            "{sleep: {seconds: -1}}",
            format!("{web}.lifecycle.postStart.sleep.seconds: -1 must be at least 0"),
        ),
        (
            "/dev/termination-log",
            "../log",
            format!("{web}.terminationMessagePath: \"../log\" must be an absolute path"),
        ),
        (
            "Policy: File",
            "Policy: Log",
            format!("{web}.terminationMessagePolicy: \"Log\" must be"),
        ),
    ];
    for (from, to, expected) in cases {
        let found = after(POD, from, to);
        assert!(
            found.iter().any(|it| it.starts_with(&expected)),
            "{to}: {found:?} {expected}"
        );
    }
}

#[test]
fn a_deployment_has_no_deadline() {
    let found = after(
        DEPLOYMENT,
        "    spec:\n",
        "    spec:\n      activeDeadlineSeconds: 1\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("spec.template.spec.activeDeadlineSeconds: 1 must be absent"));
}
