//! Authentication and authorisation ([`auth`]), rights by roles and bindings ([`rbac`]), the audit log ([`audit`]), and the certificates and secrets that the cluster
//! issues ([`issue`], [`secret`]), how the values of Secrets are sealed ([`sealed`]), and the tokens of service accounts ([`tokens`]).

pub mod audit;
pub mod auth;
pub mod issue;
pub mod rbac;
pub mod sealed;
pub mod secret;
pub mod tokens;
