//! A manager node of Barge, from the ground up: the replicated state on disk and in memory ([`storage`], [`raft`],
//! [`store`]), the leader's loops ([`controllers`], [`scheduler`]), who is who and may do what ([`pki`], [`auth`], [`rbac`]), connections ([`net`]), and
//! what they serve ([`api`], [`sessions`], [`cluster`]).

pub mod access;
pub mod allocators;
pub mod anew;
pub mod api;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod bootstrap;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod controllers;
pub mod credentials;
pub mod error;
pub mod folder;
pub mod in_flight;
pub mod join;
pub mod leader;
pub mod life;
pub mod logging;
pub mod manager;
pub mod metrics;
pub mod mint;
pub mod net;
pub mod pki;
pub mod raft;
pub mod rbac;
pub mod recover;
pub mod reserved;
pub mod restore;
pub mod scheduler;
pub mod secret;
pub mod serve;
pub mod sessions;
pub mod shares;
pub mod spans;
pub mod storage;
pub mod store;
pub mod streams;
pub mod thread;
pub mod transaction;
