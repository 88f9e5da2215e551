#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1000;

fn thresholds(delay: i64, period: i64, success: u32, failure: u32) -> Thresholds {
    Thresholds {
        initial_delay_ms: delay * SECOND,
        period_ms: period * SECOND,
        success,
        failure,
    }
}

fn at(now_ms: i64) -> Begin {
    Begin {
        started_ms: 0,
        now_ms,
        spread: 0.5,
    }
}

#[test]
fn a_container_without_probes_is_ready() {
    let probes = Probes::new([None; 3], at(0), None);
    let all = Verdict {
        started: true,
        ready: true,
        failed: None,
    };
    assert_eq!(probes.verdict(), all);
    assert!(Kind::ALL.iter().all(|kind| probes.due_ms(*kind).is_none()));
}

#[test]
fn readiness_flips_after_its_thresholds() {
    let readiness = thresholds(2, 5, 2, 3);
    let mut probes = Probes::new([None, Some(readiness), None], at(0), None);
    assert!(!probes.verdict().ready, "before the first success");
    assert_eq!(probes.due_ms(Kind::Readiness), Some(2 * SECOND));
    let mut say = |success| {
        let due = probes.due_ms(Kind::Readiness).unwrap();
        probes.learn(Kind::Readiness, Some(success), due, due + 10);
        assert_eq!(probes.due_ms(Kind::Readiness), Some(due + 5 * SECOND));
        probes.verdict().ready
    };
    let seen = [
        true, true, false, false, true, false, false, false, true, true,
    ]
    .map(&mut say);
    let expected = [
        false, true, true, true, true, true, true, false, false, true,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn startup_holds_the_others_back_and_its_failure_ends_the_container() {
    let all = [
        Some(thresholds(0, 1, 1, 2)),
        Some(thresholds(0, 10, 1, 1)),
        Some(thresholds(60, 10, 1, 1)),
    ];
    let mut probes = Probes::new(all, at(0), None);
    assert_eq!(probes.due_ms(Kind::Readiness), None);
    assert_eq!(probes.due_ms(Kind::Liveness), None);
    probes.learn(Kind::Startup, Some(false), 0, 0);
    let mut failing = probes.clone();
    assert!(probes.learn(Kind::Startup, Some(true), SECOND, 1500));
    assert!(probes.verdict().started && !probes.verdict().ready);
    assert_eq!(probes.due_ms(Kind::Startup), None);
    assert_eq!(probes.due_ms(Kind::Readiness), Some(1500), "at once");
    assert_eq!(probes.due_ms(Kind::Liveness), Some(60 * SECOND));

    failing.learn(Kind::Startup, Some(false), SECOND, SECOND);
    assert_eq!(failing.verdict().failed, Some(Kind::Startup));
    assert!(Kind::ALL.iter().all(|kind| failing.due_ms(*kind).is_none()));
}

#[test]
fn what_was_known_holds_until_the_first_result() {
    let all = [
        Some(thresholds(0, 1, 1, 1)),
        Some(thresholds(0, 10, 1, 2)),
        None,
    ];
    let known = Verdict {
        started: true,
        ready: true,
        failed: None,
    };
    let mut probes = Probes::new(all, at(100 * SECOND), Some(known));
    assert_eq!(probes.verdict(), known);
    let due = probes.due_ms(Kind::Readiness).unwrap();
    assert_eq!(due, 105 * SECOND, "spread over the period");
    probes.learn(Kind::Readiness, None, due, due);
    probes.learn(Kind::Readiness, Some(false), due, due);
    assert!(probes.verdict().ready, "one failure of two");
    probes.learn(Kind::Readiness, Some(false), due, due);
    assert!(!probes.verdict().ready);
}

proptest! {
    /// Against a model that looks at the whole history each time.
    #[test]
    fn only_results_in_a_row_mean_something(
        startup in prop::option::of(1u32..4),
        success in 1u32..4,
        failure in 1u32..4,
        lives in 1u32..4,
        results in prop::collection::vec((0usize..3, prop::option::of(any::<bool>())), 0..80),
    ) {
        let all = [
            startup.map(|failure| thresholds(0, 1, 1, failure)),
            Some(thresholds(0, 1, success, failure)),
            Some(thresholds(0, 1, 1, lives)),
        ];
        let mut probes = Probes::new(all, at(0), None);
        let mut history: [Vec<bool>; 3] = Default::default();
        let mut model = Verdict { started: startup.is_none(), ready: false, failed: None };
        let mut now = 0;
        for (which, result) in results {
            now += SECOND;
            let kind = Kind::ALL[which];
            let due = probes.due_ms(kind);
            let changed = probes.learn(kind, result, now, now);
            let held = model.failed.is_some() || ((kind == Kind::Startup) == model.started);
            prop_assert_eq!(due.is_none(), held || all[which].is_none());
            let before = model;
            if let (false, Some(result)) = (held, result) {
                history[which].push(result);
                let row = history[which].iter().rev().take_while(|it| **it == result).count() as u32;
                let t = all[which].unwrap();
                if row >= if result { t.success } else { t.failure } {
                    match (kind, result) {
                        (Kind::Startup, true) => model.started = true,
                        (Kind::Readiness, ready) => model.ready = ready,
                        (_, false) => {
                            model.failed = Some(kind);
                            model.ready = false;
                        }
                        (Kind::Liveness, true) => {}
                    }
                }
            }
            prop_assert_eq!(probes.verdict(), model);
            prop_assert_eq!(changed, model != before);
            prop_assert!(!model.ready || model.started);
            if let Some(due) = probes.due_ms(kind) {
                prop_assert!(due >= now);
            }
        }
    }
}
