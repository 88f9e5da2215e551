//! Where the time comes from.

use std::time::{SystemTime, UNIX_EPOCH};

use barge_proto::v1::Time;
use tokio::time::Instant;

/// Tells the time. Waiting is tokio's, so that a test which pauses tokio's time pauses both.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that moves with tokio's time: paused when that is paused.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    epoch_ms: i64,
    start: Instant,
}

impl TokioClock {
    /// A clock that says `epoch_ms` now.
    pub fn starting_at(epoch_ms: i64) -> Self {
        Self {
            epoch_ms,
            start: Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.epoch_ms.saturating_add(elapsed)
    }
}

/// Milliseconds since the epoch as the API's time.
pub fn to_time(ms: i64) -> Time {
    Time {
        seconds: ms.div_euclid(1000),
        nanos: i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}

/// The API's time as milliseconds since the epoch.
pub fn to_ms(time: &Time) -> i64 {
    time.seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(time.nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip() {
        for ms in [0, 1, 999, 1000, 1_700_000_000_123, -1, -1001] {
            assert_eq!(to_ms(&to_time(ms)), ms);
        }
    }
}
