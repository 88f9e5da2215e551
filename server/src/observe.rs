//! What this manager says about itself: its log ([`logging`]), spans of calls ([`spans`]), and how long each RPC takes ([`requests`]).

pub mod logging;
pub mod requests;
pub mod spans;
