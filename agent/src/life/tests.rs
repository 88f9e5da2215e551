//! Life signs to managers that do as told, over TCP on this machine.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::testing::managers::{Known, Manager};

const LONG: Duration = Duration::from_secs(30);

struct Signing {
    lane: Lane,
    programmed: Programmed,
    _until: tokio_util::sync::DropGuard,
}

fn sign(managers: &[Manager]) -> Signing {
    let stop = CancellationToken::new();
    let handle = thread(stop.clone()).unwrap();
    let programmed = Programmed::default();
    Signing {
        lane: start(
            &handle,
            Known::new(managers),
            programmed.clone(),
            stop.clone(),
            std::future::ready(()),
        ),
        programmed,
        _until: stop.drop_guard(),
    }
}

impl Signing {
    /// The first choice and the other managers.
    async fn split<'a>(&self, managers: &'a [Manager]) -> (&'a Manager, Vec<&'a Manager>) {
        let mut chosen = self.lane.chosen();
        let chosen = chosen.wait_for(Option::is_some).await.unwrap().clone();
        let is_first = |m: &&Manager| Some(m.address.to_string()) == chosen;
        let (first, others): (Vec<_>, Vec<_>) = managers.iter().partition(is_first);
        (first[0], others)
    }

    async fn moved_from(&self, manager: &Manager) -> String {
        let mut chosen = self.lane.chosen();
        let address = manager.address.to_string();
        let moved = chosen.wait_for(|chosen| chosen.as_ref() != Some(&address));
        timeout(LONG, moved)
            .await
            .unwrap()
            .unwrap()
            .clone()
            .unwrap()
    }
}

async fn managers<const N: usize>() -> [Manager; N] {
    let mut managers = Vec::new();
    for _ in 0..N {
        managers.push(Manager::start().await);
    }
    managers.try_into().ok().unwrap()
}

/// The longest time without a sign at any of these, since `begin`.
fn longest_gap(managers: &[&Manager], begin: Instant) -> Duration {
    let signs = managers.iter().flat_map(|manager| manager.life.signs());
    let mut times: Vec<_> = signs.map(|(at, _)| at).filter(|at| *at >= begin).collect();
    times.extend([begin, Instant::now()]);
    times.sort();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

#[tokio::test]
async fn signs_echo_the_newest_answer_and_prove_the_second_choice() {
    let managers: [_; 3] = managers().await;
    let signing = sign(&managers);
    let (first, others) = signing.split(&managers).await;
    sleep(Duration::from_secs(3)).await;
    let signs = first.life.signs();
    assert!(signs.len() >= 4, "every 500 ms");
    let (_, last) = signs.last().unwrap();
    assert_eq!(last.roots_sha256, [7; 32]);
    assert_eq!(last.answered_term, 3);
    assert!(last.answered_stamp > 0 && last.answered_stamp < last.sequence);
    let seconds = others.iter().map(|other| other.life.signs().len());
    let seconds: Vec<_> = seconds.filter(|signs| *signs > 0).collect();
    assert!(matches!(seconds[..], [1..=4]), "{seconds:?}");
}

#[tokio::test]
async fn a_manager_that_stops_is_left_and_no_sign_is_missing() {
    let managers: [_; 3] = managers().await;
    let signing = sign(&managers);
    let (first, others) = signing.split(&managers).await;
    sleep(Duration::from_secs(3)).await;
    let begin = Instant::now();
    let stopped = first.stop();
    signing.moved_from(first).await;
    assert!(
        begin.elapsed() < Duration::from_millis(3000),
        "{:?}",
        begin.elapsed()
    );
    sleep(Duration::from_secs(2)).await;
    let gap = longest_gap(&others, begin);
    assert!(gap < Duration::from_secs(2), "{gap:?}");
    drop(stopped);
}

#[tokio::test]
async fn a_manager_that_is_given_up_is_left_at_once() {
    let managers: [_; 2] = managers().await;
    let signing = sign(&managers);
    let (first, others) = signing.split(&managers).await;
    others[0].life.until_signed().await;
    signing.lane.give_up(&first.address.to_string());
    assert_eq!(
        signing.moved_from(first).await,
        others[0].address.to_string()
    );
}

#[tokio::test]
async fn that_nobody_answers_is_told_with_the_reason_and_ends() {
    let managers: [_; 1] = managers().await;
    let signing = sign(&managers);
    managers[0].life.until_signed().await;
    managers[0].life.refuse(true);
    let mut silence = signing.lane.silence.clone();
    let told = timeout(LONG, silence.wait_for(Option::is_some)).await;
    let reason = told.unwrap().unwrap().clone().unwrap();
    assert!(reason.contains("not on my watch"), "{reason}");
    managers[0].life.refuse(false);
    let ended = timeout(LONG, silence.wait_for(Option::is_none)).await;
    ended.unwrap().unwrap();
}

/// A stream whose line was dropped goes on for as long as its request's body is sent, unless the line ends that.
#[tokio::test]
async fn lines_that_are_replaced_leave_no_streams() {
    let managers: [_; 3] = managers().await;
    let signing = sign(&managers);
    for _ in 0..100 {
        let (first, _) = signing.split(&managers).await;
        signing.lane.give_up(&first.address.to_string());
        signing.moved_from(first).await;
    }
    let begin = Instant::now();
    let streams = || managers.iter().map(|m| m.life.streams()).sum::<usize>();
    while streams() > 2 {
        assert!(begin.elapsed() < LONG, "{} streams", streams());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn signs_tell_how_far_the_rules_are_and_answers_how_far_all_are() {
    let managers: [_; 1] = managers().await;
    let signing = sign(&managers);
    managers[0].life.until_signed().await;
    let told = || {
        managers[0]
            .life
            .signs()
            .last()
            .unwrap()
            .1
            .programmed_revision
    };
    assert_eq!(told(), 0, "nothing is known");
    signing.programmed.wrote(9);
    let begin = Instant::now();
    while told() != 9 {
        assert!(begin.elapsed() < LONG);
        sleep(Duration::from_millis(20)).await;
    }
    let mut everywhere = signing.programmed.everywhere();
    for (said, known) in [(7, 7), (0, 7), (8, 8)] {
        managers[0].life.programmed(said);
        let before = managers[0].life.signs().len();
        while managers[0].life.signs().len() < before + 3 {
            assert!(begin.elapsed() < LONG);
            sleep(Duration::from_millis(20)).await;
        }
        let known = timeout(LONG, everywhere.wait_for(|now| *now == known)).await;
        known.unwrap().unwrap();
    }
}
