//! [`Time`]: RFC 3339 in UTC with whole seconds.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::v1::Time;

impl Time {
    /// The point in time `seconds` after the Unix epoch.
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// As a timestamp; an error when it is outside of the years -9999 to 9999.
    pub fn timestamp(&self) -> Result<Timestamp, jiff::Error> {
        Timestamp::new(self.seconds, self.nanos)
    }

    /// Whether this is a point in time that can be written down (years -9999 to 9999).
    pub fn is_valid(&self) -> bool {
        self.timestamp().is_ok()
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        Self {
            seconds: timestamp.as_second(),
            nanos: timestamp.subsec_nanosecond(),
        }
    }
}

/// RFC 3339 in UTC with whole seconds; for a point that has none, the seconds since the epoch ("@9223372036854775807").
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.seconds) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "@{}", self.seconds),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timestamp = Timestamp::from_second(self.seconds).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&timestamp)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let timestamp: Timestamp = text.parse().map_err(|_| {
            D::Error::custom(format_args!(
                "expected a time such as \"2026-01-02T15:04:05Z\" (RFC 3339), found {text:?}"
            ))
        })?;
        Ok(timestamp.into())
    }
}
