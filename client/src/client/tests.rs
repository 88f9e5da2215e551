//! A client against scripted managers, over real TLS on loopback.

use std::time::Duration;

use tonic::{Code, Status};

use super::*;
use crate::{WatchEvent, v1::Kind};

mod flaky;
mod scripted;

use scripted::{Fake, Step, list_expired, refusal, watch_event};

fn client(fakes: &[&Fake]) -> Client {
    let managers: Vec<_> = fakes.iter().map(|fake| fake.address.clone()).collect();
    let options = ClientOptions {
        deadline: Duration::from_secs(20),
        unreachable_after: Duration::from_millis(200),
        ..ClientOptions::default()
    };
    Client::new(&fakes[0].identity(), &managers, options).unwrap()
}

#[tokio::test]
async fn a_read_goes_on_to_a_manager_that_can_serve_it() {
    let ca = scripted::ca();
    let lost = Fake::start(
        &ca,
        vec![Step::Fail(refusal(Code::Unavailable, "NO_QUORUM")); 2],
    )
    .await;
    let good = Fake::start(&ca, vec![Step::Object("a", 7), Step::Object("b", 8)]).await;
    let client = client(&[&lost, &good]);
    let object = client.get(Kind::Namespace, "", "a").await.unwrap();
    assert_eq!(object.name(), "a");
    assert_eq!(client.seen_revision(), 7);
    // It stays with the one that worked.
    client.get(Kind::Namespace, "", "b").await.unwrap();
    assert_eq!((lost.calls(), good.calls()), (1, 2));
}

#[tokio::test]
async fn one_address_is_enough_to_learn_the_others() {
    let ca = scripted::ca();
    let gone = || Step::Fail(refusal(Code::Unavailable, "STOPPING"));
    let given = Fake::start(&ca, vec![Step::Object("a", 1), gone(), gone()]).await;
    let other = Fake::start(&ca, vec![Step::Object("b", 2), Step::Object("c", 3)]).await;
    let one = client(&[&given]);
    assert!(one.managers().is_empty(), "nobody has said");
    given.announce(&[&given.address, &other.address, "of no use"]);
    one.get(Kind::Namespace, "", "a").await.unwrap();
    let object = one.get(Kind::Namespace, "", "b").await.unwrap();
    assert_eq!(object.name(), "b");
    assert_eq!(one.managers().len(), 3);
    // Who was given stays known, whatever is said; who is not named any more is forgotten.
    other.announce(&[&other.address]);
    one.get(Kind::Namespace, "", "c").await.unwrap();
    assert_eq!(one.managers(), std::slice::from_ref(&other.address));
    assert_eq!(one.shared.managers.len(), 2);

    let options = ClientOptions {
        only_given: true,
        ..ClientOptions::default()
    };
    let again = Fake::start(&ca, vec![Step::Object("a", 1)]).await;
    again.announce(&[&again.address, &other.address]);
    let fixed = Client::new(
        &again.identity(),
        std::slice::from_ref(&again.address),
        options,
    )
    .unwrap();
    fixed.get(Kind::Namespace, "", "a").await.unwrap();
    assert!(fixed.managers().is_empty());
    assert_eq!(fixed.shared.managers.len(), 1);
}

#[tokio::test]
async fn a_change_learns_the_revision_and_keeps_its_id_over_a_change_of_leaders() {
    let ca = scripted::ca();
    let old = Fake::start(
        &ca,
        vec![
            Step::Fail(scripted::revision_required(41)),
            Step::Fail(refusal(Code::Unknown, "UNKNOWN_OUTCOME")),
        ],
    )
    .await;
    let new = Fake::start(&ca, vec![Step::Object("a", 42)]).await;
    let client = client(&[&old, &new]);
    client
        .delete(Kind::Namespace, "", "a", &DeleteOptions::default())
        .await
        .unwrap();
    let (old, new) = (old.ids(), new.ids());
    assert_eq!(
        old.iter().map(|id| id.seen_revision).collect::<Vec<_>>(),
        [0, 41]
    );
    assert_eq!(
        old[1], new[0],
        "a repetition has the id of the first attempt"
    );
    assert_ne!(old[0].nonce, old[1].nonce);
    assert_eq!(client.seen_revision(), 42);
}

#[tokio::test]
async fn an_expired_id_is_renewed_only_when_nothing_was_sent_before() {
    let ca = scripted::ca();
    let expired = || Step::Fail(refusal(Code::FailedPrecondition, "REQUEST_EXPIRED"));
    // First attempt: the client's revision was old, nothing happened.
    let fresh = Fake::start(&ca, vec![expired(), Step::List(90), Step::Object("a", 91)]).await;
    let options = DeleteOptions::default();
    let one = client(&[&fresh]);
    one.delete(Kind::Namespace, "", "a", &options)
        .await
        .unwrap();
    assert_eq!(fresh.ids()[1].seen_revision, 90);
    // Second attempt: the first may have been carried out.
    let again = Fake::start(
        &ca,
        vec![Step::Fail(Status::unavailable("going away")), expired()],
    )
    .await;
    let two = client(&[&again]);
    let error = two
        .delete(Kind::Namespace, "", "a", &options)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::UnknownOutcome { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_manager_that_has_too_much_to_do_is_asked_again_when_it_says() {
    let ca = scripted::ca();
    let busy = || Step::Fail(scripted::overloaded(Duration::from_millis(10)));
    let fake = Fake::start(&ca, vec![busy(), busy(), Step::Object("a", 7)]).await;
    let one = client(&[&fake]);
    one.get(Kind::Namespace, "", "a").await.unwrap();
    assert_eq!(fake.calls(), 3);
    // One that asks for more patience than there is has the last word.
    let hour = Duration::from_secs(3600);
    let fake = Fake::start(&ca, vec![Step::Fail(scripted::overloaded(hour))]).await;
    let options = ClientOptions {
        deadline: Duration::from_secs(5),
        ..ClientOptions::default()
    };
    let managers = [fake.address.clone()];
    let two = Client::new(&fake.identity(), &managers, options).unwrap();
    let error = two.get(Kind::Namespace, "", "a").await.unwrap_err();
    assert_eq!((error.reason(), fake.calls()), (Some("OVERLOADED"), 1));
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_its_words() {
    let ca = scripted::ca();
    let fake = Fake::start(&ca, vec![Step::Fail(scripted::invalid())]).await;
    let client = client(&[&fake]);
    let error = client.get(Kind::Namespace, "", "a").await.unwrap_err();
    assert_eq!(error.reason(), Some("INVALID"));
    let ClientError::Refused(refusal) = error else {
        panic!("{error}");
    };
    assert_eq!(refusal.violations[0].field, "spec.replicas");
    assert_eq!(fake.calls(), 1);
}

#[tokio::test]
async fn managers_that_do_not_listen_are_named() {
    let ca = scripted::ca();
    let fake = Fake::start(&ca, vec![]).await;
    let identity = fake.identity();
    // Bound and dropped: nobody listens there now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let options = ClientOptions {
        unreachable_after: Duration::from_millis(100),
        ..ClientOptions::default()
    };
    let client = Client::new(&identity, std::slice::from_ref(&address), options).unwrap();
    let error = client.get(Kind::Namespace, "", "a").await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&address) && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn another_cluster_is_told_from_no_cluster() {
    let fake = Fake::start(&scripted::ca(), vec![]).await;
    let stranger = scripted::ca().issue(crate::v1::Role::Admin, "x");
    let options = ClientOptions {
        unreachable_after: Duration::from_millis(100),
        ..ClientOptions::default()
    };
    let client = Client::new(&stranger, std::slice::from_ref(&fake.address), options).unwrap();
    let error = client.get(Kind::Namespace, "", "a").await.unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");
}

#[tokio::test]
async fn a_watch_resumes_and_lists_again_when_history_is_gone() {
    let ca = scripted::ca();
    let fake = Fake::start(
        &ca,
        vec![
            Step::Names(vec![("a", 5)], 5),
            // One change, then the manager goes away.
            Step::Watch(vec![
                Ok(watch_event("b", 6)),
                Err(Status::unavailable("bye")),
            ]),
            // Resumed, but the history is gone: list again, with a gone and c new.
            Step::Watch(vec![Err(refusal(Code::OutOfRange, "EXPIRED"))]),
            Step::Names(vec![("b", 6), ("c", 9)], 9),
            Step::Watch(vec![Ok(watch_event("d", 10))]),
        ],
    )
    .await;
    let client = client(&[&fake]);
    let mut watcher = client.list_and_watch(Selection::of(Kind::Namespace, ""));
    let mut told = Vec::new();
    for _ in 0..7 {
        told.push(match watcher.next().await.unwrap() {
            WatchEvent::Added(object) => format!("+{}", object.name()),
            WatchEvent::Modified(object) => format!("~{}", object.name()),
            WatchEvent::Deleted(object) => format!("-{}", object.name()),
            WatchEvent::Synced { revision } => format!("={revision}"),
        });
    }
    assert_eq!(told, ["+a", "=5", "+b", "-a", "+c", "=9", "+d"]);
    assert_eq!(fake.watched(), [5, 6, 9]);
}

#[tokio::test]
async fn a_list_that_is_not_kept_goes_on_with_what_there_is() {
    let ca = scripted::ca();
    let steps = || {
        vec![
            Step::Page(vec![("a", 1)], 5, "after-a"),
            // A selector that matched nothing so far.
            Step::Page(vec![], 5, "after-b"),
            Step::Fail(list_expired("now-after-b")),
            Step::Page(vec![("c", 9)], 9, "after-c"),
            Step::Fail(list_expired("now-after-c")),
            Step::Names(vec![("d", 12)], 12),
        ]
    };
    let fake = Fake::start(&ca, steps()).await;
    let selection = Selection::of(Kind::Namespace, "");
    let listing = client(&[&fake]).list(&selection).await.unwrap();
    let names: Vec<_> = listing.objects.iter().map(|it| it.name()).collect();
    assert_eq!(names, ["a", "c", "d"]);
    assert_eq!((listing.revision, listing.consistent), (5, false));
    let went_on = [
        "",
        "after-a",
        "after-b",
        "now-after-b",
        "after-c",
        "now-after-c",
    ];
    assert_eq!(fake.continued(), went_on);

    // What a watch goes on from is of one revision: it begins anew.
    let mut steps = steps();
    steps.truncate(3);
    steps.push(Step::Names(vec![("c", 9), ("d", 12)], 12));
    let fake = Fake::start(&ca, steps).await;
    let listing = client(&[&fake]).list_consistent(&selection).await.unwrap();
    assert_eq!((listing.objects.len(), listing.revision), (2, 12));
    assert!(listing.consistent);

    // One that cannot go on from where it said itself has the last word.
    let expired = || Step::Fail(list_expired("now-after-a"));
    let pages = || {
        [
            Step::Page(vec![("a", 1)], 5, "after-a"),
            expired(),
            expired(),
        ]
    };
    let fake = Fake::start(&ca, [pages(), pages(), pages()].concat()).await;
    let error = client(&[&fake]).list(&selection).await.unwrap_err();
    assert_eq!(error.reason(), Some("EXPIRED"), "{error}");
    assert_eq!(fake.calls(), 9);
}

fn pipelined() -> ApplyOptions {
    ApplyOptions {
        pipelined: true,
        ..ApplyOptions::default()
    }
}

#[tokio::test]
async fn pipelined_applies_share_a_stream_and_are_answered_each_by_itself() {
    let ca = scripted::ca();
    let fake = Fake::start(
        &ca,
        vec![
            Step::Object("a", 7),
            Step::Object("b", 8),
            Step::Fail(scripted::invalid()),
            Step::Object("c", 9),
        ],
    )
    .await;
    let client = client(&[&fake]);
    let options = pipelined();
    let asked = (0..4).map(|_| client.apply(Vec::new(), &options));
    let answers = futures::future::join_all(asked).await;
    let mut revisions: Vec<_> = answers.iter().flatten().map(|it| it.revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [7, 8, 9]);
    let refused: Vec<_> = answers.iter().filter_map(|it| it.as_ref().err()).collect();
    assert!(
        matches!(refused.as_slice(), [ClientError::Refused(_)]),
        "{refused:?}"
    );
    assert_eq!(client.seen_revision(), 9);
    assert_eq!(fake.streams(), 1);
}

#[tokio::test]
async fn what_was_on_a_stream_that_broke_is_repeated_elsewhere_under_its_id() {
    let ca = scripted::ca();
    let broken = Step::Fail(Status::unavailable(scripted::BROKEN));
    let dying = Fake::start(&ca, vec![broken]).await;
    let other = Fake::start(&ca, vec![Step::Object("a", 5), Step::Object("b", 6)]).await;
    let client = client(&[&dying, &other]);
    let first = client.apply(Vec::new(), &pipelined()).await.unwrap();
    assert_eq!(first.revision, 5);
    assert_eq!(dying.ids(), other.ids());
    // The pipeline to the other manager goes on being used.
    client.apply(Vec::new(), &pipelined()).await.unwrap();
    assert_eq!((dying.streams(), other.streams()), (1, 1));
}
