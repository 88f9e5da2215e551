//! Who may do what: Kubernetes' RBAC, as functions of the state. Nothing here waits or remembers; bindings are found by an index
//! that the state keeps, so what is decided is decided by the very state that is looked at.
//!
//! - [`rule`]: what a rule allows, and whether rules hold others
//! - [`identity`]: who somebody is for bindings
//! - [`review`]: the rules that somebody has, and whether they allow what is asked
//! - [`grants`]: that nobody gives what they do not have
//! - [`builtin`]: the roles that every cluster has, and [`keeper`], which sees to it

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
