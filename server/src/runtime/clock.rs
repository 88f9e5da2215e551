//! The clock, and new identities: time and uids are stamped here, where a request enters the cluster.

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
    let mut text = uuid::Uuid::encode_buffer();
    new_id().hyphenated().encode_lower(&mut text).to_owned()
}

/// A random UUID (RFC 9562, version 4). Every write draws some: the thread's own generator, which is seeded by the system, spares
/// a call to the system each time.
#[must_use]
pub fn new_id() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// How long this manager waits for what others should do at once.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
