//! Barge's schema: every message and service of `barge/v1`, their JSON and YAML, and the rules for what is valid.
//!
//! One definition serves gRPC, manifests, output for people, and storage. The crate parses and validates its own
//! types, and has no other logic.

#![warn(missing_docs)]

// First, because its macro is used by the others.
#[macro_use]
pub mod kinds;

pub mod accounts;
pub mod auth;
pub mod configuration;
mod containers;
mod heap;
pub mod host_ports;
mod json;
pub mod level;
pub mod limits;
pub mod manifest;
pub mod quantity;
pub mod schema;
mod secret;
pub mod selector;
pub mod validate;

pub use heap::Heap;

/// The messages and services of `barge.v1`, generated from `proto/barge/v1`.
#[allow(
    missing_docs,
    clippy::large_enum_variant,
    clippy::doc_lazy_continuation
)]
pub mod v1 {
    tonic::include_proto!("barge.v1");
}

/// The encoded `FileDescriptorSet` of [`v1`], for reflection and for reading RPC options.
pub const DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("descriptor");
