//! The inputs that a plan must not produce itself: the time, and randomness for names and uids.

use barge_proto::v1::Time;
use barge_state::made::made_uid;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the shell takes time and randomness from; tests bring their own.
pub trait Stamps: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Time;
    /// A clock that never jumps, for ages and deadlines.
    fn monotonic(&self) -> Instant;
    /// Fresh randomness for one plan.
    fn seed(&self) -> [u8; 32];
}

/// The machine's clock and random numbers.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemStamps;

impl Stamps for SystemStamps {
    fn now(&self) -> Time {
        // A clock before 1970 counts as 1970: nothing here may depend on it more than for ages.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Time {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        }
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        seed
    }
}

/// The time at which a plan is made, and a sequence of uids and name endings that depends on
/// nothing but a seed: the same state, time and seed make the same plan.
#[derive(Debug)]
pub struct Stamp {
    /// The time of the plan.
    pub now: Time,
    random: StdRng,
}

/// Kubernetes' alphabet for generated names: no vowels, so that no words come out.
pub const NAME_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

impl Stamp {
    /// A stamp for one plan.
    pub fn new(now: Time, seed: [u8; 32]) -> Self {
        Self {
            now,
            random: StdRng::from_seed(seed),
        }
    }

    /// A new uid (a random UUID).
    pub fn uid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes)
            .into_uuid()
            .to_string()
    }

    /// What tells a plan from others with its number.
    pub fn salt(&mut self) -> u16 {
        self.random.random()
    }

    /// A new uid of a record that this plan of its owner makes; a random one when plans are not counted.
    pub fn made_uid(&mut self, plan: Option<u64>) -> String {
        let Some(plan) = plan else {
            return self.uid();
        };
        let mut random = [0; 16];
        self.random.fill_bytes(&mut random);
        made_uid(plan, random)
    }

    /// Five random characters for the end of a generated name.
    pub fn suffix(&mut self) -> String {
        (0..5)
            .map(|_| char::from(NAME_ALPHABET[self.random.random_range(0..NAME_ALPHABET.len())]))
            .collect()
    }
}

/// How long before `now` it was; zero when it is in the future.
pub fn age(now: &Time, then: &Time) -> Duration {
    let nanos = nanos(now).saturating_sub(nanos(then)).max(0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The time that much earlier.
pub fn before(now: &Time, span: Duration) -> Time {
    Time {
        seconds: now
            .seconds
            .saturating_sub(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)),
        nanos: now.nanos,
    }
}

/// Nanoseconds since 1970, for ordering.
pub fn nanos(time: &Time) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}
