//! A machine that runs containers for Barge.

pub mod files;
pub mod runtime;
