//! The roles and the right that each RPC demands of its caller, read from the schema: the `auth` option beside each RPC of the `.proto` files.

use std::collections::BTreeMap;

use prost::Message;

use crate::{
    DESCRIPTOR_SET,
    v1::{Auth, Role},
};

/// Why a schema has no complete table of rules. A server must not start with it.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The bytes are no descriptor set.
    #[error("decode the descriptor set")]
    Decode(#[from] prost::DecodeError),
    /// An RPC has no rule.
    #[error("{0} has no `option (auth)`")]
    Missing(String),
    /// An RPC says it in part.
    #[error("`option (auth)` of {path}: {what}")]
    Incomplete {
        /// The RPC ("/barge.v1.Api/Apply").
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The authorisation of one RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// get, list, watch, create, update, apply, delete; or a verb of its own ("join").
    pub verb: String,
    /// The plural resource; "*" for the kind which the request names.
    pub resource: String,
    /// The roles that may call the RPC; none when empty.
    pub roles: Vec<Role>,
    /// Whether people and programs may call it whatever bindings say.
    pub without_binding: bool,
}

impl Rule {
    /// Whether the holder of a certificate with this role may call.
    pub fn allows(&self, role: Role) -> bool {
        self.needs_no_certificate() || self.roles.contains(&role)
    }

    /// Whether the service that answers checks the right for each object that the request names.
    pub fn is_by_object(&self) -> bool {
        self.resource == "*" || self.resource.contains('/')
    }

    /// Whether anyone may call, even without a certificate.
    pub fn needs_no_certificate(&self) -> bool {
        self.roles.contains(&Role::Anyone)
    }
}

/// The rules of all RPCs of a schema, by path ("/barge.v1.Api/Apply").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthTable(BTreeMap<String, Rule>);

impl AuthTable {
    /// The rules of this crate's own schema.
    pub fn new() -> Result<Self, AuthError> {
        Self::from_descriptor_set(DESCRIPTOR_SET)
    }

    /// The rules in an encoded `FileDescriptorSet`; every RPC in it must have one.
    pub fn from_descriptor_set(bytes: &[u8]) -> Result<Self, AuthError> {
        let mut rules = BTreeMap::new();
        for file in DescriptorSet::decode(bytes)?.files {
            for service in file.services {
                for method in service.methods {
                    let path = match file.package.as_str() {
                        "" => format!("/{}/{}", service.name, method.name),
                        package => format!("/{package}.{}/{}", service.name, method.name),
                    };
                    let Some(auth) = method.options.and_then(|options| options.auth) else {
                        return Err(AuthError::Missing(path));
                    };
                    let rule = rule(&path, auth)?;
                    rules.insert(path, rule);
                }
            }
        }
        Ok(Self(rules))
    }

    /// The rule of an RPC, by the path of its HTTP request. A path without a rule must be refused.
    pub fn get(&self, path: &str) -> Option<&Rule> {
        self.0.get(path)
    }

    /// All paths and their rules, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.0.iter().map(|(path, rule)| (path.as_str(), rule))
    }
}

fn rule(path: &str, auth: Auth) -> Result<Rule, AuthError> {
    let incomplete = |what| AuthError::Incomplete {
        path: path.to_owned(),
        what,
    };
    if auth.verb.is_empty() {
        return Err(incomplete("it has no verb"));
    }
    if auth.resource.is_empty() {
        return Err(incomplete("it has no resource"));
    }
    let roles = auth
        .roles
        .iter()
        .map(|number| match Role::try_from(*number) {
            Ok(Role::Unspecified) | Err(_) => Err(incomplete("it has an unknown role")),
            Ok(role) => Ok(role),
        })
        .collect::<Result<_, _>>()?;
    Ok(Rule {
        verb: auth.verb,
        resource: auth.resource,
        roles,
        without_binding: auth.without_binding,
    })
}

// Descriptors as far as they are needed here: prost's own drop extensions, where the option is.

#[derive(Clone, PartialEq, Message)]
struct DescriptorSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<MethodOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct MethodOptions {
    // The number of the extension in auth.proto.
    #[prost(message, optional, tag = "50001")]
    auth: Option<Auth>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn set(options: Option<MethodOptions>) -> Vec<u8> {
        let method = Method {
            name: "Go".to_owned(),
            options,
        };
        let service = Service {
            name: "Car".to_owned(),
            methods: vec![method],
        };
        let file = File {
            package: "toys.v1".to_owned(),
            services: vec![service],
        };
        DescriptorSet { files: vec![file] }.encode_to_vec()
    }

    fn error(options: Option<MethodOptions>) -> String {
        let error = AuthTable::from_descriptor_set(&set(options)).unwrap_err();
        error.to_string()
    }

    #[test]
    fn every_rpc_of_the_schema_has_a_rule() {
        let table = AuthTable::new().unwrap();
        let apply = table.get("/barge.v1.Api/Apply").unwrap();
        assert_eq!(
            (apply.verb.as_str(), apply.resource.as_str()),
            ("apply", "*")
        );
        assert!(apply.allows(Role::Admin) && !apply.allows(Role::Agent));
        let join = table.get("/barge.v1.Cluster/Join").unwrap();
        assert!(join.needs_no_certificate() && join.allows(Role::Agent));
        assert_eq!(table.get("/barge.v1.Api/Nothing"), None);
    }

    #[test]
    fn only_join_is_open_to_anyone() {
        let table = AuthTable::new().unwrap();
        let open: Vec<_> = table
            .iter()
            .filter(|(_, rule)| rule.needs_no_certificate())
            .map(|(path, _)| path)
            .collect();
        assert_eq!(open, ["/barge.v1.Cluster/Join"]);
    }

    #[test]
    fn few_rpcs_need_no_binding() {
        let table = AuthTable::new().unwrap();
        let free: Vec<_> = table
            .iter()
            .filter(|(_, rule)| rule.without_binding)
            .map(|(path, _)| path.trim_start_matches("/barge.v1."))
            .collect();
        let expected = [
            "Access/ListRules",
            "Access/Review",
            "Access/WhoAmI",
            "Cluster/ListMembers",
            "Credentials/Renew",
            "ServiceAccounts/GetTokenKeys",
        ];
        assert_eq!(free, expected);
    }

    #[test]
    fn an_rpc_without_a_rule_is_an_error() {
        assert_eq!(error(None), "/toys.v1.Car/Go has no `option (auth)`");
        let empty = Some(MethodOptions { auth: None });
        assert_eq!(error(empty), "/toys.v1.Car/Go has no `option (auth)`");
    }

    #[test]
    fn half_a_rule_is_an_error() {
        let auth = |verb: &str, resource: &str, role: i32| {
            Some(MethodOptions {
                auth: Some(Auth {
                    verb: verb.to_owned(),
                    resource: resource.to_owned(),
                    roles: vec![role],
                    without_binding: false,
                }),
            })
        };
        assert!(error(auth("", "cars", 4)).ends_with("no verb"));
        assert!(error(auth("go", "", 4)).ends_with("no resource"));
        assert!(error(auth("go", "cars", 0)).ends_with("unknown role"));
        assert!(error(auth("go", "cars", 77)).ends_with("unknown role"));
        assert!(AuthTable::from_descriptor_set(&set(auth("go", "cars", 4))).is_ok());
    }

    #[test]
    fn broken_bytes_are_an_error() {
        assert!(matches!(
            AuthTable::from_descriptor_set(b"\xff\xff"),
            Err(AuthError::Decode(_))
        ));
    }
}
