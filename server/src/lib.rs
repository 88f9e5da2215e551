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
//! | [`error`] | errors of requests, and their gRPC statuses |
//! | [`observe`] | logs, spans, the duration of each RPC |
//! | [`security`] | authentication, rights, the audit log |
//! | [`calls`] | the steps that all calls share: shares of callers, forwarding to the leader, the end of streams |
//! | [`controllers`] | the leader's loops, each a pure plan in one shell |
//! | [`scheduler`] | which node each pod runs on |
//! | [`config`] | a manager's settings |
//! | [`boot`] | the data folder, bootstrapping a cluster, joining one |
//! | [`recovery`] | backup, restore, recover |
//! | [`life`] | life signs of agents |
//! | [`sessions`] | agents: assignments to them, reports from them |
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
