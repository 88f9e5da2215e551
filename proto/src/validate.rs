//! Validation: Kubernetes' rules for the fields that Barge implements. Defaults are filled in first ([`default`]), then a new
//! object is checked alone ([`validate`]) and, when it replaces one, beside the old ([`validate_update`]).

mod accounts;
mod bounds;
mod data;
mod defaults;
mod deployment;
mod disruption;
mod environment;
mod host;
mod host_namespaces;
mod image;
mod kinds;
mod lifecycle;
mod metadata;
pub(crate) mod names;
mod pod;
mod pod_security;
mod probe;
mod rbac;
mod replica_set;
mod security;
mod service;
mod taints;
mod update;
mod volumes;

use std::fmt;

use prost::Message;

pub use self::{
    bounds::bounds,
    defaults::{default, default_on_create},
    kinds::pod,
    names::{dns_label, dns_subdomain, env_name, label_value},
    pod_security::{Level, Levels},
    security::CAPABILITIES,
    update::validate_update,
};
use crate::limits::OBJECT_BYTES;
use crate::v1::{Endpoints, Event, Node, Object};

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field as in the manifest: "spec.template.spec.containers[0].image", "metadata.labels[app]".
    pub field: String,
    /// What is there, for people; empty when nothing is.
    pub value: String,
    /// The rule, to be read after the field ("must be at least 0").
    pub rule: String,
}

/// "spec.replicas: -1 must be at least 0"
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, rule } = self;
        if value.is_empty() {
            write!(f, "{field}: {rule}")
        } else {
            write!(f, "{field}: {value} {rule}")
        }
    }
}

/// Checks an object by itself: all violations, in the order of its fields.
pub fn validate(object: &Object) -> Result<(), Vec<Violation>> {
    let mut checker = Checker::default();
    checker.object(object);
    checker.finish()
}

/// Collects violations.
#[derive(Default)]
struct Checker {
    violations: Vec<Violation>,
}

impl Checker {
    fn finish(self) -> Result<(), Vec<Violation>> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(self.violations)
        }
    }

    fn violated(
        &mut self,
        field: impl Into<String>,
        value: impl fmt::Display,
        rule: impl Into<String>,
    ) {
        self.violations.push(Violation {
            field: field.into(),
            value: shortened(&value.to_string()),
            rule: rule.into(),
        });
    }

    fn required(&mut self, field: impl Into<String>) {
        self.violated(field, "", "is required");
    }

    /// Notes the broken rule of a text.
    fn text(&mut self, field: impl fmt::Display, value: &str, result: Result<(), String>) {
        if let Err(rule) = result {
            self.violated(field.to_string(), format_args!("{value:?}"), rule);
        }
    }

    /// One of some words; empty stands for the default.
    fn one_of(&mut self, field: impl Into<String>, value: &str, words: &[&str]) {
        if !value.is_empty() && !words.contains(&value) {
            let rule = format!("must be {}", words.join(" or "));
            self.violated(field, format_args!("{value:?}"), rule);
        }
    }

    fn at_least(&mut self, field: impl Into<String>, value: impl Into<i64>, minimum: i64) {
        let value = value.into();
        if value < minimum {
            self.violated(field, value, format!("must be at least {minimum}"));
        }
    }

    fn port(&mut self, field: impl Into<String>, port: i32) {
        if !(1..=65535).contains(&port) {
            self.violated(field, port, "must be a port from 1 to 65535");
        }
    }

    fn ip(&mut self, field: impl Into<String>, ip: &str) {
        if ip.parse::<std::net::IpAddr>().is_err() {
            self.violated(field, format_args!("{ip:?}"), "must be an IP address");
        }
    }

    fn object(&mut self, object: &Object) {
        let Some(kind) = &object.kind else {
            return self.violated("", "", "an object of some kind is required");
        };
        let size = object.encoded_len();
        if size > OBJECT_BYTES {
            let rule = format!(
                "is too large: at most {OBJECT_BYTES} bytes (1.5 MiB) are allowed; move what is large out of it, into an image or a volume"
            );
            self.violated("", format_args!("an object of {size} bytes"), rule);
        }
        self.bounds(object);
        if !self.violations.is_empty() {
            // To look at each item of it would take its time.
            return;
        }
        self.stated_type(object);
        self.object_metadata(object);
        kinds::check(kind, self);
    }

    /// apiVersion and kind may be left out, but not be another's.
    fn stated_type(&mut self, object: &Object) {
        let Some(info) = object.kind().info() else {
            return;
        };
        let (api_version, kind) = object.stated_type();
        self.one_of("apiVersion", api_version, &[&info.api_version]);
        self.one_of("kind", kind, &[&info.name]);
    }

    fn node(&mut self, node: &Node) {
        let Some(spec) = &node.spec else { return };
        for (index, cidr) in spec.pod_cidrs.iter().enumerate() {
            self.cidr(format!("spec.podCIDRs[{index}]"), cidr);
        }
        if !spec.pod_cidr.is_empty() {
            self.cidr("spec.podCIDR", &spec.pod_cidr);
        }
        self.taints(&spec.taints);
    }

    fn cidr(&mut self, field: impl Into<String>, cidr: &str) {
        let valid = cidr.split_once('/').is_some_and(|(address, length)| {
            let bits = match address.parse() {
                Ok(std::net::IpAddr::V4(_)) => 32,
                Ok(std::net::IpAddr::V6(_)) => 128,
                Err(_) => return false,
            };
            length.parse().is_ok_and(|length: u8| length <= bits)
        });
        if !valid {
            let rule = "must be a range of addresses such as 10.244.1.0/24";
            self.violated(field, format_args!("{cidr:?}"), rule);
        }
    }

    fn endpoints(&mut self, endpoints: &Endpoints) {
        for (index, subset) in endpoints.subsets.iter().enumerate() {
            let path = format!("subsets[{index}]");
            for (kind, addresses) in [
                ("addresses", &subset.addresses),
                ("notReadyAddresses", &subset.not_ready_addresses),
            ] {
                for (index, address) in addresses.iter().enumerate() {
                    self.ip(format!("{path}.{kind}[{index}].ip"), &address.ip);
                }
            }
            for (index, port) in subset.ports.iter().enumerate() {
                self.port(format!("{path}.ports[{index}].port"), port.port);
                let field = format!("{path}.ports[{index}].protocol");
                self.one_of(field, &port.protocol, PROTOCOLS);
            }
        }
    }

    fn event(&mut self, event: &Event) {
        if event.involved_object.is_none() {
            self.required("involvedObject");
        }
        self.one_of("type", &event.r#type, &["Normal", "Warning"]);
        self.at_least("count", event.count, 0);
    }
}

/// The protocols of ports.
const PROTOCOLS: &[&str] = &["TCP", "UDP"];

/// Values go into messages: not all of a long one.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
