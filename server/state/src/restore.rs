//! The state as a series of records, and back.

use std::collections::BTreeMap;

use barge_proto::v1::{Record, StateMeta};

use crate::{kind::Stored, limits::Limits, requests::Requests, state::State, tables::Tables};

/// How far a revision leaps at least.
const LEAP: u64 = 1 << 40;
/// Bits below the minute in a revision that leapt.
const MINUTE_BITS: u32 = 34;

/// What the state knows besides its records: its revision and the remembered requests.
pub type Meta = StateMeta;

impl State {
    /// Every record as a message, by kind and uid. Copies each; [`State::stored`] does not.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<'_> {
        self.stored().map(|record| record.to_record())
    }

    /// Every record, by kind, namespace and name.
    pub fn stored(&self) -> impl Iterator<Item = Stored> + use<'_> {
        self.tables.iter()
    }

    /// What is known besides the records. Its requests are many: a caller that writes after each transaction takes
    /// [`State::revision`], [`State::request_floor`] and the changes from [`crate::Applied::requests`].
    pub fn meta(&self) -> Meta {
        Meta {
            revision: self.revision,
            request_floor: self.requests.floor(),
            requests: self.requests.iter().collect(),
        }
    }

    /// The revision below which unknown request ids are refused.
    pub fn request_floor(&self) -> u64 {
        self.requests.floor()
    }

    /// Leaves behind every revision that any manager can have given out, also after the moment that this state is of: for a
    /// cluster that goes on from a backup or from one survivor. `now` is in seconds since 1970.
    ///
    /// A fixed distance would not do: the same backup, restored a second time, would begin below what the agents saw of the
    /// first time. The minute, in the high bits, lies above all revisions of earlier minutes, because no cluster writes 2^34
    /// objects in one; the fixed distance remains for a clock that is behind.
    pub fn leap(&mut self, now: i64) -> u64 {
        let minute = u64::try_from(now / 60).unwrap_or_default();
        let by_clock = minute.min(u64::MAX >> MINUTE_BITS) << MINUTE_BITS;
        self.revision = by_clock.max(self.revision.saturating_add(LEAP));
        self.revision
    }

    /// The state that consisted of these records, in any order. Empty messages are skipped.
    pub fn restore(records: impl Iterator<Item = Record>, meta: Meta) -> State {
        State::restore_stored(
            records.filter_map(Stored::from_record),
            meta,
            Limits::default(),
        )
    }

    /// As [`State::restore`], from records of any origin and with other bounds.
    pub fn restore_stored(
        records: impl Iterator<Item = Stored>,
        meta: Meta,
        limits: Limits,
    ) -> State {
        let mut restoring = Restoring::default();
        records.for_each(|record| restoring.add(record));
        restoring.finish(meta, limits)
    }
}

/// A state in the making, from records that come one by one in any order: however many they are, each is kept once.
#[derive(Default)]
pub struct Restoring {
    tables: Tables,
    /// By template. What a pod takes of its node is its template's to say, so they wait for all templates. And pods of one
    /// template have like names: put in one after the other they find the place of each in the processor's cache, which
    /// takes a third off a start with a million.
    pods: BTreeMap<String, Vec<Stored>>,
}

impl Restoring {
    /// Adds a record.
    pub fn add(&mut self, record: Stored) {
        match record.shared(&mut self.tables.pool) {
            Stored::Pod(pod) => {
                let template = self.pods.entry(pod.template_uid().to_owned());
                template.or_default().push(Stored::Pod(pod));
            }
            other => self.tables.swap(None, Some(&other)),
        }
    }

    /// The state that consists of these records.
    pub fn finish(self, meta: Meta, limits: Limits) -> State {
        let Restoring { mut tables, pods } = self;
        for pod in pods.into_values().flatten() {
            tables.swap(None, Some(&pod));
        }
        State {
            tables,
            revision: meta.revision,
            requests: Requests::restore(meta),
            limits,
        }
    }
}

impl PartialEq for State {
    /// Whether both have the same records, revision and remembered requests; indexes follow from them.
    fn eq(&self, other: &State) -> bool {
        self.revision == other.revision
            && self.requests == other.requests
            && self.stored().eq(other.stored())
    }
}
