//! The edge where time and identities are stamped on what enters the cluster.

use std::time::{SystemTime, UNIX_EPOCH};

use barge_proto::v1::Time;

/// Now, by this machine's clock.
#[must_use]
pub fn now() -> Time {
    time(SystemTime::now())
}

/// A point in time as the schema has it.
#[must_use]
pub fn time(at: SystemTime) -> Time {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Time {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// A new identity.
#[must_use]
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// How long this manager waits for what others should do at once.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
