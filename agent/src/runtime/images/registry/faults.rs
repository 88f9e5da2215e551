//! A conversation with a registry that fails, stalls, truncates and lies.
#![allow(clippy::unwrap_used, clippy::panic)]

use futures::TryStreamExt;
use serde_json::json;

use super::*;
use crate::{
    runtime::{images::manifest::sha256, keyring::Login},
    testing::registry::{Fault, Registry as Fake},
};

const PACE: Pace = Pace {
    bytes: 8,
    window: Duration::from_millis(500),
};
/// Ten times what it may take.
const DEADLINE: Duration = Duration::from_secs(10);

async fn session(fake: &Fake, credentials: Option<(&str, &str)>) -> Session {
    let owned =
        |(user, password): (&str, &str)| Login::Password(user.to_owned(), password.to_owned());
    session_as(fake, credentials.map(owned)).await
}

async fn session_as(fake: &Fake, login: Option<Login>) -> Session {
    let endpoint = Endpoint {
        plain_http: true,
        host: fake.address.to_string(),
        prefix: String::new(),
        login,
    };
    let name = Name::parse("example.com/x/app:1").unwrap();
    Session::new(&Http::default(), &endpoint, &name, PACE, Shares::new(8, 4))
        .await
        .unwrap()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "m".into(),
        digest: sha256(bytes).into(),
        size: bytes.len() as u64,
        platform: None,
    }
}

/// Fetches a blob; answers its length.
async fn whole(session: &Session, blob: &Descriptor) -> Result<usize, FetchError> {
    let whole = async {
        let parts: Vec<Bytes> = session.blob(blob).await?.try_collect().await?;
        Ok(parts.concat().len())
    };
    timeout(DEADLINE, whole).await.expect("an end")
}

/// The room is taken by documents of other pulls: no fault of the registry.
#[tokio::test]
async fn waiting_for_room_is_not_the_registrys_time() {
    let fake = Fake::start().await;
    let session = session(&fake, None).await;
    fake.tag("app:1", &fake.document(&json!({"a": "b"})));
    let mut room = Vec::new();
    for _ in 0..4 {
        room.push(session.room(1).await);
    }
    let document = session.document("1", None);
    let release = async {
        // Longer than all documents of an image may take.
        tokio::time::sleep(PACE.window * (DOCUMENT_WINDOWS + 1)).await;
        room.clear();
    };
    let both = async { tokio::join!(document, release) };
    let (document, ()) = timeout(DEADLINE, both).await.expect("an end");
    document.map(drop).unwrap();
    // A registry that is slow with each of many documents comes to an end.
    fake.fault("/v2/", Fault::Trickle(Duration::from_millis(40)));
    let slow = async {
        while let Ok(document) = session.document("1", None).await {
            drop(document);
        }
    };
    timeout(DEADLINE, slow).await.expect("an end");
}

#[tokio::test]
async fn what_trickles_is_given_up() {
    let fake = Fake::start().await;
    let session = session(&fake, None).await;
    let bytes = vec![7; 300];
    let (blob, document) = (
        descriptor(&bytes),
        fake.document(&json!({"a": "b".repeat(100)})),
    );
    fake.blob(bytes);
    fake.tag("app:1", &document);
    assert_eq!(whole(&session, &blob).await.unwrap(), 300);
    for fault in [Fault::Trickle(Duration::from_millis(200)), Fault::Stall] {
        fake.fault("/v2/", fault);
        let error = whole(&session, &blob).await.unwrap_err();
        assert!(matches!(error, FetchError::Slow(..)), "{error}");
        let document = timeout(DEADLINE, session.document("1", None)).await;
        let error = document.expect("an end").err().unwrap();
        assert!(matches!(error, FetchError::Slow(..)), "{error}");
        fake.heal();
    }
    // Faster than it has to be.
    fake.fault("/v2/", Fault::Trickle(Duration::from_micros(1)));
    assert_eq!(whole(&session, &blob).await.unwrap(), 300);
}

#[tokio::test]
async fn a_blob_has_the_size_it_should_have() {
    let fake = Fake::start().await;
    let session = session(&fake, None).await;
    let bytes = vec![7; 64 * 1024];
    let blob = descriptor(&bytes);
    fake.blob(bytes);
    for fault in [Fault::Truncate(1000), Fault::Oversized(8 << 20)] {
        fake.fault("/blobs/", fault);
        whole(&session, &blob).await.unwrap_err();
        fake.heal();
    }
    let longer = Descriptor {
        size: blob.size + 1,
        ..blob.clone()
    };
    whole(&session, &longer).await.unwrap_err();
    fake.fault("/blobs/", Fault::Corrupt);
    let error = session.small_blob(&blob).await.err().unwrap();
    assert!(matches!(error, FetchError::Digest(..)), "{error}");
    fake.heal();
    fake.fault("/v2/", Fault::Status(503));
    let error = whole(&session, &blob).await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn a_token_is_asked_for_where_the_registry_says() {
    let fake = Fake::start().await;
    let document = fake.document(&json!({"a": "b"}));
    fake.tag("app:1", &document);
    let realm = format!("{}/token", fake.url());
    fake.guard(
        "Bearer let-me-in",
        &format!("Bearer realm=\"{realm}\",service=\"fake\""),
    );
    let anonymous = session(&fake, None).await;
    let error = anonymous.document("1", None).await.err().unwrap();
    assert!(matches!(error, FetchError::Unauthorized(..)), "{error}");
    fake.token("let-me-in");
    anonymous.document("1", None).await.unwrap();
    let asked = |path: &str| {
        let seen = fake.seen();
        let mut fitting = seen.into_iter().filter(|seen| seen.path.starts_with(path));
        fitting.next_back().unwrap()
    };
    let token = asked("/token");
    assert_eq!(
        token.path,
        "/token?service=fake&scope=repository%3Ax%2Fapp%3Apull"
    );
    assert_eq!(token.authorization, None);
    session(&fake, Some(("me", "secret")))
        .await
        .document("1", None)
        .await
        .unwrap();
    assert_eq!(asked("/token").authorization.unwrap(), "Basic bWU6c2VjcmV0");
    // An answer without an end is none.
    fake.fault("/token", Fault::Oversized(1 << 20));
    let error = session(&fake, None)
        .await
        .document("1", None)
        .await
        .err()
        .unwrap();
    assert!(matches!(error, FetchError::TooLong(..)), "{error}");
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear_for_a_registry_with_tls() {
    let fake = Fake::start().await;
    fake.guard(
        "Bearer let-me-in",
        &format!("Bearer realm=\"{}/token\"", fake.url()),
    );
    let refusal = reqwest::get(format!("{}/v2/", fake.url())).await.unwrap();
    let endpoint = Endpoint {
        plain_http: false,
        host: "example.com".to_owned(),
        prefix: String::new(),
        login: Some(Login::Password("me".to_owned(), "secret".to_owned())),
    };
    let error = authorize(&Http::default(), &endpoint, &refusal, "x/app", PACE)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("without TLS"), "{error}");
    assert!(
        !fake
            .seen()
            .iter()
            .any(|seen| seen.path.starts_with("/token"))
    );
}

/// A refresh token is sent in the body, and a redirection gets nothing of it.
#[tokio::test]
async fn a_refresh_token_is_for_the_service_for_tokens_alone() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    fake.tag("app:1", &fake.document(&json!({"a": "b"})));
    fake.token("let-me-in");
    let realm = format!("{}/token", fake.url());
    fake.guard("Bearer let-me-in", &format!("Bearer realm=\"{realm}\""));
    let login = || Some(Login::Identity("refresh me".to_owned()));
    session_as(&fake, login())
        .await
        .document("1", None)
        .await
        .unwrap();
    let asked = fake.seen().into_iter().find(|seen| seen.path == "/token");
    let asked = asked.unwrap();
    assert_eq!(asked.authorization, None);
    for part in [
        "grant_type=refresh_token",
        "refresh_token=refresh+me",
        "scope=repository%3Ax%2Fapp%3Apull",
    ] {
        assert!(asked.body.contains(part), "{}", asked.body);
    }
    fake.fault("/token", Fault::Redirect(other.url()));
    session_as(&fake, login())
        .await
        .document("1", None)
        .await
        .err()
        .unwrap();
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn where_a_redirection_leads_nobody_is_told_who_asks() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    for registry in [&fake, &other] {
        registry.tag("app:1", &registry.document(&json!({"a": "b"})));
    }
    fake.guard("Basic bWU6c2VjcmV0", "Basic realm=\"fake\"");
    fake.fault("/v2/", Fault::Redirect(other.url()));
    let session = session(&fake, Some(("me", "secret"))).await;
    session.document("1", None).await.unwrap();
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
    // Not even when it asks.
    other.guard("Basic bWU6c2VjcmV0", "Basic realm=\"other\"");
    let error = session.document("1", None).await.err().unwrap();
    assert!(matches!(error, FetchError::Unauthorized(..)), "{error}");
    assert_eq!(other.seen().len(), 2);
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[test]
fn says_what_a_registry_says_in_one_line() {
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\ndown"}]}"#;
    assert_eq!(saying(body), "TOOMANYREQUESTS slowdown");
    assert_eq!(saying(b"<html>\n"), "<html>");
    assert_eq!(saying(&[b'x'; 10_000]).len(), LONGEST_SAYING);
}
