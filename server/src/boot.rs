//! How a manager begins: its data folder ([`folder`]), a cluster of its own ([`bootstrap`]) or a place in another one ([`join`]).

pub mod bootstrap;
pub mod folder;
pub mod join;
