//! A machine that runs containers for Barge.

pub mod carrier;
pub mod files;
pub mod runtime;
