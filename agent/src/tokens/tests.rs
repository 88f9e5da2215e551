#![allow(clippy::unwrap_used)]
//! The keeper with managers that do as told, in paused time.

use std::{collections::VecDeque, sync::Mutex};

use async_trait::async_trait;
use barge_proto::v1::{Assignment, ObjectMeta};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{clock::TokioClock, outbox::Outbox};

/// Answers what is in its queue, and fails when that is empty.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<(Instant, TokenRequest)>>,
    /// Questions that are being answered, and the most that were at the same time.
    busy: Mutex<(usize, usize)>,
    takes: Duration,
}

#[async_trait]
impl Ask for Script {
    async fn ask(&self, request: &TokenRequest) -> Result<Answer, String> {
        {
            let mut busy = self.busy.lock().unwrap();
            busy.0 += 1;
            busy.1 = busy.1.max(busy.0);
        }
        self.asked
            .lock()
            .unwrap()
            .push((Instant::now(), request.clone()));
        sleep(self.takes).await;
        self.busy.lock().unwrap().0 -= 1;
        let answer = self.answers.lock().unwrap().pop_front();
        answer.ok_or_else(|| "nobody answers".to_owned())
    }
}

struct World {
    tokens: Tokens,
    script: Arc<Script>,
    desired: watch::Sender<Arc<Desired>>,
    outbox: Arc<Outbox>,
    _stop: tokio_util::sync::DropGuard,
}

fn pod(uid: &str) -> Pod {
    Pod {
        metadata: Some(ObjectMeta {
            uid: uid.to_owned(),
            name: uid.to_owned(),
            namespace: "shop".to_owned(),
            ..ObjectMeta::default()
        }),
        ..Pod::default()
    }
}

fn desired(uids: &[&str]) -> Arc<Desired> {
    let assignment = Assignment {
        full: true,
        pods: uids.iter().map(|uid| pod(uid)).collect(),
        ..Assignment::default()
    };
    Arc::new(Desired::default().apply(assignment, false).unwrap().0)
}

fn world(uids: &[&str], script: Script) -> World {
    let script = Arc::new(script);
    let (sender, receiver) = watch::channel(desired(uids));
    let outbox = Arc::new(Outbox::new(1));
    let clock = Arc::new(TokioClock::starting_at(0));
    let recorder = Recorder::new(outbox.clone(), clock);
    let (tokens, stop) = (Tokens::default(), CancellationToken::new());
    let keeping = tokens
        .clone()
        .keep(script.clone(), receiver, recorder, stop.clone());
    tokio::spawn(keeping);
    World {
        tokens,
        script,
        desired: sender,
        outbox,
        _stop: stop.drop_guard(),
    }
}

fn answer(value: &str) -> Answer {
    Answer {
        value: value.to_owned(),
        life: Duration::from_secs(1000),
    }
}

impl World {
    fn answers(&self, values: &[&str]) {
        let mut answers = self.script.answers.lock().unwrap();
        answers.extend(values.iter().map(|value| answer(value)));
    }

    /// Waits for the token to be this.
    async fn until(&self, request: &TokenRequest, value: &str) {
        let mut changed = self.tokens.changed();
        let come = async {
            while self.tokens.get(request).map(|it| it.value.clone()) != Some(value.to_owned()) {
                changed.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(2000), come).await.unwrap();
    }

    fn events(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        while let Some(report) = self.outbox.take() {
            self.outbox.acknowledge(report.sequence);
            reasons.extend(report.events.into_iter().map(|event| event.reason));
        }
        reasons
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_comes_and_is_replaced_in_time() {
    let world = world(&["a"], Script::default());
    world.answers(&["1", "2"]);
    let wanted = TokenRequest::of(&pod("a"), "", 3607);
    assert_eq!(wanted.account, "default");
    assert_eq!(world.tokens.get(&wanted), None);
    world.until(&wanted, "1").await;
    let first = Instant::now();
    world.until(&wanted, "2").await;
    let after = first.elapsed();
    let (least, most) = (Duration::from_secs(700), Duration::from_secs(801));
    assert!(least <= after && after <= most, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_end_while_nobody_answers_is_an_event_and_the_token_stays() {
    let world = world(&["a"], Script::default());
    world.answers(&["1"]);
    let wanted = TokenRequest::of(&pod("a"), "vault", 600);
    assert_eq!(world.tokens.get(&wanted), None);
    world.until(&wanted, "1").await;
    sleep(Duration::from_secs(900)).await;
    assert!(world.events().is_empty());
    assert_eq!(world.tokens.why_not(&wanted).unwrap(), "nobody answers");
    sleep(Duration::from_secs(5000)).await;
    assert_eq!(world.events(), ["ServiceAccountTokenExpired"]);
    assert_eq!(world.tokens.get(&wanted).unwrap().value, "1");
    // Not more than once a minute, but for the first ones.
    assert!(world.script.asked.lock().unwrap().len() < 300);
    world.answers(&["2"]);
    world.until(&wanted, "2").await;
    assert_eq!(world.tokens.why_not(&wanted), None);
}

#[tokio::test(start_paused = true)]
async fn managers_are_asked_for_a_few_at_a_time_and_not_for_pods_that_went() {
    let uids: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
    let script = Script {
        takes: Duration::from_secs(1),
        ..Script::default()
    };
    let world = world(&uids, script);
    world.answers(&vec!["x"; 20]);
    let wanted: Vec<_> = uids
        .iter()
        .map(|uid| TokenRequest::of(&pod(uid), "", 600))
        .collect();
    for one in &wanted {
        assert_eq!(world.tokens.get(one), None);
    }
    for one in &wanted {
        world.until(one, "x").await;
    }
    assert_eq!(world.script.busy.lock().unwrap().1, AT_ONCE);
    world.desired.send_replace(desired(&uids[..1]));
    sleep(Duration::from_secs(2000)).await;
    let asked = world.script.asked.lock().unwrap().clone();
    assert!(asked[20..].iter().all(|(_, one)| *one == wanted[0]));
    world.tokens.forget("p0");
    let before = world.script.asked.lock().unwrap().len();
    sleep(Duration::from_secs(2000)).await;
    assert_eq!(world.script.asked.lock().unwrap().len(), before);
}
