//! Recovery after a loss: backups ([`backup`]), restoring a cluster from one ([`restore`]), recovering a cluster that lost its majority
//! ([`recover`]), the changes that both make in the state ([`anew`]), and a new credential for an administrator who lost every one ([`mint`]).

pub mod anew;
pub mod backup;
pub mod mint;
pub mod recover;
pub mod restore;
