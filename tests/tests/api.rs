//! What writers of one object, readers of long lists and impatient clients may rely on.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, process::Output, time::Duration};

use barge_client::{
    Client, ClientOptions, UpdateOptions,
    channel::{ChannelOptions, channel},
    config::Config,
    tls,
    v1::{
        ApplyRequest, Kind, ListRequest, Namespace, Object, ObjectMeta, RequestId, ScaleRequest,
        api_client::ApiClient,
    },
};
use barge_tests::{Managers, eventually};
use tonic::{Status, transport::Channel};

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

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

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

    // A dry run is refused what the real one would be, and changes nothing.
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("start a runtime")
}

fn config(managers: &Managers, index: usize) -> Config {
    Config::load(&managers.config_for(index)).expect("read the credential")
}

/// A client of one manager.
fn client(managers: &Managers, index: usize) -> Client {
    let config = config(managers, index);
    let context = config.context(None).expect("a context");
    let options = ClientOptions {
        deadline: Duration::from_secs(60),
        ..ClientOptions::default()
    };
    Client::from_context(context, options).expect("make a client")
}

/// A bare connection to one manager: what is sent is sent once.
fn bare(managers: &Managers, index: usize) -> ApiClient<Channel> {
    let config = config(managers, index);
    let identity = config.context(None).unwrap().identity().unwrap();
    let tls = tls::client_config(&identity).expect("use the credential");
    let options = ChannelOptions::default();
    ApiClient::new(channel(&managers.address(index), tls, &options).expect("an address"))
}

fn namespace(name: &str, label: u32) -> Object {
    Namespace {
        metadata: Some(ObjectMeta {
            name: name.to_owned(),
            labels: [("v".to_owned(), label.to_string())].into(),
            ..ObjectMeta::default()
        }),
        ..Namespace::default()
    }
    .into()
}

#[test]
fn a_long_list_is_of_one_revision() {
    let managers = Managers::up(1);
    runtime().block_on(async {
        let client = client(&managers, 0);
        let apply = |from: u32, to: u32, label| {
            let objects = (from..to)
                .map(|n| namespace(&format!("n{n:03}"), label))
                .collect();
            let client = client.clone();
            async move {
                client
                    .apply(objects, &Default::default())
                    .await
                    .unwrap()
                    .revision
            }
        };
        let revision = apply(0, 30, 1).await;
        let mut request = ListRequest {
            kind: Kind::Namespace.into(),
            label_selector: "v=1".to_owned(),
            limit: 7,
            ..ListRequest::default()
        };
        let mut listed = Vec::new();
        for page in 0.. {
            let answer = client.list_page(request.clone()).await.unwrap();
            assert_eq!(answer.revision, revision);
            listed.extend(answer.objects);
            if answer.r#continue.is_empty() {
                break;
            }
            request.r#continue = answer.r#continue;
            // Some change, some come, some go, before and behind the place where the next page begins.
            apply(page * 3, page * 3 + 20, 2).await;
            apply(30 + page, 40 + page, 1).await;
            let name = format!("n{:03}", 29 - page);
            client
                .delete(Kind::Namespace, "", &name, &Default::default())
                .await
                .unwrap();
        }
        let names: Vec<_> = listed.iter().map(Object::name).collect();
        let expected: Vec<_> = (0..30).map(|n| format!("n{n:03}")).collect();
        assert_eq!(names, expected);
        assert!(
            listed
                .iter()
                .all(|object| object.metadata().labels["v"] == "1")
        );
    });
}

#[test]
fn a_retry_over_a_change_of_leader_applies_once() {
    let mut managers = Managers::up(3);
    let web = write(&managers, "web.yaml", WEB);
    barge(&managers, 0, &["apply", "-f", &web]);
    let leader = managers.leader();
    let (created, scaled, seen) = runtime().block_on(async {
        let mut api = bare(&managers, leader);
        let seen = api.list(list_one()).await.unwrap().into_inner().revision;
        let created = api.apply(create(seen)).await.unwrap().into_inner();
        let scaled = api.scale(scale(seen)).await.unwrap().into_inner();
        (created, scaled, seen)
    });
    managers.kill(leader);
    let survivor = (leader + 1) % 3;
    runtime().block_on(async {
        let client = client(&managers, survivor);
        // Somebody else scaled since, once there was a leader again; the repetition must not take that back.
        let options = UpdateOptions::default();
        let now = client.scale(Kind::Deployment, "default", "web", 1, &options);
        now.await.unwrap();
        let mut api = bare(&managers, survivor);
        let again = api.apply(create(seen)).await.unwrap().into_inner();
        assert_eq!(again.revision, created.revision, "the answer of then");
        let again = api.scale(scale(seen)).await.unwrap().into_inner();
        assert_eq!(again.revision, scaled.revision);
        let found = client
            .get(Kind::Deployment, "default", "web")
            .await
            .unwrap();
        let Some(barge_client::v1::object::Kind::Deployment(found)) = found.kind else {
            panic!("another kind");
        };
        assert_eq!(found.spec.unwrap().replicas, Some(1));
        // The id of one request is none for another.
        let reused = ScaleRequest {
            replicas: 9,
            ..scale(seen)
        };
        let status: Status = api.scale(reused).await.unwrap_err();
        assert!(
            status.message().contains("used for another request"),
            "{status}"
        );
        // One that could not be told from a forgotten one is refused, whatever became of it.
        let late = ApplyRequest {
            objects: vec![namespace("late", 1)],
            request_id: Some(RequestId {
                nonce: vec![3; 16],
                seen_revision: u64::MAX,
            }),
            ..ApplyRequest::default()
        };
        assert!(api.apply(late).await.is_err());
        assert!(
            client
                .find(Kind::Namespace, "", "late")
                .await
                .unwrap()
                .is_none()
        );
    });
}

fn list_one() -> ListRequest {
    ListRequest {
        kind: Kind::Namespace.into(),
        limit: 1,
        ..ListRequest::default()
    }
}

fn create(seen_revision: u64) -> ApplyRequest {
    ApplyRequest {
        objects: vec![namespace("once", 1)],
        request_id: Some(RequestId {
            nonce: vec![1; 16],
            seen_revision,
        }),
        ..ApplyRequest::default()
    }
}

fn scale(seen_revision: u64) -> ScaleRequest {
    ScaleRequest {
        kind: Kind::Deployment.into(),
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        replicas: 7,
        request_id: Some(RequestId {
            nonce: vec![2; 16],
            seen_revision,
        }),
        ..ScaleRequest::default()
    }
}
