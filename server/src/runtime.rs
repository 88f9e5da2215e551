//! The process: its threads ([`thread`], [`threads`]), its memory ([`allocators`]), and the edge where time and identities are
//! stamped on what enters the cluster ([`clock`]).

pub mod allocators;
pub mod clock;
pub mod thread;
pub mod threads;

pub use threads::Threads;
