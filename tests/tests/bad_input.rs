//! Bad input: each a clear error, with nothing changed.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt};

use barge_tests::{Cluster, Managers, eventually, said};

const GOOD: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
      - name: web
        image: my-app:1.0
";

#[test]
fn manifests_that_are_wrong_are_refused_with_the_field_and_change_nothing() {
    let managers = Managers::up(1);
    let before = String::from_utf8(
        managers
            .try_barge(&["get", "deployments", "-A", "-o", "yaml"])
            .stdout,
    );
    let cases: &[(&str, String, &[&str])] = &[
        (
            "an unknown field",
            GOOD.replace("replicas: 1", "replica: 1"),
            &["6:", "replica", "replicas"],
        ),
        (
            "a wrong type",
            GOOD.replace("replicas: 1", "replicas: three"),
            &["6:", "replicas", "whole number"],
        ),
        (
            "another case",
            GOOD.replace("matchLabels", "match_labels"),
            &["8:", "match_labels", "matchLabels"],
        ),
        (
            "labels that the selector does not match",
            GOOD.replace("        app: web", "        app: other"),
            &["spec.template.metadata.labels", "selector"],
        ),
        (
            "negative replicas",
            GOOD.replace("replicas: 1", "replicas: -1"),
            &["spec.replicas", "-1"],
        ),
        (
            "one name twice",
            format!("{GOOD}---\n{GOOD}"),
            &["web", "twice"],
        ),
        (
            "an unknown kind",
            GOOD.replace("Deployment", "Deploiment"),
            &["Deploiment", "Deployment"],
        ),
        (
            "a field that Barge does not have",
            GOOD.replace(
                "      containers:",
                "      runtimeClassName: kata\n      containers:",
            ),
            &["runtimeClassName", "15:"],
        ),
        (
            "a wrong quantity",
            format!("{GOOD}        resources:\n          requests:\n            cpu: lots\n"),
            &["cpu", "lots"],
        ),
        (
            "a second document that is wrong",
            format!(
                "{GOOD}---\napiVersion: v1\nkind: Service\nmetadata:\n  name: x\nspec:\n  ports:\n  - port: 99999\n"
            ),
            &["port", "99999"],
        ),
    ];
    for (what, manifest, words) in cases {
        let file = managers.dir().join("bad.yaml");
        fs::write(&file, manifest).expect("write a manifest");
        let output = managers.try_barge(&["apply", "-f", file.to_str().expect("a plain path")]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {text}");
        for word in *words {
            assert!(text.contains(word), "{what}: no {word:?} in: {text}");
        }
        assert!(!text.contains("panicked"), "{what}: {text}");
    }
    let after = String::from_utf8(
        managers
            .try_barge(&["get", "deployments", "-A", "-o", "yaml"])
            .stdout,
    );
    assert_eq!(before, after, "nothing has changed");

    let usage = managers.try_barge(&["scale", "deployment/web"]);
    assert_eq!(usage.status.code(), Some(2), "{}", said(&usage));
    let missing = managers.try_barge(&["get", "deployment", "web"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        said(&missing).contains("web") && said(&missing).contains("not found"),
        "{}",
        said(&missing)
    );
}

#[test]
fn wrong_tokens_certificates_and_folders_are_refused() {
    let mut managers = Managers::prepare(3);
    managers.start(0, &["--bootstrap"]);
    managers.wait_for_voters(1);
    let mode = fs::metadata(managers.config())
        .expect("the credential")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let file = managers.dir().join("token");
    let join = |managers: &Managers, index: usize, token: &str| {
        fs::write(&file, token).expect("write a token");
        let (to, file) = (managers.address(0), file.display().to_string());
        said(
            &managers
                .command(index, &["--join", &to, "--token-file", &file])
                .output()
                .expect("run a manager"),
        )
    };
    let good = managers.token("manager");

    let text = join(&managers, 1, "nonsense");
    assert!(text.contains("token"), "{text}");
    let mut wrong = good.clone();
    let last = if wrong.ends_with('0') { '1' } else { '0' };
    wrong.pop();
    wrong.push(last);
    let text = join(&managers, 1, &wrong);
    assert!(
        text.contains("token") && text.contains("refused"),
        "a wrong secret: {text}"
    );
    // Another cluster's CA: the joiner leaves before it says its secret.
    let digest = good.split('-').nth(1).expect("a digest").to_owned();
    let other: String = digest.chars().rev().collect();
    let text = join(&managers, 1, &good.replace(&digest, &other));
    assert!(
        text.contains("CA") && text.contains("another cluster"),
        "a wrong CA: {text}"
    );
    let text = join(&managers, 1, &managers.token("agent"));
    assert!(
        text.contains("agent"),
        "an agent's token for a manager: {text}"
    );

    let expired = managers.try_barge(&["token", "create", "--role", "manager", "--ttl", "1s"]);
    let expired = said(&expired)
        .split_whitespace()
        .find(|word| word.starts_with("barge1-"))
        .expect("a token")
        .to_owned();
    eventually("the token expires", || {
        let tokens = said(&managers.try_barge(&["token", "list"]));
        if tokens.contains("expired") || !tokens.contains(expired.split('-').nth(2).expect("an id"))
        {
            Ok(())
        } else {
            Err(tokens)
        }
    });
    let text = join(&managers, 1, &expired);
    assert!(
        text.contains("expired") || text.contains("unknown"),
        "an expired token: {text}"
    );

    // Used once, it is used up: the second machine is refused.
    fs::write(&file, &good).expect("write a token");
    let (to, path) = (managers.address(0), file.display().to_string());
    managers.start(1, &["--join", &to, "--token-file", &path]);
    managers.wait_for_state(1, "learner");
    let text = join(&managers, 2, &good);
    assert!(
        text.contains("token") && text.contains("used up"),
        "a token used twice: {text}"
    );

    // A folder that another process uses, and no flags at all on an empty folder.
    let output = managers
        .command(0, &["--bootstrap"])
        .output()
        .expect("run a manager");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("in use"), "{}", said(&output));
    let output = managers.command(2, &[]).output().expect("run a manager");
    assert!(
        said(&output).contains("--bootstrap") && said(&output).contains("--join"),
        "{}",
        said(&output)
    );
}

#[test]
fn workloads_that_cannot_run_say_why() {
    let cluster = Cluster::up("cannot_run", 1, 1);
    let file = cluster.write(
        "missing.yaml",
        &GOOD.replace("my-app:1.0", "no-such-app:1.0"),
    );
    cluster.barge(&["apply", "-f", file.to_str().expect("a plain path")]);
    eventually("the image's error with its name", || {
        let text = cluster.barge(&["describe", "deployment", "web"])
            + &cluster.barge(&["get", "pods"])
            + &cluster.barge(&["events"]);
        let whole = text.contains("no-such-app:1.0")
            && text.contains("no such image")
            && text.contains("ImagePull");
        if whole { Ok(()) } else { Err(text) }
    });
    let big = format!(
        "{}        resources:\n          requests:\n            cpu: \"1000\"\n",
        GOOD.replace("web", "big")
    );
    let file = cluster.write("big.yaml", &big);
    cluster.barge(&["apply", "-f", file.to_str().expect("a plain path")]);
    eventually("why it is not placed", || {
        let events = cluster.barge(&["events"]);
        if events.contains("0/1 nodes are available") && events.contains("cpu") {
            Ok(())
        } else {
            Err(events)
        }
    });
    let output = cluster.try_barge(&[
        "apply",
        "--wait",
        "--timeout",
        "2s",
        "-f",
        file.to_str().expect("a plain path"),
    ]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("0/1 nodes are available"),
        "a wait that times out says why: {text}"
    );
}
