//! The environment of a container, in Kubernetes' order: the variables of Services first, then `envFrom`, of which a later one counts more, then `env` in its own
//! order, in which `value` may refer to all before it. What comes from elsewhere is not expanded. Every string is counted before it is made, also those that a
//! later one replaces: what takes more than a container can be given ends with a sentence and takes neither memory nor time of the agent.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use barge_proto::{
    accounts,
    configuration::Source,
    quantity::{parse_milli, parse_whole},
    v1::{
        Container, EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, Quantity,
        ResourceFieldSelector,
    },
    validate::env_name,
};

use super::{
    expand::{Strings, expand_into},
    given::Given,
    links::{self, Linked},
    resources, spec,
};
use crate::configuration::Found;

/// The most that is looked at for the `envFrom` of a container, in bytes, with [`EACH`] for each key.
const MOST_LOOKED_AT: usize = 16 << 20;
/// What looking at a key takes, as bytes.
const EACH: usize = 64;
/// Of objects with keys that can be no variables, and of these keys, so many are named.
const NAMED: usize = 16;

/// What a container's environment is made of.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What the cluster gives it.
    pub given: &'a Given,
    /// The node's address.
    pub host_ip: &'a str,
    /// The pod's addresses.
    pub ips: &'a [IpAddr],
    /// What the node has for pods, as the agent itself sees it: the managers learn it from the agent.
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// A container's environment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names and values.
    pub variables: BTreeMap<String, String>,
    /// Keys that can be no variables, a sentence for each object that has some.
    pub skipped: Vec<String>,
    /// Why there are no variables for Services, although they were wanted.
    pub unlinked: Option<String>,
    /// What the variables take, also those that others replaced.
    pub strings: Strings,
    looked_at: usize,
}

/// Puts the environment together.
///
/// # Errors
/// A sentence that says what is missing, and what to do.
pub fn environment(container: &Container, around: Around<'_>) -> Result<Environment, String> {
    let mut made = Environment::default();
    made.link(around.given.links());
    for (index, from) in container.env_from.iter().enumerate() {
        let taken = made.take_all(from, around);
        taken.map_err(|why| format!("envFrom[{index}]: {why}"))?;
    }
    for variable in &container.env {
        let name = &variable.name;
        let taken = made.take(variable, container, around);
        taken.map_err(|why| format!("variable {:?}: {why}", short(name)))?;
    }
    Ok(made)
}

impl Environment {
    fn link(&mut self, services: &Linked) {
        let counted = links::variables(services).and_then(|variables| {
            for (name, value) in &variables {
                self.strings.count(name.len() + 1 + value.len())?;
            }
            self.variables = variables;
            Ok(())
        });
        self.unlinked = counted.err();
    }

    fn take_all(&mut self, from: &EnvFromSource, around: Around<'_>) -> Result<(), String> {
        let (source, name, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(it), _) => (Source::ConfigMap, &it.name, it.optional),
            (None, Some(it)) => (Source::Secret, &it.name, it.optional),
            (None, None) => return Ok(()),
        };
        let found = around.given.find(source, name, optional == Some(true))?;
        let (mut invalid, mut named) = (0_usize, Vec::new());
        for (key, value) in found.iter().flat_map(|found| values(found)) {
            let bytes = from.prefix.len() + key.len() + value.len();
            self.looked_at = self.looked_at.saturating_add(bytes + EACH);
            if self.looked_at > MOST_LOOKED_AT {
                let kind = source.kind();
                return Err(format!(
                    "with {kind} {name:?} the keys and values of all objects are more than {MOST_LOOKED_AT} bytes: name fewer objects, or smaller ones"
                ));
            }
            let variable = format!("{}{key}", from.prefix);
            match text(value) {
                Some(value) if env_name(&variable).is_ok() => {
                    let counted = self.strings.count(variable.len() + 1 + value.len());
                    counted.map_err(|why| format!("variable {:?}: {why}", short(&variable)))?;
                    self.variables.insert(variable, value.to_owned());
                }
                _ => {
                    invalid += 1;
                    if named.len() < NAMED {
                        named.push(short(&variable).to_owned());
                    }
                }
            }
        }
        if invalid > 0 && self.skipped.len() < NAMED {
            let kind = source.kind();
            let names = named.join(", ");
            let more = match invalid - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            self.skipped.push(format!(
                "Of {kind} {name:?} these keys are no variables, because of their names or because their values are not text: {names}{more}"
            ));
        }
        Ok(())
    }

    fn take(
        &mut self,
        variable: &EnvVar,
        container: &Container,
        around: Around<'_>,
    ) -> Result<(), String> {
        let name = &variable.name;
        let before = name.len() + 1;
        let value = match &variable.value_from {
            None => {
                let strings = &mut self.strings;
                expand_into(strings, &variable.value, &self.variables, before)?
            }
            Some(source) => {
                let Some(value) = value_of(source, container, around)? else {
                    return Ok(());
                };
                self.strings.count(before + value.len())?;
                value.into_owned()
            }
        };
        self.variables.insert(name.clone(), value);
        Ok(())
    }
}

/// The beginning of a name, for people.
fn short(name: &str) -> &str {
    let mut end = name.len().min(64);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// The value of a variable; `None` when it is optional and there is none.
fn value_of<'a>(
    source: &EnvVarSource,
    container: &Container,
    around: Around<'a>,
) -> Result<Option<Cow<'a, str>>, String> {
    if let Some(field) = &source.field_ref {
        return field_of(field, around).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        let amount = amount_of(field, container, around)?;
        return Ok(Some(Cow::Owned(amount)));
    }
    if let Some(it) = &source.config_map_key_ref {
        let optional = it.optional == Some(true);
        return key_of(Source::ConfigMap, &it.name, &it.key, optional, around);
    }
    if let Some(it) = &source.secret_key_ref {
        let optional = it.optional == Some(true);
        return key_of(Source::Secret, &it.name, &it.key, optional, around);
    }
    Err("it comes from something that this agent does not know: install the managers' version on the node".to_owned())
}

fn key_of<'a>(
    source: Source,
    name: &str,
    key: &str,
    optional: bool,
    around: Around<'a>,
) -> Result<Option<Cow<'a, str>>, String> {
    let found = around.given.find(source, name, optional)?;
    let value = found.and_then(|found| value_at(found, key));
    let kind = source.kind();
    match value.map(text) {
        Some(Some(value)) => Ok(Some(Cow::Borrowed(value))),
        Some(None) => Err(format!(
            "the value of {key:?} in {kind} {name:?} is not text, and variables can hold nothing else"
        )),
        None if optional => Ok(None),
        None => Err(format!(
            "{kind} {name:?} has no key {key:?}: add it, and the container starts"
        )),
    }
}

/// Of a ConfigMap only what is text.
fn values(found: &Found) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
    match found {
        Found::ConfigMap(it) => {
            let data = it.data.iter();
            Box::new(data.map(|(key, value)| (key.as_str(), value.as_bytes())))
        }
        Found::Secret(it) => {
            let data = it.data.iter();
            Box::new(data.map(|(key, value)| (key.as_str(), value.as_slice())))
        }
        Found::ServiceAccount(_) => Box::new(std::iter::empty()),
    }
}

/// The value of one key of these.
fn value_at<'a>(found: &'a Found, key: &str) -> Option<&'a [u8]> {
    match found {
        Found::ConfigMap(it) => it.data.get(key).map(String::as_bytes),
        Found::Secret(it) => it.data.get(key).map(Vec::as_slice),
        Found::ServiceAccount(_) => None,
    }
}

/// A variable's value ends at the first NUL.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value)
        .ok()
        .filter(|it| !it.contains('\0'))
}

pub(super) fn field_of<'a>(
    field: &ObjectFieldSelector,
    around: Around<'a>,
) -> Result<Cow<'a, str>, String> {
    let meta = around.pod.metadata.as_ref();
    let path = field.field_path.as_str();
    let of_map = |map: &str| {
        let key = path.strip_prefix(map)?.strip_prefix("['")?;
        key.strip_suffix("']")
    };
    let borrowed = |text: Option<&'a String>| Cow::Borrowed(text.map_or("", String::as_str));
    if let Some(key) = of_map("metadata.labels") {
        return Ok(borrowed(meta.and_then(|meta| meta.labels.get(key))));
    }
    if let Some(key) = of_map("metadata.annotations") {
        return Ok(borrowed(meta.and_then(|meta| meta.annotations.get(key))));
    }
    let ips = around.ips.iter().map(IpAddr::to_string);
    let spec = around.pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => borrowed(meta.map(|meta| &meta.name)),
        "metadata.namespace" => borrowed(meta.map(|meta| &meta.namespace)),
        "metadata.uid" => borrowed(meta.map(|meta| &meta.uid)),
        "spec.nodeName" => borrowed(spec.map(|spec| &spec.node_name)),
        "spec.serviceAccountName" => {
            Cow::Borrowed(spec.map_or(accounts::DEFAULT, accounts::of_pod))
        }
        "status.hostIP" | "status.hostIPs" => Cow::Borrowed(around.host_ip),
        "status.podIP" => Cow::Owned(ips.into_iter().next().unwrap_or_default()),
        "status.podIPs" => Cow::Owned(ips.collect::<Vec<_>>().join(",")),
        _ => {
            return Err(format!(
                "this agent does not know the field {path:?}: install the managers' version on the node"
            ));
        }
    })
}

/// Kubernetes' `ExtractContainerResourceValue`: the amount by the divisor, rounded up. A limit that there is not is what the node has.
pub(super) fn amount_of(
    field: &ResourceFieldSelector,
    container: &Container,
    around: Around<'_>,
) -> Result<String, String> {
    let name = &field.container_name;
    let container = match name.is_empty() {
        true => container,
        false => spec::container(around.pod, name)
            .ok_or_else(|| format!("the pod has no container {name:?}"))?,
    };
    let amounts = resources::of_container(container)?;
    // In thousandths of cores, or in bytes.
    let (amount, is_cpu) = match field.resource.as_str() {
        "limits.cpu" => match amounts.cpu_limit {
            Some(limit) => (limit, true),
            None => (of_node("cpu", around)?, true),
        },
        "limits.memory" => match amounts.memory_limit {
            Some(limit) => (limit, false),
            None => (of_node("memory", around)?, false),
        },
        "requests.cpu" => (amounts.cpu_request.unwrap_or(0), true),
        "requests.memory" => (amounts.memory_request.unwrap_or(0), false),
        "limits.ephemeral-storage" => match resources::storage_limit(container)? {
            Some(limit) => (limit, false),
            None => (of_node("ephemeral-storage", around)?, false),
        },
        "requests.ephemeral-storage" => (resources::storage_request(container)?, false),
        other => return Err(format!("there is no amount {other:?}")),
    };
    let unit = if is_cpu { 1000 } else { 1 };
    let divisor = match &field.divisor {
        Some(divisor) => number(divisor, is_cpu)?,
        None => 0,
    };
    let divisor = if divisor == 0 { unit } else { divisor };
    Ok(amount.div_ceil(divisor).to_string())
}

fn of_node(resource: &str, around: Around<'_>) -> Result<u64, String> {
    let quantity = around.allocatable.get(resource);
    quantity.map_or_else(
        || Err(format!("how much {resource} the node has is not known")),
        |quantity| number(quantity, resource == "cpu"),
    )
}

/// In thousandths of cores, or in bytes.
fn number(quantity: &Quantity, is_cpu: bool) -> Result<u64, String> {
    let parsed = match is_cpu {
        true => parse_milli(quantity),
        false => parse_whole(quantity),
    };
    let number = parsed.map_err(|error| error.to_string())?;
    Ok(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests;
