//! Samples of counters over an hour, in a ring of fixed size, and the average over any part of it.

use std::{collections::VecDeque, time::Duration};

/// How long samples are kept, in microseconds.
const HISTORY_US: u64 = 3600 * 1_000_000;

/// How many samples a ring has room for.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Newest samples, each as it came.
    pub fine: usize,
    /// Before those, samples at least so many microseconds apart …
    pub apart_us: u64,
    /// … and so many of them.
    pub coarse: usize,
}

/// Of what is sampled each second: five minutes of it, then each 15 s for an hour.
pub const EACH_SECOND: Shape = Shape {
    fine: 300,
    apart_us: 15_000_000,
    coarse: 240,
};

/// Of what is sampled each five seconds: five minutes of it, then each 30 s for an hour.
pub const EACH_FIVE: Shape = Shape {
    fine: 60,
    apart_us: 30_000_000,
    coarse: 120,
};

/// Samples with their times, in microseconds of a clock that never goes back. All of its memory is taken when the first sample comes: 24 bytes
/// for each sample of two numbers, 13 kB for [`EACH_SECOND`].
#[derive(Debug)]
pub struct Ring<V> {
    shape: Shape,
    fine: VecDeque<(u64, V)>,
    coarse: VecDeque<(u64, V)>,
}

impl<V: Copy> Ring<V> {
    /// An empty ring.
    pub const fn new(shape: Shape) -> Self {
        Self {
            shape,
            fine: VecDeque::new(),
            coarse: VecDeque::new(),
        }
    }

    /// Adds a sample. One that is not later than the newest is dropped: nothing can be measured between the two.
    pub fn push(&mut self, at_us: u64, value: V) {
        if self.newest().is_some_and(|(newest, _)| at_us <= newest) {
            return;
        }
        if self.fine.capacity() == 0 {
            self.fine.reserve_exact(self.shape.fine);
            self.coarse.reserve_exact(self.shape.coarse);
        }
        if self.fine.len() == self.shape.fine
            && let Some(oldest) = self.fine.pop_front()
        {
            self.put_by(oldest);
        }
        self.fine.push_back((at_us, value));
        while self.is_old(at_us) {
            self.coarse.pop_front();
        }
    }

    fn put_by(&mut self, sample: (u64, V)) {
        let newest = self.coarse.back();
        if newest.is_some_and(|(newest, _)| sample.0 - newest < self.shape.apart_us) {
            return;
        }
        if self.coarse.len() == self.shape.coarse {
            self.coarse.pop_front();
        }
        self.coarse.push_back(sample);
    }

    /// Whether the oldest one is of no use any more: a later one reaches as far back as anybody may ask for.
    fn is_old(&self, now_us: u64) -> bool {
        let second = self.coarse.get(1).or_else(|| self.fine.front());
        !self.coarse.is_empty() && second.is_some_and(|(at, _)| now_us - at >= HISTORY_US)
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<(u64, V)> {
        self.fine.back().copied()
    }

    /// Where an average over the last `window` begins, and the newest sample, at which it ends. It begins at the latest sample that is at least so much older, or at
    /// the oldest one. `None` with fewer than two samples.
    pub fn span(&self, window: Duration) -> Option<((u64, V), (u64, V))> {
        let end = self.newest()?;
        let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        let wanted = end.0.saturating_sub(window.max(1));
        let begin = latest(&self.fine, wanted)
            .or_else(|| latest(&self.coarse, wanted))
            .or_else(|| self.coarse.front().or_else(|| self.fine.front()).copied())?;
        (begin.0 < end.0).then_some((begin, end))
    }
}

/// The latest sample that is not later than `at_us`.
fn latest<V: Copy>(samples: &VecDeque<(u64, V)>, at_us: u64) -> Option<(u64, V)> {
    let count = samples.partition_point(|(at, _)| *at <= at_us);
    samples.get(count.checked_sub(1)?).copied()
}

/// A counter of the kernel that begins anew when what it counts does, made into one that only grows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter {
    total: u64,
    seen: Option<u64>,
}

impl Counter {
    /// The next value read. What was counted before the first one is not known to belong to the time that is looked at, and counts as nothing.
    pub fn read(&mut self, value: u64) -> u64 {
        self.total += match self.seen {
            None => 0,
            Some(seen) if seen <= value => value - seen,
            // It began anew in between, at 0.
            Some(_) => value,
        };
        self.seen = Some(value);
        self.total
    }

    /// As [`Self::read`], of a counter that never begins anew, but may be set back a little, as Linux does with `/proc/stat`: then nothing was counted.
    pub fn read_steady(&mut self, value: u64) -> u64 {
        self.seen = self.seen.map(|seen| seen.min(value));
        self.read(value)
    }

    /// What is read next counts from 0: it is of another container.
    pub fn begin_anew(&mut self) {
        self.seen = self.seen.map(|_| 0);
    }
}

/// An average over a time that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Average {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Over which time in fact: what was asked for, or a little more; less, when there are no older samples.
    pub window: Duration,
}

/// Units for each second, of so many in so many microseconds; rounded to the next whole number.
pub fn per_second(units: u64, micros: u64) -> u64 {
    let (units, micros) = (u128::from(units), u128::from(micros.max(1)));
    u64::try_from((units * 1_000_000 + micros / 2) / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn an_average_begins_where_it_was_asked_to() {
        let mut ring = Ring::new(EACH_SECOND);
        assert_eq!(ring.span(Duration::from_secs(15)), None);
        ring.push(SECOND, 7);
        assert_eq!(ring.span(Duration::from_secs(15)), None);
        for second in 2..=20_u64 {
            ring.push(second * SECOND, second);
        }
        let (begin, end) = ring.span(Duration::from_secs(15)).unwrap();
        assert_eq!((begin, end), ((5 * SECOND, 5), (20 * SECOND, 20)));
        let (begin, _) = ring.span(Duration::from_secs(100)).unwrap();
        assert_eq!(begin.0, SECOND, "there is nothing older");
        let (begin, _) = ring.span(Duration::ZERO).unwrap();
        assert_eq!(begin.0, 19 * SECOND);
    }

    #[test]
    fn an_hour_takes_no_more_than_was_said() {
        let mut ring = Ring::new(EACH_SECOND);
        for second in 1..20_000_u64 {
            ring.push(second * SECOND, (second, second));
        }
        let sample = size_of::<(u64, (u64, u64))>();
        let bytes = (ring.fine.capacity() + ring.coarse.capacity()) * sample;
        assert!(bytes <= 13_000, "{bytes}");
        let (begin, end) = ring.span(Duration::from_secs(3600)).unwrap();
        let window = (end.0 - begin.0) / SECOND;
        assert!((3600..=3615).contains(&window), "{window}");
    }

    #[test]
    fn rates_are_rounded() {
        assert_eq!(per_second(1, 2 * SECOND), 1);
        assert_eq!(per_second(1, 3 * SECOND), 0);
        assert_eq!(per_second(u64::MAX, 1), u64::MAX);
        assert_eq!(per_second(5, 0), 5 * SECOND);
    }

    /// What becomes of a container from one sample to the next.
    #[derive(Debug, Clone)]
    enum Step {
        /// So many microseconds pass, in which it uses so much.
        Runs(u64, u64),
        /// It is another one from here on: its counter begins at 0.
        Restarts,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let runs = |micros: std::ops::Range<u64>| {
            (micros, 0..2 * SECOND).prop_map(|(micros, used)| Step::Runs(micros, used))
        };
        let step = prop_oneof![
            30 => runs(990_000..1_050_000),
            2 => runs(SECOND..40 * SECOND),
            1 => runs(600 * SECOND..5000 * SECOND),
            1 => Just(Step::Restarts),
        ];
        prop::collection::vec(step, 1..1500)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn averages_are_what_was_used(steps in steps(), windows in prop::collection::vec(1..4000_u64, 8)) {
            let (mut ring, mut counter) = (Ring::new(EACH_SECOND), Counter::default());
            let (mut now, mut of_this, mut of_all) = (0_u64, 12_345_u64, 0_u64);
            // All samples, with what was used until then.
            let mut all = vec![(now, of_all)];
            let first = counter.read(of_this);
            ring.push(now, first);
            for step in steps {
                match step {
                    Step::Runs(micros, used) => {
                        now += micros;
                        of_this += used;
                        of_all += used;
                        all.push((now, of_all));
                        let total = counter.read(of_this);
                        ring.push(now, total);
                    }
                    Step::Restarts => {
                        of_this = 0;
                        counter.begin_anew();
                    }
                }
            }
            prop_assert!(ring.fine.len() <= EACH_SECOND.fine && ring.coarse.len() <= EACH_SECOND.coarse);
            for seconds in windows {
                let window = seconds.min(3600) * SECOND;
                let Some((begin, end)) = ring.span(Duration::from_micros(window)) else {
                    prop_assert_eq!(all.len(), 1);
                    continue;
                };
                prop_assert_eq!(end.0, now);
                let at = |time: u64| all.iter().find(|(at, _)| *at == time).unwrap().1;
                prop_assert_eq!(end.1 - begin.1, at(end.0) - at(begin.0), "what was used in between");
                // The best beginning of all samples, and what may lie before it.
                let wanted = now.saturating_sub(window);
                let best = all.iter().rev().find(|(at, _)| *at <= wanted).unwrap_or(&all[0]);
                prop_assert!(begin.0 <= best.0.max(all[0].0));
                let before = all.iter().rev().find(|(at, _)| *at + EACH_SECOND.apart_us < best.0);
                prop_assert!(begin.0 >= before.map_or(0, |(at, _)| *at), "{} of {}", begin.0, best.0);
            }
        }
    }
}
