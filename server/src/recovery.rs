//! Ways back after a loss: backups ([`backup`]) and the cluster that comes back from one ([`restore`]), the cluster that lost its majority
//! ([`recover`]), what both change in the state ([`anew`]), and the administrator who lost every credential ([`mint`]).

pub mod anew;
pub mod backup;
pub mod mint;
pub mod recover;
pub mod restore;
