#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Whom tokens are made for, and how long they are good, by a state that changes.

use barge_proto::v1::{
    Bind, ClusterRecord, Namespace, Node, NodeSpec, NodeStatus, ObjectMeta, PodSpec, PodStatus,
    PodTemplateSpec, Revision, ServiceAccount, change::Change,
};
use barge_state::{LEVEL, node_is_ready};

use super::*;
use crate::{security::tokens::Holder, store::transaction::Draft};

const ISSUER: &str = "https://barge.local/c1";
const NOW: i64 = 1_000_000;

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        ..ObjectMeta::default()
    }
}

fn apply(state: &mut State, draft: Draft) {
    let made = state.apply(1, draft.build("test".to_owned(), None));
    assert_eq!(made.outcome.refusal, None);
    assert!(made.outcome.binds.iter().all(String::is_empty), "{made:?}");
}

/// A namespace `shop` with the account `ci`, the nodes n1 and n2, and the pods `ci-pod` (of ci) and `plain` (of nobody) on n1.
fn state() -> State {
    let mut state = State::default();
    let mut draft = Draft::new();
    draft.put(ClusterRecord {
        metadata: Some(meta("", "c1")),
        feature_level: LEVEL,
        ..ClusterRecord::default()
    });
    apply(&mut state, draft);
    let mut draft = Draft::new();
    draft.put(Namespace {
        metadata: Some(meta("", "shop")),
        ..Namespace::default()
    });
    draft.put(ServiceAccount {
        metadata: Some(meta("shop", "ci")),
        ..ServiceAccount::default()
    });
    for name in ["n1", "n2"] {
        draft.put(Node {
            metadata: Some(meta("", name)),
            spec: Some(NodeSpec::default()),
            ..Node::default()
        });
    }
    apply(&mut state, draft);
    let mut draft = Draft::new();
    for name in ["n1", "n2"] {
        let amount = |text: &str| barge_proto::v1::Quantity { value: text.into() };
        draft.put_status(Node {
            metadata: Some(meta("", name)),
            status: Some(NodeStatus {
                allocatable: [("cpu", "4"), ("memory", "4Gi"), ("pods", "10")]
                    .map(|(key, value)| (key.to_owned(), amount(value)))
                    .into(),
                conditions: vec![barge_proto::v1::Condition {
                    r#type: "Ready".into(),
                    status: "True".into(),
                    ..Default::default()
                }],
                ..NodeStatus::default()
            }),
            ..Node::default()
        });
    }
    apply(&mut state, draft);
    assert!(state.list::<Node>(None).all(|node| node_is_ready(node)));
    for (name, account) in [("ci-pod", "ci"), ("plain", "")] {
        pod(&mut state, name, account);
    }
    state
}

fn pod(state: &mut State, name: &str, account: &str) {
    let template = format!("template-{name}");
    let mut draft = Draft::new();
    draft.put(Revision {
        metadata: Some(meta("shop", &template)),
        number: 1,
        status: None,
        template: Some(PodTemplateSpec {
            metadata: None,
            spec: Some(PodSpec {
                service_account_name: account.to_owned(),
                ..PodSpec::default()
            }),
        }),
    });
    draft.put(PodRecord {
        metadata: Some(meta("shop", name)),
        template_uid: format!("uid-{template}"),
        ..PodRecord::default()
    });
    apply(state, draft);
    let mut draft = Draft::new();
    draft.change(Change::Bind(Bind {
        pod_uid: format!("uid-{name}"),
        node_uid: "uid-n1".to_owned(),
    }));
    apply(state, draft);
}

fn request(name: &str, pod: &str) -> RequestTokenRequest {
    RequestTokenRequest {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        bound_pod: (!pod.is_empty()).then(|| BoundPod {
            name: pod.to_owned(),
            uid: format!("uid-{pod}"),
        }),
        ..RequestTokenRequest::default()
    }
}

fn asked(
    state: &State,
    request: &RequestTokenRequest,
    asker: Asker<'_>,
) -> Result<Claims, ApiError> {
    claims(state, request, asker, ISSUER, NOW)
}

const N1: Asker<'static> = Asker::Agent("uid-n1");

#[test]
fn an_agent_gets_a_token_for_a_pod_of_its_own() {
    let state = state();
    let made = asked(&state, &request("ci", "ci-pod"), N1).unwrap();
    assert_eq!(made.aud, [ISSUER]);
    assert_eq!((made.iat, made.nbf, made.exp), (NOW, NOW, NOW + 3600));
    assert_eq!(made.sub, "system:serviceaccount:shop:ci");
    let bound = &made.bound;
    assert_eq!(bound.namespace, "shop");
    assert_eq!(bound.serviceaccount.uid, "uid-ci");
    assert_eq!(bound.pod.as_ref().unwrap().uid, "uid-ci-pod");
    assert_eq!(bound.node.as_ref().unwrap().name, "n1");
    assert_eq!(bound.warnafter, Some(NOW + 2880));
    let account = Holder::check(&state, &made).unwrap();
    assert_eq!(account.identity().user, made.sub);
}

#[test]
fn an_agent_gets_no_other() {
    let mut state = state();
    let refusal = |state: &State, request: &RequestTokenRequest, asker| {
        asked(state, request, asker).unwrap_err()
    };
    let elsewhere = refusal(&state, &request("ci", "ci-pod"), Asker::Agent("uid-n2"));
    assert!(matches!(elsewhere, ApiError::Denied(_)), "{elsewhere}");
    let other = refusal(&state, &request("", "ci-pod"), N1);
    assert!(matches!(other, ApiError::Denied(_)), "{other}");
    let unbound = refusal(&state, &request("ci", ""), N1);
    assert!(matches!(unbound, ApiError::Invalid(_)), "{unbound}");
    let unknown = refusal(&state, &request("ci", "nobody"), N1);
    assert!(matches!(unknown, ApiError::NotFound(_)), "{unknown}");
    let mut another = request("ci", "ci-pod");
    another.bound_pod.as_mut().unwrap().uid = "uid-plain".to_owned();
    assert!(matches!(
        refusal(&state, &another, N1),
        ApiError::NotFound(_)
    ));
    another.bound_pod.as_mut().unwrap().uid.clear();
    assert!(matches!(
        refusal(&state, &another, N1),
        ApiError::Invalid(_)
    ));

    let mut draft = Draft::new();
    draft.put_status(PodRecord {
        metadata: Some(meta("shop", "ci-pod")),
        status: Some(PodStatus {
            phase: "Succeeded".to_owned(),
            ..PodStatus::default()
        }),
        ..PodRecord::default()
    });
    apply(&mut state, draft);
    let ended = refusal(&state, &request("ci", "ci-pod"), N1);
    assert!(
        ended.to_string().contains("has ended (Succeeded)"),
        "{ended}"
    );
}

#[test]
fn life_and_audiences_have_bounds() {
    let state = state();
    let lives = |seconds| RequestTokenRequest {
        expiration_seconds: seconds,
        ..request("ci", "")
    };
    for good in [600, 3607, 86_400] {
        let made = asked(&state, &lives(good), Asker::User).unwrap();
        assert_eq!(made.exp, NOW + i64::try_from(good).unwrap());
        assert_eq!(made.bound.pod, None);
    }
    for bad in [1, 599, 86_401, u64::MAX] {
        let refused = asked(&state, &lives(bad), Asker::User)
            .unwrap_err()
            .to_string();
        let said = format!("expiration_seconds: {bad}");
        assert!(refused.contains(&said), "{refused}");
    }
    let audiences = |audiences: &[&str]| RequestTokenRequest {
        audiences: audiences.iter().map(|it| (*it).to_owned()).collect(),
        ..request("ci", "")
    };
    let made = asked(&state, &audiences(&["b", "a", "b"]), Asker::User).unwrap();
    assert_eq!(made.aud, ["a", "b"]);
    let long = "x".repeat(513);
    for bad in [&[""][..], &["a\n"], &[&long], &["x"; 17]] {
        assert!(asked(&state, &audiences(bad), Asker::User).is_err());
    }
}

#[test]
fn a_namespace_without_an_account_default_has_one() {
    let mut state = state();
    let made = asked(&state, &request("", "plain"), N1).unwrap();
    assert_eq!(made.sub, "system:serviceaccount:shop:default");
    assert!(Holder::check(&state, &made).is_ok());
    assert!(asked(&state, &request("other", ""), Asker::User).is_err());
    let mut nowhere = request("", "");
    nowhere.namespace = "nowhere".to_owned();
    assert!(asked(&state, &nowhere, Asker::User).is_err());
    // The object that is made later is another account, and the token is still the namespace's.
    let mut draft = Draft::new();
    draft.put(ServiceAccount {
        metadata: Some(meta("shop", "default")),
        ..ServiceAccount::default()
    });
    apply(&mut state, draft);
    assert!(Holder::check(&state, &made).is_ok());
    let next = asked(&state, &request("", "plain"), N1).unwrap();
    assert_eq!(next.bound.serviceaccount.uid, "uid-default");
}

#[test]
fn a_token_ends_with_its_pod_and_with_its_account() {
    let mut state = state();
    let of_pod = asked(&state, &request("ci", "ci-pod"), N1).unwrap();
    let of_account = asked(&state, &request("ci", ""), Asker::User).unwrap();
    let mut draft = Draft::new();
    draft.remove::<PodRecord>("uid-ci-pod");
    apply(&mut state, draft);
    let gone = Holder::check(&state, &of_pod).unwrap_err();
    assert!(gone.contains("ci-pod"), "{gone}");
    assert!(
        Holder::parse(&Holder::of(&of_pod).to_string())
            .unwrap()
            .account(&state)
            .is_none()
    );
    assert!(Holder::check(&state, &of_account).is_ok());
    let mut draft = Draft::new();
    draft.remove::<ServiceAccount>("uid-ci");
    apply(&mut state, draft);
    assert!(Holder::check(&state, &of_account).is_err());
    // Another one of the same name is another user.
    let mut draft = Draft::new();
    draft.put(ServiceAccount {
        metadata: Some(ObjectMeta {
            uid: "uid-again".to_owned(),
            ..meta("shop", "ci")
        }),
        ..ServiceAccount::default()
    });
    apply(&mut state, draft);
    assert!(Holder::check(&state, &of_account).is_err());
}

#[test]
fn claims_that_name_another_s_uid_are_refused() {
    let state = state();
    let mut made = asked(&state, &request("ci", ""), Asker::User).unwrap();
    made.bound.serviceaccount.name = "root".to_owned();
    assert!(Holder::check(&state, &made).is_err());
    // A namespace's uid is that of its account default, and of no other.
    made.bound.serviceaccount.name = "ci".to_owned();
    made.bound.serviceaccount.uid = "uid-shop".to_owned();
    assert!(Holder::check(&state, &made).is_err());
}
