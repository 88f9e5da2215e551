//! Waiting on conditions with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Generous: it decides when a test gives up, never whether something was fast.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Polls until the condition holds, and answers its value.
///
/// # Panics
/// After two minutes, with what was waited for and the last reason why it did not hold.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(DEADLINE, what, condition)
}

/// As [`eventually`], with a deadline of the caller's.
///
/// # Panics
/// After the deadline.
pub fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) if start.elapsed() > deadline => {
                panic!("waited {deadline:?} for: {what}; at last: {why}")
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}
