#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::{convert::Infallible, future::ready};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyStream, Full, StreamBody};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    error::reason_of,
    net::{Peer, Rules},
    security::{audit::Concerns, auth::Principal},
};

use super::*;

fn caller(role: Option<Role>, uid: &str) -> Caller {
    Caller {
        access: crate::security::auth::Access::Everything,
        principal: role.map(|role| Principal {
            role,
            uid: uid.to_owned(),
        }),
        forwarded: false,
        until: None,
        peer: Peer {
            address: "192.0.2.1:7".parse().unwrap(),
            subject: None,
        },
        concerns: Concerns::default(),
    }
}

fn shares() -> Shares {
    Shares::new(Limits {
        requests: 4,
        all_requests: 8,
        bytes: 100,
        all_bytes: 150,
        lists: 1,
        streams: 2,
        all_streams: 3,
        ..Limits::default()
    })
}

fn take(shares: &Shares, caller: &Caller, class: Class, most: usize) -> Vec<Share> {
    std::iter::from_fn(|| shares.request(caller, class).ok())
        .take(most)
        .collect()
}

#[test]
fn a_greedy_caller_leaves_the_others_theirs() {
    let shares = shares();
    let (greedy, other) = (
        caller(Some(Role::Admin), "greedy"),
        caller(Some(Role::Admin), "other"),
    );
    let held = take(&shares, &greedy, Class::Write, 100);
    assert_eq!(held.len(), 4);
    assert!(shares.request(&other, Class::Read).is_ok());
    drop(held);
    assert_eq!(shares.requests(), 0);
    assert!(shares.lock().callers.is_empty(), "nobody is remembered");
}

#[test]
fn what_is_cheap_to_repeat_is_refused_first_and_agents_last() {
    let shares = shares();
    let one = caller(Some(Role::Admin), "one");
    let held = take(&shares, &one, Class::List, 100);
    assert_eq!(held.len(), 2);
    let more = take(&shares, &one, Class::Read, 100);
    assert_eq!(more.len(), 1);
    assert_eq!(take(&shares, &one, Class::Write, 100).len(), 1);
    let many: Vec<_> = (0..9)
        .map(|n| caller(Some(Role::Admin), &n.to_string()))
        .flat_map(|caller| take(&shares, &caller, Class::Write, 1))
        .collect();
    assert_eq!(held.len() + more.len() + many.len(), 8);
    assert!(shares.request(&caller(None, ""), Class::Write).is_err());
    let agent = caller(Some(Role::Agent), "a");
    assert_eq!(
        take(&shares, &agent, Class::Write, 100).len(),
        AGENT_REQUESTS
    );
}

#[test]
fn a_refusal_says_when_to_come_back() {
    let shares = shares();
    let one = caller(Some(Role::Admin), "one");
    let _held = take(&shares, &one, Class::Write, 4);
    let refused = Status::from(shares.request(&one, Class::Write).unwrap_err());
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!(reason_of(&refused).as_deref(), Some("OVERLOADED"));
    let delay = refused.get_details_retry_info().unwrap().retry_delay;
    assert!(delay.is_some_and(|delay| !delay.is_zero()));
}

#[test]
fn bytes_are_counted_while_they_are_held() {
    let shares = shares();
    let (one, other) = (
        caller(Some(Role::Admin), "one"),
        caller(Some(Role::Admin), "other"),
    );
    let first = shares.request(&one, Class::Write).unwrap();
    first.receive(90).unwrap();
    assert!(first.receive(20).is_err(), "one caller's");
    let second = shares.request(&other, Class::Write).unwrap();
    assert!(second.receive(70).is_err(), "all callers'");
    drop(first);
    second.receive(70).unwrap();
}

#[tokio::test]
async fn a_request_that_never_arrives_whole_ends_and_gives_back_its_share() {
    let shares = Shares::new(Limits {
        patience: Duration::from_millis(50),
        ..Limits::default()
    });
    // As tonic reads a message: all of it, and then it answers.
    let inner = service_fn(|request: Request<Body>| async move {
        let frames = BodyStream::new(request.into_body());
        frames.for_each(|_| ready(())).await;
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let first = Full::new(Bytes::from_static(b"a"));
    let frames = BodyStream::new(first).chain(stream::pending());
    let mut request = Request::new(Body::new(StreamBody::new(frames)));
    *request.uri_mut() = "/barge.v1.Api/Apply".parse().unwrap();
    request
        .extensions_mut()
        .insert(caller(Some(Role::Admin), "a"));
    let layer = SharesLayer::new(shares.clone(), Rules::load().unwrap());
    let answer = layer.layer(inner).oneshot(request).await.unwrap();
    let status = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("did not arrive whole"));
    assert_eq!(shares.requests(), 0);
}

#[test]
fn streams_are_limited_for_each_and_for_all() {
    let shares = shares();
    let stream = |uid| shares.stream(&caller(Some(Role::Admin), uid));
    let _held = [stream("a").unwrap(), stream("a").unwrap()];
    let each = stream("a").unwrap_err().to_string();
    assert!(each.contains("this caller has 2 watches"), "{each}");
    let _last = stream("b").unwrap();
    let all = stream("c").unwrap_err().to_string();
    assert!(all.contains("this manager has 3 watches"), "{all}");
}
