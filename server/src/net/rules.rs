//! The rules of the schema, and of the two standard services beside it.

use std::collections::BTreeMap;

use barge_client::identity::role_word;
use barge_proto::{
    auth::{AuthError, AuthTable, Rule},
    v1::Role,
};

/// How a caller without a certificate is called, in metadata, spans and the audit log.
pub const ANYONE: &str = "anyone";

/// Any holder of a certificate.
const CERTIFIED: &[Role] = &[Role::Manager, Role::Agent, Role::Admin];

/// The rules by path ("/barge.v1.Api/Apply").
#[derive(Debug, Clone)]
pub struct Rules {
    schema: AuthTable,
    standard: BTreeMap<String, Rule>,
}

impl Rules {
    /// Reads the schema.
    ///
    /// # Errors
    /// An RPC without a declaration: nothing is served until it has one.
    pub fn load() -> Result<Self, AuthError> {
        Ok(Self {
            schema: AuthTable::new()?,
            standard: standard().collect(),
        })
    }

    /// The rule of a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Rule> {
        self.schema.get(path).or_else(|| self.standard.get(path))
    }

    /// The rule of a path whose calls are written to the audit log: all that change something for others, and none of the
    /// traffic between the cluster's own machines.
    #[must_use]
    pub fn audited(&self, path: &str) -> Option<&Rule> {
        self.get(path).filter(|rule| {
            let reads = matches!(rule.verb.as_str(), "get" | "list" | "watch");
            !reads && !is_machinery(rule)
        })
    }

    /// The rule of a path whose calls have spans: all but the traffic between the cluster's own machines.
    #[must_use]
    pub fn traced(&self, path: &str) -> Option<&Rule> {
        self.get(path).filter(|rule| !is_machinery(rule))
    }

    /// All rules, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rule)> {
        let standard = self
            .standard
            .iter()
            .map(|(path, rule)| (path.as_str(), rule));
        self.schema.iter().chain(standard)
    }
}

/// What the cluster's own machines say to each other all the time.
fn is_machinery(rule: &Rule) -> bool {
    rule.resource == "raft" || matches!(rule.verb.as_str(), "connect" | "relay")
}

/// "admins and managers"
#[must_use]
pub fn roles_in_words(rule: &Rule) -> String {
    let words: Vec<_> = rule
        .roles
        .iter()
        .map(|role| format!("{}s", role_word(*role)))
        .collect();
    words.join(" and ")
}

/// Health, which load balancers and supervisors ask without a certificate; reflection, for those with any.
fn standard() -> impl Iterator<Item = (String, Rule)> {
    let health = ["Check", "Watch", "List"].map(|rpc| {
        (
            format!("/grpc.health.v1.Health/{rpc}"),
            rule("get", "health", &[Role::Anyone]),
        )
    });
    let reflection = ["v1", "v1alpha"].map(|version| {
        (
            format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"),
            rule("get", "schema", CERTIFIED),
        )
    });
    health.into_iter().chain(reflection)
}

fn rule(verb: &str, resource: &str, roles: &[Role]) -> Rule {
    Rule {
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        roles: roles.to_vec(),
        without_binding: true,
    }
}
