//! The metrics of this manager, for Prometheus.
//!
//! Components own their instruments. This module names them, adds gauges whose values it looks up at each scrape, and writes
//! OpenMetrics text. The table of names is in the user guide (`docs/guide/observe.md`).

mod http;
mod process;

use std::{
    fmt,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use barge_client::identity::KeptIdentity;
use barge_proto::v1::GetTokenKeysResponse;
pub use http::serve;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    api::accounts,
    calls::shares::Shares,
    controllers::meters::Meters,
    life::heard::Gaps,
    observe::{requests::Requests, spans::Spans},
    sessions::Sessions,
    store::Store,
};

/// Where the numbers come from.
pub struct Sources {
    /// The state and its Raft.
    pub store: Store,
    /// The agents that are connected here.
    pub sessions: Sessions,
    /// The calls that are served here.
    pub requests: Requests,
    /// What clients use of this manager.
    pub shares: Shares,
    /// Between the life signs of nodes, while this manager leads.
    pub gaps: Gaps,
    /// The leader's loops, while this manager leads.
    pub controllers: Meters,
    /// Who this manager is, for its certificate's end.
    pub identity: KeptIdentity,
    /// What became of spans.
    pub spans: Spans,
}

type Number = Gauge<u64, AtomicU64>;
type Seconds = Gauge<f64, AtomicU64>;

/// Everything that can be asked for.
pub struct Metrics {
    registry: Registry,
    sources: Sources,
    looked_up: LookedUp,
}

/// Which member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Member {
    member: u64,
}

/// Gauges that are set at each scrape.
#[derive(Default)]
struct LookedUp {
    term: Number,
    leads: Number,
    last: Number,
    committed: Number,
    applied: Number,
    snapshot: Number,
    purged: Number,
    voters: Number,
    lag: Family<Member, Number>,
    revision: Number,
    log_bytes: Number,
    snapshot_age: Seconds,
    disk_free: Number,
    disk_floor: Number,
    watches: Number,
    sessions: Number,
    requests: Number,
    in_flight: Number,
    certificate: Number,
    memory: Number,
    files: Number,
    history: Number,
    history_changes: Number,
    requests_remembered: Number,
    requests_bytes: Number,
    events: Number,
    log_tail: Number,
    write_buffers: Number,
    block_cache: Number,
    table_readers: Number,
}

impl Metrics {
    /// Names everything.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        let all = LookedUp::default();
        all.register(&mut registry);
        let barge = registry.sub_registry_with_prefix("barge");
        barge.register(
            "build",
            "The version that runs",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let instruments = sources.store.instruments();
        barge.register_with_unit(
            "storage_log_sync_duration",
            "Writing a batch of the Raft log with its fsync",
            Unit::Seconds,
            instruments.log_syncs,
        );
        barge.register(
            "raft_leader_changes",
            "Leaders that this manager has seen come",
            instruments.leader_changes,
        );
        barge.register(
            "store_proposals_rejected",
            "Writes refused because too many were in progress",
            instruments.rejected,
        );
        barge.register_with_unit(
            "state_lock_hold",
            "Holding the lock of the state in memory, by what it is held for",
            Unit::Seconds,
            instruments.lock.holds,
        );
        barge.register_with_unit(
            "state_lock_wait",
            "Waiting for the lock of the state in memory, by what it is for",
            Unit::Seconds,
            instruments.lock.waits,
        );
        barge.register_with_unit(
            "life_sign_gap",
            "Between two life signs of a node, as the leader sees them",
            Unit::Seconds,
            sources.gaps.all.clone(),
        );
        barge.register_with_unit(
            "life_sign_gap_longest",
            "The longest time between two life signs of a node since this manager leads",
            Unit::Seconds,
            sources.gaps.longest.clone(),
        );
        let sessions = sources.sessions.counters();
        for (name, help, counter) in [
            (
                "session_full_sets",
                "Sessions of agents that began with everything",
                &sessions.full_sets,
            ),
            (
                "session_differences",
                "Assignments that told agents what changed",
                &sessions.differences,
            ),
            (
                "session_assigned_bytes",
                "What agents were told",
                &sessions.assigned_bytes,
            ),
            (
                "session_refused_reports",
                "Reports of agents that will never be taken",
                &sessions.refused_reports,
            ),
        ] {
            barge.register(name, help, counter.clone());
        }
        barge.register_with_unit(
            "api_request_duration",
            "Calls, until the answer began",
            Unit::Seconds,
            sources.requests.durations(),
        );
        sources.controllers.register(barge);
        if let Some(counts) = sources.spans.counts() {
            barge.register(
                "otlp_spans_exported",
                "Spans that the collector has taken",
                counts.exported,
            );
            barge.register(
                "otlp_spans_dropped",
                "Spans that were lost, because the collector was away or could not keep up",
                counts.dropped,
            );
        }
        Self {
            registry,
            sources,
            looked_up: all,
        }
    }

    /// Everything as it is now.
    ///
    /// # Errors
    /// Never, in memory.
    pub fn scrape(&self) -> Result<String, fmt::Error> {
        self.look_up();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// What the cluster publishes of the keys of tokens; `None` while this manager has no state.
    #[must_use]
    pub fn token_keys(&self) -> Option<GetTokenKeysResponse> {
        let cluster = self.sources.store.read(|state| state.cluster().cloned());
        cluster.map(|cluster| accounts::published(&cluster))
    }

    fn look_up(&self) {
        let (all, store) = (&self.looked_up, &self.sources.store);
        let raft = store.status();
        all.term.set(raft.term);
        all.leads.set(u64::from(raft.leader == Some(store.id())));
        all.last.set(raft.last_log_index);
        all.committed.set(raft.committed_index);
        all.applied.set(raft.applied_index);
        all.snapshot.set(raft.snapshot_index);
        all.purged.set(raft.purged_index);
        all.revision.set(raft.revision);
        let voters = raft.members.iter().filter(|member| member.voter).count();
        all.voters.set(voters as u64);
        // Members come and go; only the leader knows how far they are.
        all.lag.clear();
        for member in raft.members {
            if let Some(lag) = member.lag {
                let label = Member { member: member.id };
                all.lag.get_or_create(&label).set(lag);
            }
        }
        all.log_bytes.set(store.log_bytes());
        let age = store
            .snapshot_taken()
            .and_then(|taken| SystemTime::now().duration_since(taken).ok());
        all.snapshot_age
            .set(age.map_or(0.0, |age: Duration| age.as_secs_f64()));
        let space = store.space();
        all.disk_free.set(space.free);
        all.disk_floor.set(space.floor);
        all.watches.set(store.watches() as u64);
        all.sessions.set(self.sources.sessions.count() as u64);
        all.requests.set(self.sources.shares.requests() as u64);
        all.in_flight.set(store.in_flight_bytes());
        let validity = self.sources.identity.current().validity().ok();
        let ends = validity.and_then(|validity| validity.until.duration_since(UNIX_EPOCH).ok());
        all.certificate.set(ends.map_or(0, |ends| ends.as_secs()));
        self.sources.controllers.look_up();
        all.memory.set(process::resident_bytes());
        all.files.set(process::open_files());
        let memory = store.memory();
        all.history.set(memory.history as u64);
        all.history_changes.set(memory.changes as u64);
        all.requests_remembered.set(memory.answers as u64);
        all.requests_bytes.set(memory.requests as u64);
        all.events.set(memory.events as u64);
        all.log_tail.set(memory.tail as u64);
        all.write_buffers.set(memory.databases.write_buffers);
        all.block_cache.set(memory.databases.block_cache);
        all.table_readers.set(memory.databases.table_readers);
    }
}

impl LookedUp {
    fn register(&self, registry: &mut Registry) {
        let start = Number::default();
        let began = SystemTime::now().duration_since(UNIX_EPOCH);
        start.set(began.unwrap_or_default().as_secs());
        for (name, help, gauge) in [
            ("barge_raft_term", "The term", &self.term),
            (
                "barge_raft_is_leader",
                "1 while this manager leads",
                &self.leads,
            ),
            (
                "barge_raft_last_log_index",
                "The last entry of the log",
                &self.last,
            ),
            (
                "barge_raft_committed_index",
                "The last entry known to be committed",
                &self.committed,
            ),
            (
                "barge_raft_applied_index",
                "The last entry applied",
                &self.applied,
            ),
            (
                "barge_raft_snapshot_index",
                "The last entry in the snapshot",
                &self.snapshot,
            ),
            (
                "barge_raft_purged_index",
                "The last entry that is gone from the log",
                &self.purged,
            ),
            ("barge_raft_voters", "Managers that vote", &self.voters),
            (
                "barge_state_revision",
                "The revision of the state",
                &self.revision,
            ),
            (
                "barge_storage_log_bytes",
                "About the size of the Raft log",
                &self.log_bytes,
            ),
            (
                "barge_storage_disk_free_bytes",
                "Free space for the data folder",
                &self.disk_free,
            ),
            (
                "barge_storage_disk_floor_bytes",
                "Free space below which this manager does not lead",
                &self.disk_floor,
            ),
            ("barge_watches", "Open watches", &self.watches),
            (
                "barge_api_requests_in_flight",
                "Requests of clients that are being answered",
                &self.requests,
            ),
            (
                "barge_agent_sessions",
                "Agents connected to this manager",
                &self.sessions,
            ),
            (
                "barge_store_proposals_in_flight_bytes",
                "Writes in progress",
                &self.in_flight,
            ),
            (
                "barge_certificate_expiry_timestamp_seconds",
                "When this manager's certificate ends",
                &self.certificate,
            ),
            (
                "barge_history_bytes",
                "Memory for changes that watches go on from",
                &self.history,
            ),
            (
                "barge_history_changes",
                "Changes that watches can go on from",
                &self.history_changes,
            ),
            (
                "barge_requests_remembered",
                "Answers that are kept for requests that are repeated",
                &self.requests_remembered,
            ),
            (
                "barge_requests_remembered_bytes",
                "Memory for these answers",
                &self.requests_bytes,
            ),
            ("barge_events", "Events that are kept", &self.events),
            (
                "barge_storage_log_memory_bytes",
                "Memory for the newest entries of the log",
                &self.log_tail,
            ),
            (
                "barge_rocksdb_write_buffer_bytes",
                "Memory for what is not in a database's file yet",
                &self.write_buffers,
            ),
            (
                "barge_rocksdb_block_cache_bytes",
                "Memory for blocks and indexes of the databases' files",
                &self.block_cache,
            ),
            (
                "barge_rocksdb_table_reader_bytes",
                "Memory for open files of the databases besides",
                &self.table_readers,
            ),
            (
                "process_resident_memory_bytes",
                "Memory of this process",
                &self.memory,
            ),
            (
                "process_open_fds",
                "Open files of this process",
                &self.files,
            ),
            (
                "process_start_time_seconds",
                "When this process began",
                &start,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "barge_raft_member_lag_entries",
            "Entries that a member lacks; known to the leader",
            self.lag.clone(),
        );
        registry.register(
            "barge_storage_snapshot_age_seconds",
            "Since the last snapshot; 0 when there is none",
            self.snapshot_age.clone(),
        );
    }
}
