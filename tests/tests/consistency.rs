//! What readers of long lists, watchers and impatient clients may rely on.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use barge_client::{
    ApplyOptions, Client, ClientOptions, DeleteOptions, Selection, UpdateOptions, WatchEvent,
    channel::{ChannelOptions, channel},
    config::Config,
    tls,
    v1::{
        ApplyRequest, Kind, ListRequest, Namespace, Object, ObjectMeta, RequestId, ScaleRequest,
        WatchRequest, api_client::ApiClient, object,
    },
};
use barge_proto::manifest::{self, Source};
use barge_tests::Managers;
use tonic::{Code, Status, transport::Channel};

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

/// A Deployment that makes no pods.
fn deployment() -> Object {
    let text = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  paused: true
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'web:1'}]}
";
    let mut objects = manifest::parse([Source::new("test", text)]).expect("a manifest");
    objects.remove(0).object
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
                    .apply(objects, &ApplyOptions::default())
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
                .delete(Kind::Namespace, "", &name, &DeleteOptions::default())
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
    let leader = managers.leader();
    let (created, scaled, seen) = runtime().block_on(async {
        let web = deployment();
        let first = client(&managers, leader);
        first
            .apply(vec![web], &ApplyOptions::default())
            .await
            .unwrap();
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
        let Some(object::Kind::Deployment(found)) = found.kind else {
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

#[test]
fn who_is_slower_than_the_history_is_told_and_the_library_goes_on() {
    // Far more, together, than the history and all buffers on the way hold.
    const WRITES: u32 = 250;
    const BYTES: usize = 200_000;
    let managers = Managers::up(1);
    runtime().block_on(async {
        let client = client(&managers, 0);
        let mut api = bare(&managers, 0);
        let request = WatchRequest {
            kind: Kind::Namespace.into(),
            ..WatchRequest::default()
        };
        let mut idle = api.watch(request).await.unwrap().into_inner();
        let mut watcher = client.list_and_watch(Selection::of(Kind::Namespace, ""));
        while !matches!(watcher.next().await.unwrap(), WatchEvent::Synced { .. }) {}
        let mut pages = list_one();
        client
            .apply(vec![namespace("a", 0)], &ApplyOptions::default())
            .await
            .unwrap();
        pages.r#continue = client.list_page(pages.clone()).await.unwrap().r#continue;
        assert_ne!(pages.r#continue, "");
        for value in 0..WRITES {
            let mut big = namespace("big", value);
            let annotations = &mut big.metadata_mut().unwrap().annotations;
            annotations.insert("big".to_owned(), "x".repeat(BYTES));
            client
                .apply(vec![big], &ApplyOptions::default())
                .await
                .unwrap();
        }
        // What was on its way still comes, in order; then the end, which says why.
        let mut seen = 0;
        let cut = loop {
            match idle.message().await {
                Ok(Some(message)) => {
                    assert!(
                        message.revision > seen || seen == 0,
                        "{} after {seen}",
                        message.revision
                    );
                    seen = message.revision;
                }
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(cut.code(), Code::OutOfRange, "{cut}");
        assert!(cut.message().contains("slower than the history"), "{cut}");
        // A list that was left half read is as old.
        let expired = client.list_page(pages).await.unwrap_err();
        assert_eq!(expired.reason(), Some("EXPIRED"), "{expired}");
        // The library did not read either; it lists again.
        let last = (WRITES - 1).to_string();
        loop {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) =
                watcher.next().await.unwrap()
                && object.metadata().labels.get("v") == Some(&last)
            {
                break;
            }
        }
    });
}
