//! When the leader last heard each node: in memory only, by the leader's own clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use barge_proto::v1::LifeSign;
use prometheus_client::metrics::{gauge::Gauge, histogram::Histogram};
use tokio::time::Instant;

use super::Pulse;

/// Seconds between two signs of a node that the leader sees: half a second is usual, two the most that any stall may cause.
const GAPS: [f64; 8] = [0.25, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0];

/// What all nodes have in their rules is looked up anew after this long: the leader answers thousands of signs a second, and looking goes through all nodes.
const FRESH: Duration = Duration::from_millis(50);

/// What the leader heard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Heard {
    led: Arc<Mutex<Option<Led>>>,
    pulse: Pulse,
    gaps: Gaps,
}

/// Of the term in which this manager leads.
#[derive(Debug)]
struct Led {
    term: u64,
    since: Instant,
    nodes: HashMap<String, Life>,
    /// The answer of [`Heard::programmed`], and when it was found.
    programmed: Option<(Instant, u64)>,
}

/// What is known of a node.
#[derive(Debug)]
struct Life {
    last: Instant,
    confirmed: Option<Instant>,
    roots: Option<[u8; 32]>,
    /// What its rules have; 0: nothing was told.
    programmed: u64,
}

/// The time between two signs of a node, as the leader sees them.
#[derive(Debug, Clone)]
pub struct Gaps {
    /// All of them, in seconds.
    pub all: Histogram,
    /// The longest since this manager began to lead, in seconds.
    pub longest: Gauge<f64, AtomicU64>,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            led: Arc::default(),
            pulse: Pulse::new(Instant::now()),
            gaps: Gaps {
                all: Histogram::new(GAPS),
                longest: Gauge::default(),
            },
        }
    }
}

impl Heard {
    /// This manager leads in `term` from now on; what an earlier leader heard is not known here.
    pub fn begin(&self, term: u64, now: Instant) {
        self.gaps.longest.set(0.0);
        *self.lock() = Some(Led {
            term,
            since: now,
            nodes: HashMap::new(),
            programmed: None,
        });
    }

    /// This manager does not lead any more.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// A sign of a node that a manager received at `at`. Answers how long this manager has led; None when it does not lead in
    /// `term`. A sign that was received before one that is known says nothing new about when the node lived.
    pub fn hear(
        &self,
        term: u64,
        node_uid: &str,
        sign: &LifeSign,
        at: Instant,
        now: Instant,
    ) -> Option<Duration> {
        let mut led = self.lock();
        let led = led.as_mut().filter(|led| led.term == term)?;
        let leading = now.saturating_duration_since(led.since);
        let roots = sign.roots_sha256.as_slice().try_into().ok();
        let stamp = Duration::from_millis(sign.answered_stamp);
        let confirmed = (sign.answered_term == term && stamp <= leading).then(|| led.since + stamp);
        match led.nodes.get_mut(node_uid) {
            Some(life) => {
                let gap = at.saturating_duration_since(life.last).as_secs_f64();
                if gap > 0.0 {
                    self.gaps.all.observe(gap);
                    self.gaps.longest.set(self.gaps.longest.get().max(gap));
                }
                if at >= life.last {
                    life.programmed = sign.programmed_revision;
                }
                life.last = at.max(life.last);
                life.confirmed = life.confirmed.max(confirmed);
                life.roots = roots.or(life.roots);
            }
            None => {
                let life = Life {
                    last: at,
                    confirmed,
                    roots,
                    programmed: sign.programmed_revision,
                };
                led.nodes.insert(node_uid.to_owned(), life);
            }
        }
        Some(leading)
    }

    /// When the node was heard from last, while this manager led; absent when it was not.
    #[must_use]
    pub fn last_heard(&self, node_uid: &str) -> Option<Instant> {
        self.of(node_uid, |life| Some(life.last))
    }

    /// The latest moment at which the node certainly lived: the leader gave an answer then, and the node has said since that it got
    /// it. A sign alone may have lain in the buffers of a manager that was stopped.
    #[must_use]
    pub fn confirmed(&self, node_uid: &str) -> Option<Instant> {
        self.of(node_uid, |life| life.confirmed)
    }

    /// The digest of the roots that the node trusts, as it said last; absent when it said nothing while this manager led.
    #[must_use]
    pub fn trusts(&self, node_uid: &str) -> Option<[u8; 32]> {
        self.of(node_uid, |life| life.roots)
    }

    /// The lowest revision that any live node has in its rules; 0 while a node has not told. A node counts until it has been silent for `grace`, after which it is
    /// taken for lost; one of the `nodes` of the cluster that was not heard yet counts until this manager has listened for as long.
    #[must_use]
    pub fn programmed(&self, nodes: usize, grace: Duration, now: Instant) -> u64 {
        let awake = self.pulse.awake_since(now);
        let mut led = self.lock();
        let Some(led) = led.as_mut() else { return 0 };
        let fresh = led.programmed.filter(|(at, _)| now < *at + FRESH);
        if let Some((_, programmed)) = fresh {
            return programmed;
        }
        let attentive = led.since.max(awake);
        let is_live = |heard: Instant| now.saturating_duration_since(heard.max(attentive)) < grace;
        let unheard = led.nodes.len() < nodes && is_live(attentive);
        let live = led.nodes.values().filter(|life| is_live(life.last));
        let lowest = live.map(|life| life.programmed).min();
        let programmed = lowest.filter(|_| !unheard).unwrap_or(0);
        led.programmed = Some((now, programmed));
        programmed
    }

    /// Since when this manager has led and been awake: before, silence says nothing. Absent when it does not lead.
    #[must_use]
    pub fn attentive_since(&self, now: Instant) -> Option<Instant> {
        let since = self.lock().as_ref()?.since;
        Some(since.max(self.pulse.awake_since(now)))
    }

    /// How many nodes were heard from.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().as_ref().map_or(0, |led| led.nodes.len())
    }

    /// Forgets nodes that are gone.
    pub fn retain(&self, mut lives: impl FnMut(&str) -> bool) {
        if let Some(led) = &mut *self.lock() {
            led.nodes.retain(|uid, _| lives(uid));
        }
    }

    /// Ticks while this process runs.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// For metrics.
    #[must_use]
    pub fn gaps(&self) -> Gaps {
        self.gaps.clone()
    }

    fn of<T>(&self, node_uid: &str, look: impl FnOnce(&Life) -> Option<T>) -> Option<T> {
        look(self.lock().as_ref()?.nodes.get(node_uid)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Led>> {
        self.led.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(term: u64, stamp: u64) -> LifeSign {
        LifeSign {
            answered_term: term,
            answered_stamp: stamp,
            ..LifeSign::default()
        }
    }

    #[test]
    fn a_leader_notes_what_it_hears_in_its_term() {
        let heard = Heard::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let hear = |term, ms| heard.hear(term, "n", &LifeSign::default(), at(ms), at(ms));
        assert_eq!(hear(1, 0), None, "it does not lead");
        heard.begin(2, at(2000));
        assert_eq!(heard.last_heard("n"), None);
        assert_eq!(hear(1, 2100), None, "another term");
        assert_eq!(hear(2, 4000), Some(Duration::from_secs(2)));
        hear(2, 3000);
        assert_eq!(heard.last_heard("n"), Some(at(4000)), "news that is late");
        assert_eq!(heard.count(), 1);
        heard.retain(|_| false);
        assert_eq!(heard.count(), 0);
        heard.end();
        assert_eq!(hear(2, 5000), None);
    }

    #[test]
    fn only_an_answer_that_came_back_confirms_a_life() {
        let heard = Heard::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        heard.begin(2, start);
        heard.hear(2, "n", &answered(1, 500), at(1000), at(1000));
        assert_eq!(heard.confirmed("n"), None, "an answer of an earlier leader");
        heard.hear(2, "n", &answered(2, 9000), at(1100), at(1100));
        assert_eq!(
            heard.confirmed("n"),
            None,
            "an answer that was not given yet"
        );
        heard.hear(2, "n", &answered(2, 1000), at(1500), at(1500));
        assert_eq!(heard.confirmed("n"), Some(at(1000)));
        heard.hear(2, "n", &answered(2, 300), at(60_000), at(60_000));
        assert_eq!(
            heard.confirmed("n"),
            Some(at(1000)),
            "an old sign out of a buffer"
        );
    }

    #[test]
    fn what_every_live_node_has_in_its_rules_is_the_lowest_of_what_they_told() {
        const GRACE: Duration = Duration::from_secs(4);
        let heard = Heard::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // The process runs: no silence is its own.
        let mut ticked = 0;
        let mut programmed = |ms: u64| {
            while ticked < ms {
                ticked += 500;
                heard.pulse().tick(at(ticked.min(ms)));
            }
            heard.programmed(3, GRACE, at(ms))
        };
        let hear = |node: &str, revision, ms| {
            let sign = LifeSign {
                programmed_revision: revision,
                ..LifeSign::default()
            };
            heard.hear(2, node, &sign, at(ms), at(ms));
        };
        assert_eq!(programmed(0), 0, "it does not lead");
        heard.begin(2, start);
        hear("a", 7, 100);
        hear("b", 9, 100);
        assert_eq!(programmed(200), 0, "the third is not known");
        hear("c", u64::MAX, 300);
        assert_eq!(programmed(400), 7, "one that boasts moves nothing");
        hear("a", 8, 500);
        assert_eq!(programmed(600), 8);
        hear("a", 0, 700);
        assert_eq!(
            programmed(800),
            0,
            "an agent that was started again, or an older one"
        );
        hear("a", 9, 900);
        hear("a", 3, 850);
        assert_eq!(programmed(1000), 9, "news that is late");
        // The first one falls silent with an old revision.
        hear("b", 12, 4000);
        hear("c", 12, 4000);
        assert_eq!(programmed(4800), 9, "it may still send");
        assert_eq!(programmed(5000), 12, "it is not ready any more");
        assert_eq!(programmed(9000), 0, "nobody is heard");
        // A new leader waits for those that it has not heard, for as long as for those that fall silent.
        heard.begin(3, at(10_000));
        let sign = LifeSign {
            programmed_revision: 20,
            ..LifeSign::default()
        };
        heard.hear(3, "b", &sign, at(13_500), at(13_500));
        assert_eq!(programmed(13_900), 0);
        assert_eq!(programmed(14_100), 20);
    }

    #[test]
    fn a_leader_that_was_stopped_takes_nobody_for_silent() {
        let heard = Heard::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        heard.begin(2, start);
        for (node, programmed_revision) in [("slow", 3), ("fast", 9)] {
            let sign = LifeSign {
                programmed_revision,
                ..LifeSign::default()
            };
            heard.hear(2, node, &sign, at(100), at(100));
        }
        let programmed = heard.programmed(2, Duration::from_secs(4), at(60_000));
        assert_eq!(programmed, 3, "nobody was listening for a minute");
    }
}
