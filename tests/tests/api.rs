//! Sharing, rolling and deleting objects, as people do it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use barge_tests::{Managers, eventually, said};

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
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
        image: web:1
";

/// Runs `barge`, which has to end with this code, and answers what it said.
fn barge(managers: &Managers, code: i32, arguments: &[&str]) -> String {
    let output = managers.try_barge(arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

fn write(managers: &Managers, name: &str, text: &str) -> String {
    let file = managers.dir().join(name);
    fs::write(&file, text).expect("write a manifest");
    file.to_str().expect("a plain path").to_owned()
}

fn get(managers: &Managers, path: &str) -> serde_json::Value {
    let arguments = [
        "get",
        "deployment",
        "web",
        "-o",
        "json",
        "--show-managed-fields",
    ];
    let text = barge(managers, 0, &arguments);
    let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    object.pointer(path).cloned().unwrap_or_default()
}

#[test]
fn share_an_object() {
    let managers = Managers::up(1);
    let web = write(&managers, "web.yaml", WEB);
    let diff = barge(&managers, 1, &["diff", "-f", &web]);
    assert!(diff.contains("+  name: web"), "{diff}");
    barge(&managers, 0, &["apply", "-f", &web]);
    assert_eq!(barge(&managers, 0, &["diff", "-f", &web]), "");
    let other = write(&managers, "other.yaml", &WEB.replace("web:1", "web:2"));
    let diff = barge(&managers, 1, &["diff", "-f", &other]);
    assert!(
        diff.contains("image: web:1") && diff.contains("image: web:2"),
        "{diff}"
    );

    // Another party owns the number of replicas.
    let scale = [
        "scale",
        "deployment/web",
        "--replicas",
        "5",
        "--field-manager",
        "autoscaler",
    ];
    barge(&managers, 0, &scale);
    let conflict = barge(&managers, 1, &["apply", "-f", &web]);
    for part in [
        "web.yaml:6:",
        "spec.replicas",
        "autoscaler",
        "5",
        "--force-conflicts",
    ] {
        assert!(conflict.contains(part), "{part}: {conflict}");
    }
    assert!(barge(&managers, 2, &["diff", "-f", &web]).contains("autoscaler"));
    assert_eq!(get(&managers, "/spec/replicas"), 5);
    let without = write(
        &managers,
        "without.yaml",
        &WEB.replace("  replicas: 3\n", ""),
    );
    barge(&managers, 0, &["apply", "-f", &without]);
    assert_eq!(
        get(&managers, "/spec/replicas"),
        5,
        "nobody said anything else"
    );
    barge(&managers, 0, &["apply", "--force-conflicts", "-f", &web]);
    assert_eq!(get(&managers, "/spec/replicas"), 3);

    // A part of the object, in another name, comes and goes.
    let label = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  labels:\n    team: blue\n";
    let part = write(&managers, "part.yaml", label);
    barge(
        &managers,
        0,
        &["apply", "--field-manager", "ci", "-f", &part],
    );
    barge(&managers, 0, &["apply", "-f", &web]);
    assert_eq!(get(&managers, "/metadata/labels/team"), "blue");
    let none = write(
        &managers,
        "part.yaml",
        &label[..label.find("  labels").unwrap()],
    );
    barge(
        &managers,
        0,
        &["apply", "--field-manager", "ci", "-f", &none],
    );
    assert_eq!(get(&managers, "/metadata/labels"), serde_json::Value::Null);

    // What was read changes nothing; what has changed since it was read is not overwritten.
    let read = barge(&managers, 0, &["get", "deployment", "web", "-o", "yaml"]);
    assert!(!read.contains("managedFields"), "{read}");
    let read = write(&managers, "read.yaml", &read);
    let again = barge(&managers, 0, &["apply", "-f", &read]);
    assert!(again.contains("unchanged"), "{again}");
    barge(&managers, 0, &["rollout", "pause", "deployment/web"]);
    let stale = barge(&managers, 1, &["apply", "-f", &read]);
    assert!(stale.contains("resourceVersion is"), "{stale}");
    let stale = barge(
        &managers,
        1,
        &["delete", "deployment/web", "--resource-version", "1"],
    );
    assert!(stale.contains("resourceVersion is"), "{stale}");

    // A dry run is refused what the real one would be, and changes nothing. The controller has to be done with the pause first.
    eventually("the pause is observed", || {
        let [wanted, seen] =
            ["/metadata/generation", "/status/observedGeneration"].map(|it| get(&managers, it));
        match wanted == seen {
            true => Ok(()),
            false => Err(format!("{wanted} {seen}")),
        }
    });
    let version = get(&managers, "/metadata/resourceVersion");
    let dry = barge(
        &managers,
        0,
        &["apply", "--dry-run", "server", "-f", &other],
    );
    assert!(dry.contains("configured (dry run)"), "{dry}");
    barge(
        &managers,
        0,
        &["delete", "deployment/web", "--dry-run", "server"],
    );
    let lost = write(
        &managers,
        "lost.yaml",
        &WEB.replace("name: web\nspec", "name: web\n  namespace: nowhere\nspec"),
    );
    barge(&managers, 1, &["apply", "--dry-run", "server", "-f", &lost]);
    assert_eq!(get(&managers, "/metadata/resourceVersion"), version);
}

#[test]
fn roll_back_and_delete() {
    let managers = Managers::up(1);
    let web = write(&managers, "web.yaml", WEB);
    barge(&managers, 0, &["apply", "-f", &web]);
    let other = write(&managers, "other.yaml", &WEB.replace("web:1", "web:2"));
    let pods = |selector: &[&str]| {
        let arguments = [&["get", "pods", "-o", "name"], selector].concat();
        barge(&managers, 0, &arguments)
            .lines()
            .filter(|l| l.starts_with("pod/"))
            .count()
    };
    eventually("the pods of the first template", || match pods(&[]) {
        3 => Ok(()),
        other => Err(format!("{other} pods")),
    });
    barge(&managers, 0, &["rollout", "pause", "deployment/web"]);
    barge(&managers, 0, &["apply", "-f", &other]);
    let paused = barge(
        &managers,
        1,
        &["rollout", "status", "deployment/web", "--timeout", "60s"],
    );
    assert!(paused.contains("resume"), "{paused}");
    barge(&managers, 0, &["rollout", "resume", "deployment/web"]);
    eventually("the second template", || {
        let history = barge(&managers, 0, &["rollout", "history", "deployment/web"]);
        let rows = history.lines().filter(|line| line.contains("web:")).count();
        (rows == 2).then_some(()).ok_or(history)
    });
    let second = barge(
        &managers,
        0,
        &["rollout", "history", "deployment/web", "--revision", "2"],
    );
    assert!(second.contains("image: web:2"), "{second}");
    barge(&managers, 0, &["rollout", "undo", "deployment/web"]);
    let image = "/spec/template/spec/containers/0/image";
    assert_eq!(get(&managers, image), "web:1");
    let unknown = barge(
        &managers,
        1,
        &["rollout", "undo", "deployment/web", "--to-revision", "9"],
    );
    assert!(unknown.contains("no revision 9"), "{unknown}");
    barge(&managers, 0, &["rollout", "restart", "deployment/web"]);
    barge(&managers, 0, &["apply", "-f", &web]);
    let restarted = "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt";
    assert!(
        get(&managers, restarted).is_string(),
        "an apply does not take a restart back"
    );

    // The pods wait for a node, so they would go at once with their Deployment.
    eventually("three pods", || {
        match pods(&["--field-selector", "status.phase=Pending"]) {
            3 | 4 => Ok(()),
            other => Err(format!("{other} pods")),
        }
    });
    let wrong = barge(
        &managers,
        1,
        &["get", "deployments", "--field-selector", "status.phase=x"],
    );
    assert!(wrong.contains("metadata.name"), "{wrong}");
    barge(
        &managers,
        0,
        &["delete", "deployment/web", "--cascade", "orphan"],
    );
    let orphans = pods(&["-l", "app=web"]);
    assert!(orphans >= 3, "{orphans} pods are left");
    barge(&managers, 0, &["apply", "-f", &web]);
    barge(
        &managers,
        0,
        &["delete", "deployment/web", "--cascade", "foreground"],
    );
    assert_eq!(pods(&["-l", "app=web"]), orphans);
}

#[test]
fn change_an_object_that_is_there() {
    let managers = Managers::up(1);
    let run = |code, line: &str| {
        let arguments: Vec<_> = line.split(' ').collect();
        barge(&managers, code, &arguments)
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n---\n";
    let web = WEB.replacen("  name: web\n", "  name: web\n  namespace: shop\n", 1);
    let shop = write(&managers, "shop.yaml", &format!("{namespace}{web}"));
    run(0, &format!("apply -f {shop}"));
    let refused = run(1, &format!("apply -f {shop} -n other"));
    assert!(
        refused.contains("shop.yaml:10:") && refused.contains("-n says \"other\""),
        "{refused}"
    );

    run(0, "label deploy web -n shop tier=front");
    let refused = run(1, "label deployment/web -n shop tier=back");
    assert!(
        refused.contains("tier is \"front\" already, not \"back\""),
        "{refused}"
    );
    run(0, "annotate deployments --all -n shop owner=ann");
    run(0, "set image deployment/web -n shop *=web:2");
    let args = "spec:{template:{spec:{containers:[{name:web,args:[a]}]}}}".replace(':', ": ");
    let patch = ["patch", "deployment", "web", "-n", "shop", "-p", &args];
    barge(&managers, 0, &patch);
    let json = r#"[{"op":"replace","path":"/spec/replicas","value":2}]"#;
    run(
        0,
        &format!("patch deploy/web -n shop --type json -p {json}"),
    );
    let container = ".spec.template.spec.containers[0]";
    let template = format!(
        "jsonpath={{.metadata.labels.tier}}-{{.metadata.annotations.owner}}-{{.spec.replicas}}-{{{container}.image}}-{{{container}.args[0]}}"
    );
    let seen = || run(0, &format!("get deploy web -n shop -o {template}"));
    assert_eq!(seen(), "front-ann-2-web:2-a");
    // A manifest sets what it says, and keeps what it leaves out.
    run(0, &format!("apply -f {shop}"));
    assert_eq!(seen(), "front-ann-3-web:1-a");

    // It is the user's, although it begins as the managers' own.
    let roll = "barge.dev/roll-on-config-change";
    run(0, &format!("annotate deploy/web -n shop {roll}=true"));
    let yaml = run(0, "get deploy web -n shop -o yaml");
    assert!(yaml.contains(roll), "{yaml}");
    run(
        1,
        &format!("annotate deploy/web -n shop --overwrite {roll}=yes"),
    );
    // What a shell makes of a variable that is not set means nothing, and not everything.
    barge(&managers, 2, &["delete", "deployments", "--all", "-n", ""]);
    let blank = ["delete", "deployments", "-n", "shop", "-l", ""];
    barge(&managers, 2, &blank);
    run(0, "get deploy web -n shop");
    let kept = [
        "patch",
        "deploy/web",
        "-n",
        "shop",
        "-p",
        "metadata: {finalizers: [a]}",
    ];
    let refused = barge(&managers, 1, &kept);
    assert!(refused.contains("metadata.finalizers"), "{refused}");

    let config = managers.config_of(&[0]);
    let mut edit = managers.barge_command(&config, &["edit", "deploy", "web", "-n", "shop"]);
    edit.env("KUBE_EDITOR", "sed -i 's/replicas: 3/replicas: 4/'");
    let output = edit.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(seen(), "front-ann-4-web:1-a");
    // One who edits what has changed meanwhile is refused, and loses nothing.
    let mut edit = managers.barge_command(&config, &["edit", "deploy", "web", "-n", "shop"]);
    edit.env(
        "KUBE_EDITOR",
        "sed -i -e 's/replicas: 4/replicas: 5/' -e 's/resourceVersion: .*/resourceVersion: \"1\"/'",
    );
    let output = edit.output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let kept = text.split_once("is kept in ").unwrap().1;
    let kept = kept.split_once(": ").unwrap().0;
    let kept_text = fs::read_to_string(kept).unwrap();
    assert!(kept_text.contains("replicas: 5"), "{kept_text}");
    fs::remove_file(kept).unwrap();

    let wait = "wait deployment/web -n shop --for jsonpath={.spec.replicas}=4";
    let met = run(0, wait);
    assert!(met.contains("deployment.apps/web condition met"), "{met}");
    let late = run(
        1,
        "wait deploy --all -n shop --for condition=Available --timeout 0s",
    );
    assert!(late.contains("deployments/web"), "{late}");

    run(0, &format!("delete -f {shop}"));
    let none = run(0, "get all -n shop");
    assert!(none.contains("found in namespace shop"), "{none}");
    run(1, "get namespace shop");
}
