//! Requests beneath the client library and `barge`, which look before they ask.

use std::path::Path;

use barge_client::v1::{
    ApplyRequest, DeleteRequest, GetRequest, Kind, ListRequest, LogsRequest, Object, ObjectMeta,
    RolloutHistoryRequest, RolloutRequest, ScaleRequest, Secret, WatchRequest,
    api_client::ApiClient, logs_client::LogsClient, rollout_request::Action,
};
use barge_tests::raw;
use tonic::{Code, Status};

/// What somebody without any right is told by every RPC that is about objects; a new one belongs in this list.
pub async fn of_objects(config: &Path, address: &str) -> Vec<(&'static str, Option<Code>)> {
    let channel = raw::channels(config, address, 1)
        .expect("connect")
        .remove(0);
    let mut api = ApiClient::new(channel.clone());
    let (kind, name, namespace) = (Kind::Deployment.into(), "web".to_owned(), "shop".to_owned());
    let code = |answer: Option<Status>| answer.map(|status| status.code());
    let get = GetRequest {
        kind,
        name: name.clone(),
        namespace: namespace.clone(),
        stale: false,
        custom: None,
    };
    let stale = GetRequest {
        stale: true,
        ..get.clone()
    };
    let list = ListRequest {
        kind,
        namespace: namespace.clone(),
        ..ListRequest::default()
    };
    let watch = WatchRequest {
        kind,
        namespace: namespace.clone(),
        ..WatchRequest::default()
    };
    let delete = DeleteRequest {
        kind,
        name: name.clone(),
        namespace: namespace.clone(),
        ..DeleteRequest::default()
    };
    let scale = ScaleRequest {
        kind,
        name: name.clone(),
        namespace: namespace.clone(),
        ..ScaleRequest::default()
    };
    let rollout = RolloutRequest {
        kind,
        name: name.clone(),
        namespace: namespace.clone(),
        action: Some(Action::Restart(true)),
        ..RolloutRequest::default()
    };
    let history = RolloutHistoryRequest {
        kind,
        name: name.clone(),
        namespace: namespace.clone(),
    };
    let apply = ApplyRequest {
        objects: vec![raw::namespace("mine", "")],
        ..ApplyRequest::default()
    };
    let logs = LogsRequest {
        pod: name,
        namespace,
        ..LogsRequest::default()
    };
    vec![
        ("apply", code(api.apply(apply).await.err())),
        ("get", code(api.get(get).await.err())),
        ("get stale", code(api.get(stale).await.err())),
        ("list", code(api.list(list).await.err())),
        ("delete", code(api.delete(delete).await.err())),
        ("watch", code(api.watch(watch).await.err())),
        ("scale", code(api.scale(scale).await.err())),
        ("rollout", code(api.rollout(rollout).await.err())),
        (
            "rollout history",
            code(api.rollout_history(history).await.err()),
        ),
        (
            "logs",
            code(LogsClient::new(channel).read(logs).await.err()),
        ),
    ]
}

/// The Secret db after a label was added to it, as the answer shows it.
pub async fn labelled(config: &Path, address: &str, dry_run: bool) -> Result<Object, Status> {
    let channel = raw::channels(config, address, 1)
        .expect("connect")
        .remove(0);
    let secret = Secret {
        metadata: Some(ObjectMeta {
            name: "db".into(),
            namespace: "shop".into(),
            labels: [("seen".to_owned(), "yes".to_owned())].into(),
            ..ObjectMeta::default()
        }),
        r#type: "Opaque".into(),
        ..Secret::default()
    };
    let request = ApplyRequest {
        objects: vec![secret.into()],
        dry_run,
        field_manager: "labeller".into(),
        ..ApplyRequest::default()
    };
    let answer = ApiClient::new(channel).apply(request).await?.into_inner();
    Ok(answer.results[0].object.clone().expect("the object"))
}
