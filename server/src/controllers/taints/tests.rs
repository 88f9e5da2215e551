#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use std::slice;

fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
    Toleration {
        key: key.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
        effect: effect.to_owned(),
        toleration_seconds: None,
    }
}

fn taint(key: &str, value: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: value.to_owned(),
        effect: effect.to_owned(),
        time_added: Some(at(100)),
    }
}

fn at(seconds: i64) -> Time {
    Time { seconds, nanos: 0 }
}

fn for_seconds(seconds: i64) -> Toleration {
    Toleration {
        toleration_seconds: Some(seconds),
        ..toleration("node.kubernetes.io/unreachable", "Exists", "", NO_EXECUTE)
    }
}

#[test]
fn key_value_and_effect_have_to_fit() {
    let database = taint("dedicated", "database", NO_SCHEDULE);
    for (toleration, fits) in [
        (toleration("dedicated", "", "database", ""), true),
        (
            toleration("dedicated", "Equal", "database", NO_SCHEDULE),
            true,
        ),
        (toleration("dedicated", "Exists", "", ""), true),
        (toleration("", "Exists", "", ""), true),
        (toleration("dedicated", "Equal", "web", ""), false),
        (toleration("dedicated", "Exists", "", NO_EXECUTE), false),
        (toleration("other", "Exists", "", ""), false),
        (toleration("", "Equal", "database", ""), false),
    ] {
        assert_eq!(
            admits(slice::from_ref(&toleration), &database),
            fits,
            "{toleration:?}"
        );
    }
    assert!(!admits(&[], &database));
    assert!(!admits(&[], &taint("dedicated", "database", NO_EXECUTE)));
}

#[test]
fn kubernetes_name_of_our_taint_is_as_good() {
    let ours = unreachable(at(100));
    let named = |key: &str| toleration(key, "Exists", "", NO_EXECUTE);
    assert!(admits(&[named("node.kubernetes.io/unreachable")], &ours));
    assert!(admits(&[named("node.barge.dev/unreachable")], &ours));
    assert!(!admits(&[named("node.kubernetes.io/not-ready")], &ours));
    // Not the other way round: a taint of Kubernetes' name is a person's.
    let theirs = taint("node.kubernetes.io/unreachable", "", NO_EXECUTE);
    assert!(!admits(&[named("node.barge.dev/unreachable")], &theirs));
}

#[test]
fn a_pod_stays_for_as_long_as_it_says() {
    let ours = [unreachable(at(100))];
    let seconds = |number| Some(Duration::from_secs(number));
    assert_eq!(stays(&[], &ours, &at(100)), seconds(0));
    assert_eq!(stays(&[for_seconds(300)], &ours, &at(110)), seconds(290));
    assert_eq!(stays(&[for_seconds(300)], &ours, &at(400)), seconds(0));
    assert_eq!(stays(&[for_seconds(-1)], &ours, &at(100)), seconds(0));
    let for_ever = toleration(UNREACHABLE, "Exists", "", "");
    assert_eq!(stays(slice::from_ref(&for_ever), &ours, &at(9_999)), None);
    // The shortest of those that fit.
    assert_eq!(
        stays(&[for_ever.clone(), for_seconds(30)], &ours, &at(100)),
        seconds(30)
    );
    // Every taint has to be tolerated; NoSchedule ends nothing.
    let [first] = ours;
    let both = [first.clone(), taint("gpu", "", NO_EXECUTE)];
    assert_eq!(
        stays(slice::from_ref(&for_ever), &both, &at(100)),
        seconds(0)
    );
    let both = [first, taint("gpu", "", NO_SCHEDULE)];
    assert_eq!(stays(&[for_ever], &both, &at(100)), None);
}
