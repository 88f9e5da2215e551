//! A manager node of Barge. Each room below knows only the rooms above it in this list:
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`runtime`] | the process: threads, memory, clock |
//! | [`pki`] | the cluster's certificate authority, and sealing |
//! | [`net`] | connections: TLS, accepting with bounds, dialling, the rules of the RPCs |
//! | [`storage`] | RocksDB: the Raft log, the state on disk, snapshots |
//! | [`raft`] | openraft's network, in both directions |
//! | [`store`] | the handle by which all others read, write and watch |
//! | [`error`] | why a request was not served |
//! | [`observe`] | logs, spans, how long each RPC takes |
//! | [`security`] | who asks, what they may, what is written down of it |
//! | [`calls`] | what every call passes: shares, the hop to the leader, the end of streams |
//! | [`controllers`] | the leader's loops, each a pure plan in one shell |
//! | [`scheduler`] | which node each pod runs on |
//! | [`config`] | what a manager is told when it starts |
//! | [`boot`] | the data folder, a new cluster, a place in one |
//! | [`recovery`] | backup, restore, recover |
//! | [`life`] | life signs of agents |
//! | [`sessions`] | agents: what they are told, what they report |
//! | [`api`] | clients: objects, lists, watches, credentials |
//! | [`cluster`] | members, joining, feature levels, rotation of the CA |
//! | [`manager`] | a manager's life: it gets an identity, opens its state, serves, and drains |

pub mod api;
pub mod boot;
pub mod calls;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod controllers;
pub mod error;
pub mod life;
pub mod manager;
pub mod net;
pub mod observe;
pub mod pki;
pub mod raft;
pub mod recovery;
pub mod runtime;
pub mod scheduler;
pub mod security;
pub mod sessions;
pub mod storage;
pub mod store;
