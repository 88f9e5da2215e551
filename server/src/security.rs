//! Who asks ([`auth`]), what they may ([`rbac`]), what is written down of it ([`audit`]), and the certificates and secrets that are given
//! out ([`issue`], [`secret`]).

pub mod audit;
pub mod auth;
pub mod issue;
pub mod rbac;
pub mod secret;
