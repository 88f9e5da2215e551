//! Barge's replicated state: what the cluster should be and what is known of it.
//!
//! A [`State`] changes only by [`State::apply`], a function of the state, the Raft term and a
//! [`Transaction`](barge_proto::v1::Transaction). It has no I/O, no clock and no randomness, so every
//! manager that applies the same log has the same state; `clippy.toml` beside this crate keeps it so.
//! The proposer of a transaction stamps its time and the uids in it.
//!
//! - `kind`, `rules`: the kinds of records, their identity, and their rules
//! - `kept`, `packed`: the form of a record in memory; pods are packed
//! - `ages`: events in the order of their eviction
//! - `table`, `tables`, `claims`, `capacity`: where records live, with all indexes
//! - `apply`: the rules of transactions
//! - `deletions`: what is being deleted together with what belongs to it
//! - `subjects`: bindings by whom they are for
//! - `made`: which plan made what
//! - `labels`: labels and annotations of pods, which their templates have in common
//! - `level`: what all managers understand
//! - `requests`: what makes a retried request apply at most once
//! - `read`, `view`, `parts`: looking things up, and objects as the API shows them
//! - `history`: recent changes, for watches
//! - `restore`: the state as a series of records, and back

mod ages;
mod apply;
mod capacity;
mod changed;
mod claims;
mod deletions;
mod history;
mod kept;
mod kind;
mod labels;
mod level;
pub mod limits;
pub mod made;
mod packed;
mod parts;
mod pods;
mod ports;
mod read;
mod requests;
mod restore;
mod rules;
mod state;
mod subjects;
mod table;
mod tables;
mod view;

pub use apply::{Applied, node_is_ready};
pub use capacity::{Usage, is_finished};
pub use changed::Changed;
pub use claims::Claim;
pub use deletions::{Next, Place};
pub use history::{Expired, History};
pub use kept::Kept;
pub use kind::{DecodeError, Kind, RecordKind, Stored};
pub use labels::{Own, labels_of};
pub use level::{
    BINDINGS, COMPRESSION, CUSTOM, LEVEL, LOSS, NODE_TOMBSTONES, NotUnderstood, ORDER, OWN_LABELS,
    PODS, check_understood, demanded, needed,
};
pub use packed::{PackedPod, Pool};
pub use parts::{Parts, whole_pod};
pub use ports::{NO_FREE_PORTS, PortsInUse, claimed};
pub use requests::RequestChanges;
pub use restore::{Meta, Restoring};
pub use state::State;
pub use subjects::service_account_user;
