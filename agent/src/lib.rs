//! The agent: a machine that runs containers for the cluster.
//!
//! Control (everything here but [`carrier`]) may die or be replaced at any moment. What it should run is a value
//! ([`desired`]), what does run is asked of a [`runtime`], and each pod's next step is a pure function of both
//! ([`pods::plan`]).

pub mod address;
pub mod agent;
pub mod boot;
pub mod carrier;
pub mod clock;
pub mod collection;
pub mod config;
pub mod configuration;
pub mod control;
pub mod desired;
mod detached;
pub mod dns;
pub mod events;
pub mod files;
pub mod forget;
pub mod life;
pub mod managers;
pub mod membership;
pub mod metrics;
mod netlink;
pub mod network;
pub mod node;
pub mod outbox;
pub mod pause;
pub mod pods;
pub mod probes;
pub mod programmed;
pub mod routes;
pub mod runtime;
pub mod services;
pub mod session;
pub mod streams;
#[cfg(test)]
mod testing;
mod timing;
pub mod tokens;
