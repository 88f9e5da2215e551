//! What every call to this manager passes, whichever service answers it: each
//! caller's share of this manager ([`shares`]), the count of calls under way ([`in_flight`]), the hop to the leader ([`leader`]), the end of
//! streams ([`streams`]), and how objects are named in requests ([`names`]).

pub mod in_flight;
pub mod leader;
pub mod names;
pub mod shares;
pub mod streams;
