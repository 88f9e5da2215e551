//! Authentication and authorisation: a [`Caller`] from the peer's certificate ([`principal`]), the rules out of the
//! schema ([`rules`]), the caller's rights by bindings ([`access`]), and the [`layer`] that every request passes. Life signs pass a gate
//! that takes no lock of the state ([`published`]).

pub mod access;
mod bearer;
pub mod directory;
pub mod layer;
pub mod principal;
pub mod published;
pub mod still;

pub use access::Access;
pub use directory::{Bearer, Directory, Named, StateDirectory, TokenBearer};
pub use layer::AuthLayer;
pub use principal::{Caller, PRINCIPAL_METADATA, Principal};
pub use published::Machines;

#[cfg(test)]
mod tests;
