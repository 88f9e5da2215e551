#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const GRACE: Duration = Duration::from_secs(4);

/// A node that has been silent for so many milliseconds.
fn seen(uid: &'static str, silence: u64) -> Seen<'static> {
    let silence = Duration::from_millis(silence);
    Seen {
        uid,
        name: uid,
        silence,
        counts: true,
        heard: silence <= GRACE,
        lost: false,
        off: false,
    }
}

fn next(nodes: &[Seen<'static>]) -> Option<&'static str> {
    decide(nodes, GRACE).next.map(|next| next.uid)
}

#[test]
fn the_longest_silent_goes_first() {
    let silences = [("a", 0), ("b", 4500), ("c", 5000), ("d", 0), ("e", 10)];
    let five = silences.map(|(uid, silence)| seen(uid, silence));
    assert_eq!(next(&five), Some("c"));
    assert_eq!(next(&five[..2]), Some("b"), "one of two");
}

#[test]
fn when_many_or_all_are_silent_none_goes() {
    let silences = [("a", 5000), ("b", 6000), ("c", 7000), ("d", 0), ("e", 0)];
    let five = silences.map(|(uid, silence)| seen(uid, silence));
    assert_eq!(next(&five), None);
    let held = decide(&five, GRACE).held.unwrap();
    assert_eq!((held.silent, held.counted, held.longest), (3, 5, "c"));
    // Half of six is less than 55 %.
    let six: Vec<_> = five.iter().copied().chain([seen("f", 0)]).collect();
    assert_eq!(next(&six), Some("c"));
    // Two of three are fewer than three; but all are all.
    let three = [seen("a", 5000), seen("b", 6000), seen("c", 0)];
    assert_eq!(next(&three), Some("b"));
    assert_eq!(next(&three[..2]), None);
    assert_eq!(next(&three[..1]), None);
}

#[test]
fn nodes_about_to_be_silent_count_already() {
    // A switch died, and the last sign of one node came a little earlier than those of the others.
    let all = [seen("a", 4100), seen("b", 3200), seen("c", 3300)];
    assert_eq!(next(&all), None);
}

#[test]
fn nodes_that_are_lost_for_long_do_not_count() {
    let nodes = |counts| {
        let lost = |uid| Seen {
            lost: true,
            counts,
            ..seen(uid, 9_000_000)
        };
        [
            lost("a"),
            lost("b"),
            seen("c", 5000),
            seen("d", 0),
            seen("e", 0),
        ]
    };
    assert_eq!(next(&nodes(false)), Some("c"));
    assert_eq!(next(&nodes(true)), None);
}

#[test]
fn a_person_is_believed() {
    let mut all = [seen("a", 5000), seen("b", 6000), seen("c", 7000)];
    all[0].off = true;
    let verdict = decide(&all, GRACE);
    let next = verdict.next.unwrap();
    assert_eq!((next.uid, next.confirmed), ("a", true));
    // Not of a node that is heard.
    let heard = Seen {
        off: true,
        ..seen("a", 100)
    };
    assert_eq!(decide(&[heard], GRACE), Verdict::default());
}
