//! The pods of this node: what to do next and what to say about it are pure functions ([`plan`], [`status`]); a
//! worker per pod carries the steps out; the manager starts workers for what is desired and for what is found.

pub mod backoff;
pub mod deadline;
pub mod departure;
pub mod environment;
pub mod expand;
pub mod given;
pub mod links;
mod lister;
mod manager;
pub mod memory;
pub mod plan;
pub mod pull_secrets;
mod record;
pub mod resources;
mod security;
pub mod spec;
pub mod status;
pub mod storage;
pub mod unknown;
pub mod volumes;
mod worker;

#[cfg(test)]
mod tests;

pub use links::Links;
pub use manager::{Options, PodManager};
