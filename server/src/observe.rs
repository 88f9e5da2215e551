//! Observing this manager: its log ([`logging`]), spans of calls ([`spans`]), and the duration of each RPC ([`requests`]).

pub mod logging;
pub mod requests;
pub mod spans;
