//! The process: its threads ([`thread`], [`threads`]), its memory ([`allocators`]), and the clock, which stamps the time and new uids
//! on requests ([`clock`]).

pub mod allocators;
pub mod clock;
pub mod thread;
pub mod threads;

pub use threads::Threads;
