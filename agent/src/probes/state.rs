//! What the results of a container's probes mean: a pure machine of thresholds over results and times.
//!
//! Invariants, asserted over generated cases: a container is ready only after its startup probe succeeded; only failures in a row, as
//! many as the threshold, change what is known; an attempt that counts nothing changes nothing but the time of the next one.

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Holds the others back until it succeeds. Its failure ends the container.
    Startup,
    /// Decides whether the container gets traffic.
    Readiness,
    /// Its failure ends the container.
    Liveness,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// As a sentence begins with it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// When a probe asks, and how many answers count. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// From the container's start to the first attempt.
    pub initial_delay_ms: i64,
    /// From the beginning of an attempt to that of the next.
    pub period_ms: i64,
    /// Successes in a row, at least 1.
    pub success: u32,
    /// Failures in a row, at least 1.
    pub failure: u32,
}

/// What is known of a container by its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Its startup probe succeeded, or it has none.
    pub started: bool,
    /// It may get traffic.
    pub ready: bool,
    /// The probe because of which it is to be ended.
    pub failed: Option<Kind>,
}

/// A time at which a container started, and the time now, on one clock, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// When the container started.
    pub started_ms: i64,
    /// Now.
    pub now_ms: i64,
    /// Between 0 and 1: where in its period the first attempt of a container that has run for long falls, so that those of a machine
    /// do not all fall on one instant.
    pub spread: f64,
}

/// The probes of one attempt of a container.
#[derive(Debug, Clone)]
pub struct Probes {
    counters: [Option<Counter>; 3],
    started_ms: i64,
    verdict: Verdict,
}

#[derive(Debug, Clone)]
struct Counter {
    thresholds: Thresholds,
    /// The last result that counted.
    last: Option<bool>,
    /// How often it came in a row.
    run: u32,
    due_ms: i64,
}

impl Probes {
    /// The probes of a container, in the order of [`Kind::ALL`]. `remembered` is what was known of it before this process began.
    pub fn new(
        thresholds: [Option<Thresholds>; 3],
        begin: Begin,
        remembered: Option<Verdict>,
    ) -> Self {
        let [startup, readiness, _] = thresholds;
        let started = startup.is_none() || remembered.is_some_and(|known| known.started);
        let ready = started && (readiness.is_none() || remembered.is_some_and(|known| known.ready));
        let counter = |thresholds: Thresholds| Counter {
            thresholds,
            last: None,
            run: 0,
            due_ms: first_due(thresholds, begin),
        };
        Self {
            counters: thresholds.map(|thresholds| thresholds.map(counter)),
            started_ms: begin.started_ms,
            verdict: Verdict {
                started,
                ready,
                failed: None,
            },
        }
    }

    /// What is known.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// When the next attempt of a probe is due; `None` while it is held back, and when there is no such probe.
    pub fn due_ms(&self, kind: Kind) -> Option<i64> {
        let held = match kind {
            Kind::Startup => self.verdict.started,
            Kind::Readiness | Kind::Liveness => !self.verdict.started,
        };
        if held || self.verdict.failed.is_some() {
            return None;
        }
        self.counters[kind as usize].as_ref().map(|it| it.due_ms)
    }

    /// Learns the result of an attempt that began at `begun_ms`; `None` counts nothing. Answers whether the verdict is another one.
    pub fn learn(&mut self, kind: Kind, success: Option<bool>, begun_ms: i64, now_ms: i64) -> bool {
        let is_held = self.due_ms(kind).is_none();
        let Some(counter) = &mut self.counters[kind as usize] else {
            return false;
        };
        let next = begun_ms.saturating_add(counter.thresholds.period_ms);
        counter.due_ms = next.max(now_ms);
        // A result that was on its way when its probe was held back means nothing any more.
        let Some(success) = success.filter(|_| !is_held) else {
            return false;
        };
        if !counter.count(success) {
            return false;
        }
        let before = self.verdict;
        match (kind, success) {
            (Kind::Startup, true) => self.start(now_ms),
            (Kind::Readiness, ready) => self.verdict.ready = ready,
            (Kind::Startup | Kind::Liveness, false) => {
                self.verdict.failed = Some(kind);
                self.verdict.ready = false;
            }
            (Kind::Liveness, true) => {}
        }
        self.verdict != before
    }

    /// The startup probe succeeded: the other probes begin at once, unless their delay is not over.
    fn start(&mut self, now_ms: i64) {
        self.verdict.started = true;
        self.verdict.ready = self.counters[Kind::Readiness as usize].is_none();
        for kind in [Kind::Readiness, Kind::Liveness] {
            if let Some(counter) = &mut self.counters[kind as usize] {
                let delayed = self.started_ms + counter.thresholds.initial_delay_ms;
                counter.due_ms = delayed.max(now_ms);
            }
        }
    }
}

impl Counter {
    /// Counts a result. True when it came as often in a row as it must to mean something.
    fn count(&mut self, success: bool) -> bool {
        self.run = match self.last {
            Some(last) if last == success => self.run.saturating_add(1),
            _ => 1,
        };
        self.last = Some(success);
        let needed = match success {
            true => self.thresholds.success,
            false => self.thresholds.failure,
        };
        self.run >= needed
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a part of a period"
)]
fn first_due(thresholds: Thresholds, begin: Begin) -> i64 {
    let due = begin.started_ms.saturating_add(thresholds.initial_delay_ms);
    if due.saturating_add(thresholds.period_ms) > begin.now_ms {
        return due.max(begin.now_ms);
    }
    let part = begin.spread.clamp(0.0, 1.0) * thresholds.period_ms as f64;
    begin.now_ms.saturating_add(part as i64)
}

#[cfg(test)]
mod tests;
