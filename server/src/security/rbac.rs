//! Kubernetes' RBAC, as functions of the state: the rights of each caller. Nothing here waits or caches. The state keeps an index of bindings
//! by subject, so each decision is by exactly the state that was read.
//!
//! - [`rule`]: what a rule allows, and whether rules cover other rules
//! - [`identity`]: the user and groups of a caller
//! - [`review`]: the rules of a caller, and whether they allow a request
//! - [`grants`]: no caller can give more than it has
//! - [`builtin`]: the roles that every cluster has, and [`keeper`], which makes missing ones

pub mod builtin;
pub mod grants;
pub mod identity;
pub mod keeper;
pub mod review;
pub mod rule;

#[cfg(test)]
mod tests;

pub use identity::Identity;
pub use review::Review;
pub use rule::Asked;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
/// The API group of the cluster itself: its members, tokens and credentials.
pub const BARGE: &str = "barge.dev";
