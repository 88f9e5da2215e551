//! The steps that calls to all services share: each
//! caller's share of this manager ([`shares`]), the count of calls in progress ([`in_flight`]), forwarding to the leader ([`leader`]), the end of
//! streams ([`streams`]), and the names of objects in requests ([`names`]).

pub mod in_flight;
pub mod leader;
pub mod names;
pub mod shares;
pub mod streams;
