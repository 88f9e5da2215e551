//! The rules of the state, one module per room, and random transactions against a simple model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bind;
mod custom;
mod deep;
mod delete;
mod events;
mod fixtures;
mod history;
mod indexes;
mod model;
mod pods;
mod put;
mod random;
mod remove;
mod requests;
mod slices;
mod subjects;
mod tokens;
mod tombstones;
mod view;
