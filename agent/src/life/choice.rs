//! Which managers an agent signs to, and when: a function of the time, the managers' addresses and their answers.
//!
//! The first choice is signed to all the time. While it is silent, the second one is, too, so the leader hears of the node through one
//! of them. The agent moves to the second choice only if that answers: while the cluster has no leader nobody answers, and
//! all agents stay where they are.

use std::{collections::BTreeMap, time::Duration};

use barge_proto::v1::LifeAnswer;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

mod peer;

use peer::{PACE, Peer};

/// A first choice that has not answered for so long is doubted: the second one is signed to at the same pace.
const DOUBT: Duration = Duration::from_secs(1);
/// So long after its first answer in place of the first choice the second one may take over. After an election all managers
/// find the new leader within a moment, and whose agents hear of that first means nothing.
const MARGIN: Duration = Duration::from_secs(1);
/// The node grace, until a manager tells it.
const GRACE: Duration = Duration::from_secs(4);
/// Bounds of half the node grace, whatever is told.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_secs(60));
/// How long a second choice may leave a sign unanswered; doubled for each further one that does, [`DOUBLINGS`] times, and spread.
const SECOND_PATIENCE: Duration = Duration::from_secs(2);
/// See [`SECOND_PATIENCE`].
const DOUBLINGS: u32 = 3;
/// The lane's clock goes on by at most this between two looks at it: what is longer is a pause of this process, and nobody's silence.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// A sign goes to each of these managers.
    pub sign: Vec<String>,
    /// The next step is due after so long, or as soon as something has happened.
    pub wait: Duration,
}

/// The choice of managers.
#[derive(Debug)]
pub struct Choice {
    rng: SmallRng,
    /// The lane's clock, which stands still while this process does not run.
    now: Duration,
    /// The clock of the caller when it was looked at last.
    looked: Option<Duration>,
    members: Vec<String>,
    by_hand: Vec<String>,
    first: Option<Peer>,
    second: Option<Peer>,
    /// When managers were left that were the first or second choice: the next one is who never was, or not for the longest time.
    left: BTreeMap<String, Duration>,
    /// Managers left in a row since a second choice answered.
    fruitless: usize,
    /// The session with the first choice ended, and none has begun since: the agent moves as soon as the second one has answered.
    given_up: bool,
    /// When the second choice answered first since the first one has been doubted.
    substitute: Option<Duration>,
    /// Silence after which the first choice is left.
    patience: Duration,
    /// When any manager answered last.
    heard: Duration,
    /// Term and stamp of the newest answer.
    newest: (u64, u64),
}

impl Choice {
    /// No choice yet. The seed spreads agents over managers.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            looked: None,
            members: Vec::new(),
            by_hand: Vec::new(),
            first: None,
            second: None,
            left: BTreeMap::new(),
            fruitless: 0,
            given_up: false,
            substitute: None,
            patience: GRACE / 2,
            heard: Duration::ZERO,
            newest: (0, 0),
        }
    }

    /// The manager to be with.
    pub fn first(&self) -> Option<&str> {
        self.first.as_ref().map(|peer| peer.address.as_str())
    }

    /// Both choices.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let peers = self.first.iter().chain(&self.second);
        peers.map(|peer| peer.address.as_str())
    }

    /// Term and stamp of the newest answer.
    pub fn newest(&self) -> (u64, u64) {
        self.newest
    }

    /// Whether any manager answers.
    pub fn is_heard(&self) -> bool {
        self.now - self.heard < self.patience
    }

    /// Where the managers are. `by_hand` are addresses that may lead to the same managers, or to none: they are used when no
    /// member is known or all of them are silent.
    pub fn know(&mut self, members: Vec<String>, by_hand: Vec<String>) {
        if members == self.members && by_hand == self.by_hand {
            return;
        }
        let known = |address: &str| members.iter().chain(&by_hand).any(|known| known == address);
        self.left.retain(|address, _| known(address));
        self.second.take_if(|peer| !known(&peer.address));
        if self.first.take_if(|peer| !known(&peer.address)).is_some() {
            self.first = self.second.take();
            self.given_up = false;
        }
        (self.members, self.by_hand) = (members, by_hand);
    }

    /// A manager answered.
    pub fn answered(&mut self, clock: Duration, address: &str, answer: &LifeAnswer) {
        self.look(clock);
        let now = self.now;
        self.heard = now;
        self.newest = self.newest.max((answer.term, answer.stamp));
        if answer.node_grace_ms > 0 {
            let half = Duration::from_millis(answer.node_grace_ms.into()) / 2;
            self.patience = half.clamp(PATIENCE.0, PATIENCE.1);
        }
        let doubted = self.is_first_doubted();
        if let Some(first) = self.first.as_mut().filter(|p| p.address == address) {
            first.answered(now);
            self.substitute = None;
        } else if let Some(second) = self.second.as_mut().filter(|p| p.address == address) {
            second.answered(now);
            second.patience = SECOND_PATIENCE;
            self.fruitless = 0;
            if doubted {
                self.substitute.get_or_insert(now);
            }
        }
    }

    /// The session with a manager ended. If that is the first choice it is left for the second one, as soon as that has answered:
    /// one that never did may be dead. While the first one does not answer either, any other manager is as good.
    pub fn give_up(&mut self, address: &str) {
        if self.first() != Some(address) {
            return;
        }
        self.fruitless = self.fruitless.saturating_add(1);
        self.given_up = true;
        self.leave_given_up();
    }

    /// A session with a manager began: if that is the first choice it is not left for having lost one before.
    pub fn settled(&mut self, address: &str) {
        if self.first() == Some(address) {
            self.given_up = false;
        }
    }

    fn leave_given_up(&mut self) {
        let proven = |second: &Peer| second.has_answered;
        if !self.given_up || self.is_first_heard() && !self.second.as_ref().is_some_and(proven) {
            return;
        }
        if let Some(next) = self.second.take().or_else(|| self.choose()) {
            self.move_to(next);
        }
    }

    /// What to do while no sign may go out: managers are chosen, and the silence of none counts.
    pub fn wait(&mut self, clock: Duration) -> Step {
        self.look(clock);
        self.heard = self.now;
        for peer in self.first.iter_mut().chain(&mut self.second) {
            peer.heard = self.now;
        }
        // Nobody has answered, so one manager is as good as another.
        if self.given_up
            && let Some(next) = self.second.take().or_else(|| self.choose())
        {
            self.move_to(next);
        }
        if self.first.is_none() {
            self.first = self.choose();
        }
        if self.second.is_none() {
            self.second = self.choose();
        }
        Step {
            sign: Vec::new(),
            wait: PACE,
        }
    }

    /// What to do now.
    pub fn step(&mut self, clock: Duration) -> Step {
        self.look(clock);
        let now = self.now;
        if self.move_due().is_some_and(|due| due <= now)
            && let Some(second) = self.second.take()
        {
            self.move_to(second);
        }
        self.leave_given_up();
        self.replace_second();
        if self.first.is_none() {
            self.first = self.choose();
        }
        if self.second.is_none() {
            self.second = self.choose();
            self.substitute = None;
        }
        let doubted = self.is_first_doubted();
        let mut sign = Vec::new();
        if let Some(first) = self.first.as_mut().filter(|first| first.due(now) <= now) {
            first.sign(now);
            sign.push(first.address.clone());
        }
        let due = |second: &Peer| second.next_proof(now, doubted) <= now;
        if let Some(second) = self.second.as_mut().filter(|second| due(second)) {
            second.sign(now);
            sign.push(second.address.clone());
        }
        let next = self.next_due(doubted);
        Step {
            sign,
            wait: next.map_or(PACE, |due| due - now).min(PACE),
        }
    }

    /// When something is due next, after now.
    fn next_due(&self, doubted: bool) -> Option<Duration> {
        let now = self.now;
        let first = self.first.as_ref();
        let second = self.second.as_ref();
        let due = [
            first.map(|peer| peer.due(now)),
            first.map(|peer| peer.heard + DOUBT),
            second.map(|peer| peer.next_proof(now, doubted)),
            second.and_then(Peer::deadline),
            self.move_due(),
        ];
        due.into_iter().flatten().filter(|due| *due > now).min()
    }

    /// When the agent moves to the second choice, unless the first one answers before or the second one does not.
    fn move_due(&self) -> Option<Duration> {
        let (first, second) = (self.first.as_ref()?, self.second.as_ref()?);
        let substitute = self
            .substitute
            .filter(|_| second.silence(self.now) < DOUBT)?;
        Some((first.heard + self.patience).max(substitute + MARGIN))
    }

    fn is_first_doubted(&self) -> bool {
        let first = self.first.as_ref();
        first.is_some_and(|first| first.silence(self.now) >= DOUBT)
    }

    fn move_to(&mut self, next: Peer) {
        self.substitute = None;
        self.given_up = false;
        if let Some(before) = self.first.replace(next) {
            self.left.insert(before.address, self.now);
        }
    }

    /// Exchanges a second choice that does not answer, if there is another manager.
    fn replace_second(&mut self) {
        let silent = |peer: &Peer| peer.deadline().is_some_and(|deadline| deadline <= self.now);
        if !self.second.as_ref().is_some_and(silent) {
            return;
        }
        self.fruitless = self.fruitless.saturating_add(1);
        if let Some(next) = self.choose()
            && let Some(before) = self.second.replace(next)
        {
            self.left.insert(before.address, self.now);
            self.substitute = None;
        }
    }

    /// A manager that is neither choice: at random among those that never were, or else who has not been for the longest time.
    fn choose(&mut self) -> Option<Peer> {
        let lost = self.fruitless >= self.members.len() && !self.is_first_heard();
        let by_hand = if lost { self.by_hand.as_slice() } else { &[] };
        let taken = |address: &String| self.addresses().any(|taken| taken == address);
        let mut others: Vec<_> = self
            .members
            .iter()
            .chain(by_hand)
            .filter(|a| !taken(a))
            .cloned()
            .collect();
        others.shuffle(&mut self.rng);
        let address = others
            .into_iter()
            .min_by_key(|address| self.left.get(address))?;
        let doublings = u32::try_from(self.fruitless).map_or(DOUBLINGS, |n| n.min(DOUBLINGS));
        let patience = SECOND_PATIENCE * 2_u32.pow(doublings);
        let patience = patience.mul_f64(self.rng.random_range(1.0..=1.25));
        Some(Peer::new(address, self.now, patience))
    }

    fn is_first_heard(&self) -> bool {
        let first = self.first.as_ref();
        first.is_some_and(|first| first.silence(self.now) < self.patience)
    }

    fn look(&mut self, clock: Duration) {
        let before = self.looked.replace(clock).unwrap_or(clock);
        self.now += clock.saturating_sub(before).min(LONGEST_STEP);
    }
}

#[cfg(test)]
mod tests;
