//! The start of a manager: its data folder ([`folder`]), bootstrapping a cluster ([`bootstrap`]) or joining one ([`join`]).

pub mod bootstrap;
pub mod folder;
pub mod join;
