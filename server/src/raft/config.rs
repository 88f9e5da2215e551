//! Raft's settings. Each that differs from openraft's default says why.

use std::{sync::Arc, time::Duration};

use openraft::{Config, ConfigError, SnapshotPolicy};

/// How fast a lost leader is noticed. A failover takes at least `election_max` and at most three times that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader. Default 50 ms.
    pub heartbeat: Duration,
    /// The shortest time without one before an election. Default 150 ms.
    pub election_min: Duration,
    /// The longest; also how long a leader's lease is. Default 300 ms.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
        }
    }
}

/// A learner within this many entries of the leader may become a voter.
const CAUGHT_UP: u64 = 1_000;

pub(crate) fn config(cluster_id: &str, timing: Timing) -> Result<Arc<Config>, ConfigError> {
    let election_max = millis(timing.election_max);
    let config = Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: election_max,
        // A leader that comes back without the tail of its log that it had not flushed must not go on in the same term:
        // it would give the ids of acknowledged entries to other ones. With an election the tail comes back from a voter.
        enable_leader_restore: Some(false),
        // A manager that was cut off must not depose a healthy leader when it comes back.
        enable_pre_vote: Some(true),
        // A leader without a quorum stops keeping its followers from electing another one. Shorter than the lease plus an
        // election, it would do so to itself.
        quorum_loss_probe_interval: Some(2 * election_max),
        // Taken, and the log purged, by bytes and not by the number of entries: see `snapshots`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Requests are cut by bytes where the log is read; this bounds only how many tiny entries one has.
        max_payload_entries: 4_096,
        replication_lag_threshold: CAUGHT_UP,
        // A follower that restarts is back within half a second.
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_protects_acknowledged_writes_is_on() {
        let config = config("c", Timing::default()).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.allow_log_reversion, None);
        assert_eq!(config.quorum_loss_probe_interval, Some(600));
    }
}
