//! Many writes over one stream: each is a request of its own, also when the leader dies under it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use barge_client::{ApplyOptions, Client, ClientError, Selection, v1};
use barge_tests::{
    Managers, eventually, raw, said,
    writer::{client, runtime},
};
use futures::future::join_all;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn pipelined() -> ApplyOptions {
    ApplyOptions {
        pipelined: true,
        ..ApplyOptions::default()
    }
}

/// Applies a namespace over the stream; the answer is its generation.
async fn apply(client: &Client, name: String) -> Result<i64, ClientError> {
    let applied = client
        .apply(vec![raw::namespace(&name, raw::random(100))], &pipelined())
        .await?;
    let object = applied.results[0].object.clone().expect("the object");
    assert_eq!(object.name(), name);
    Ok(object.metadata().generation)
}

fn apply_all(
    client: &Client,
    names: impl Iterator<Item = String>,
) -> Vec<Result<i64, ClientError>> {
    let all = names.map(|name| apply(client, name));
    runtime().block_on(async { join_all(all).await })
}

#[test]
fn each_write_of_a_stream_is_answered_counted_and_audited_by_itself() {
    let managers = Managers::up(1);
    let ours = client(&managers.config(), PATIENCE);
    let names = (0..300).map(|number| match number {
        7 => "Not-A-Name".to_owned(),
        number => format!("n-{number}"),
    });
    let answers = apply_all(&ours, names);
    for (number, answer) in answers.iter().enumerate() {
        match (number, answer) {
            (7, Err(ClientError::Refused(refusal))) => {
                assert!(refusal.to_string().contains("metadata.name"), "{refusal}");
            }
            (_, Ok(generation)) => assert_eq!(*generation, 1),
            other => panic!("{other:?}"),
        }
    }
    // Written down as if each had had a call to itself.
    let log = managers.data_dir(0).join("audit.log");
    eventually("all writes are in the audit log", || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let entries = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let applies = entries.filter(|entry: &Value| {
            entry["rpc"] == "/barge.v1.Api/Apply"
                && entry["objects"][0]
                    .as_str()
                    .is_some_and(|o| o.contains("n-") || o.contains("Not"))
        });
        let outcomes: Vec<_> = applies.map(|entry| entry["outcome"].clone()).collect();
        let refused = outcomes
            .iter()
            .filter(|it| **it == "INVALID_ARGUMENT")
            .count();
        match (outcomes.len(), refused) {
            (300, 1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // Who is revoked is refused on a stream that is open.
    let robot = managers.dir().join("robot.toml");
    let robot_file = robot.to_str().expect("a plain path");
    managers.barge(&[
        "credential",
        "create",
        "robot",
        "--bearer",
        "--admin",
        "--out",
        robot_file,
    ]);
    let theirs = client(&robot, PATIENCE);
    runtime()
        .block_on(apply(&theirs, "by-robot".to_owned()))
        .expect("a right");
    managers.barge(&["credential", "revoke", "robot"]);
    let late = runtime()
        .block_on(apply(&theirs, "late".to_owned()))
        .unwrap_err();
    assert!(late.to_string().contains("any more"), "{late}");
    let found = managers.try_barge(&["get", "namespace", "late"]);
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
}

#[test]
fn writes_of_a_stream_survive_the_death_of_the_leader_and_are_applied_once() {
    let mut managers = Managers::up(3);
    managers.wait_until_caught_up();
    let leader = managers.leader();
    // The leader first: the stream is to it, until it dies.
    let all = [leader, (leader + 1) % 3, (leader + 2) % 3];
    let ours = client(&managers.config_of(&all), PATIENCE);
    runtime()
        .block_on(apply(&ours, "first".to_owned()))
        .expect("a leader");
    let done = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..64)
        .map(|writer| {
            let (ours, done) = (ours.clone(), done.clone());
            runtime().spawn(async move {
                for number in 0..40 {
                    let generation = apply(&ours, format!("w-{writer}-{number}")).await?;
                    assert_eq!(generation, 1, "it is created once");
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, ClientError>(())
            })
        })
        .collect();
    eventually("some were written", || match done.load(Ordering::Relaxed) {
        0..200 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    managers.kill(leader);
    for writer in runtime().block_on(join_all(writers)) {
        writer
            .expect("no panic")
            .expect("every write is acknowledged");
    }
    let survivor = client(&managers.config_for((leader + 1) % 3), PATIENCE);
    let listed = runtime()
        .block_on(survivor.list(&Selection::of(v1::Kind::Namespace, "")))
        .expect("a list");
    let ours = listed
        .objects
        .iter()
        .filter(|it| it.name().starts_with("w-"));
    assert_eq!(ours.count(), 64 * 40);
}
