//! A manager that life signs go to.

use std::time::Duration;

/// Between signs to a manager that is relied on, or that has not answered the last one.
pub const PACE: Duration = Duration::from_millis(500);
/// Between signs to a second choice that answers.
const PROOF_PACE: Duration = Duration::from_secs(2);

/// One of the managers. All times are the lane's.
#[derive(Debug)]
pub struct Peer {
    /// `host:port`.
    pub address: String,
    /// When it answered last, or was chosen if it has not answered yet.
    pub heard: Duration,
    /// Whether it answered since it was chosen.
    pub has_answered: bool,
    /// How long a sign to it may stay unanswered while it is the second choice.
    pub patience: Duration,
    /// When the last sign went to it.
    signed: Option<Duration>,
    /// When the oldest sign went to it that is not answered.
    asked: Option<Duration>,
}

impl Peer {
    pub fn new(address: String, now: Duration, patience: Duration) -> Self {
        Self {
            address,
            heard: now,
            patience,
            has_answered: false,
            signed: None,
            asked: None,
        }
    }

    pub fn sign(&mut self, now: Duration) {
        self.signed = Some(now);
        self.asked.get_or_insert(now);
    }

    pub fn answered(&mut self, now: Duration) {
        self.heard = now;
        self.has_answered = true;
        self.asked = None;
    }

    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    /// When the next sign goes to it as the first choice.
    pub fn due(&self, now: Duration) -> Duration {
        self.signed.map_or(now, |signed| signed + PACE)
    }

    /// When the next sign goes to it as the second choice. `doubted` says that the first one does not answer.
    pub fn next_proof(&self, now: Duration, doubted: bool) -> Duration {
        match (self.signed, self.asked) {
            (Some(signed), None) if !doubted => signed + PROOF_PACE,
            _ => self.due(now),
        }
    }

    /// When the second choice is given up, unless it answers before.
    pub fn deadline(&self) -> Option<Duration> {
        self.asked.map(|asked| asked + self.patience)
    }
}
