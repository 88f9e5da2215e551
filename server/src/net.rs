//! Connections: the TLS end of this manager ([`tls`]), accepting with bounds ([`listener`]), serving some of them on a thread of
//! their own ([`lane`]), and dialling the other managers ([`dial`]).

mod address;
pub mod dial;
pub mod lane;
pub mod listener;
pub mod reserved;
mod room;
pub mod rules;
mod slow;
pub mod tls;
mod turns;

pub use address::split_address;
pub use dial::Dialer;
pub use listener::{Limits, Peer};
pub use rules::{ANYONE, Rules};
pub use tls::Credentials;

#[cfg(test)]
mod tests;
