//! Managers in one process, with real files and real connections on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "store/exit.rs"]
mod exit;

#[path = "store/harness.rs"]
mod harness;

#[path = "store/network.rs"]
mod network;

#[path = "store/single.rs"]
mod single;

#[path = "store/cluster.rs"]
mod cluster;

#[path = "store/partition.rs"]
mod partition;

#[path = "store/damage.rs"]
mod damage;

#[path = "store/snapshot.rs"]
mod snapshot;

#[path = "store/crash.rs"]
mod crash;

#[path = "store/lists.rs"]
mod lists;

#[path = "store/memory.rs"]
mod memory;

#[path = "store/runtime_kinds.rs"]
mod runtime_kinds;

#[path = "store/replica_sets.rs"]
mod replica_sets;
