//! Where variables of the environment come from.

use super::{Checker, names};
use crate::{
    quantity::Amount,
    v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector},
};

/// Fields of a pod that a variable can hold.
const FIELDS: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], \
                      spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP or status.podIPs";

/// Amounts that a variable can hold.
const AMOUNTS: &[&str] = &[
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];

/// Divisors, as Kubernetes has them.
const CPU_DIVISORS: &[&str] = &["0", "1", "1m"];
const MEMORY_DIVISORS: &[&str] = &[
    "0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

impl Checker {
    /// `containers` are the names of all containers of the pod.
    pub(super) fn environment(&mut self, path: &str, container: &Container, containers: &[&str]) {
        for (index, variable) in container.env.iter().enumerate() {
            let path = format!("{path}.env[{index}]");
            self.text(
                format!("{path}.name"),
                &variable.name,
                names::env_name(&variable.name),
            );
            if let Some(source) = &variable.value_from {
                self.variable(&format!("{path}.valueFrom"), variable, source, containers);
            }
        }
        for (index, from) in container.env_from.iter().enumerate() {
            let path = format!("{path}.envFrom[{index}]");
            let given = [from.config_map_ref.is_some(), from.secret_ref.is_some()];
            self.exactly_one(&path, &given, "configMapRef or secretRef");
            if !from.prefix.is_empty() {
                let result = names::env_name(&from.prefix);
                self.text(format!("{path}.prefix"), &from.prefix, result);
            }
            if let Some(it) = &from.config_map_ref {
                self.name_of_object(format!("{path}.configMapRef.name"), &it.name);
            }
            if let Some(it) = &from.secret_ref {
                self.name_of_object(format!("{path}.secretRef.name"), &it.name);
            }
        }
    }

    fn variable(
        &mut self,
        path: &str,
        variable: &EnvVar,
        source: &EnvVarSource,
        containers: &[&str],
    ) {
        if !variable.value.is_empty() {
            let rule =
                "cannot stand beside value: leave one of the two out, the variable has one value";
            self.violated(path, "", rule);
        }
        let given = [
            source.field_ref.is_some(),
            source.resource_field_ref.is_some(),
            source.config_map_key_ref.is_some(),
            source.secret_key_ref.is_some(),
        ];
        let words = "fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef";
        self.exactly_one(path, &given, words);
        if let Some(field) = &source.field_ref {
            self.field_ref(&format!("{path}.fieldRef"), field);
        }
        if let Some(field) = &source.resource_field_ref {
            self.resource_field_ref(&format!("{path}.resourceFieldRef"), field, containers);
        }
        if let Some(it) = &source.config_map_key_ref {
            self.key_of_object(&format!("{path}.configMapKeyRef"), &it.name, &it.key);
        }
        if let Some(it) = &source.secret_key_ref {
            self.key_of_object(&format!("{path}.secretKeyRef"), &it.name, &it.key);
        }
    }

    pub(super) fn exactly_one(&mut self, path: &str, given: &[bool], words: &str) {
        match given.iter().filter(|given| **given).count() {
            1 => {}
            0 => self.violated(path, "", format!("needs one of {words}")),
            _ => self.violated(path, "", format!("takes only one of {words}")),
        }
    }

    fn field_ref(&mut self, path: &str, field: &ObjectFieldSelector) {
        let rule = format!("is not a field that a variable can hold: there are {FIELDS}");
        self.field_of_pod(path, field, is_field, rule);
    }

    /// A field of the pod, where not all of them are possible.
    pub(super) fn field_of_pod(
        &mut self,
        path: &str,
        field: &ObjectFieldSelector,
        is_field: fn(&str) -> bool,
        rule: String,
    ) {
        self.one_of(format!("{path}.apiVersion"), &field.api_version, &["v1"]);
        let name = format!("{path}.fieldPath");
        if field.field_path.is_empty() {
            return self.required(name);
        }
        if !is_field(&field.field_path) {
            let value = format_args!("{:?}", field.field_path);
            self.violated(name, value, rule);
        }
    }

    pub(super) fn resource_field_ref(
        &mut self,
        path: &str,
        field: &ResourceFieldSelector,
        containers: &[&str],
    ) {
        let name = &field.container_name;
        if !name.is_empty() && !containers.contains(&name.as_str()) {
            let rule = "is not a container of this pod";
            self.violated(
                format!("{path}.containerName"),
                format_args!("{name:?}"),
                rule,
            );
        }
        if field.resource.is_empty() {
            return self.required(format!("{path}.resource"));
        }
        self.one_of(format!("{path}.resource"), &field.resource, AMOUNTS);
        let Some(divisor) = &field.divisor else {
            return;
        };
        let divisors = match field.resource.ends_with(".cpu") {
            true => CPU_DIVISORS,
            false => MEMORY_DIVISORS,
        };
        let is_divisor = match Amount::try_from(divisor) {
            Ok(amount) => divisors.contains(&amount.to_string().as_str()),
            Err(_) => false,
        };
        if !is_divisor {
            let rule = format!("must be one of {}", divisors.join(", "));
            self.violated(format!("{path}.divisor"), &divisor.value, rule);
        }
    }

    fn key_of_object(&mut self, path: &str, name: &str, key: &str) {
        self.name_of_object(format!("{path}.name"), name);
        match key.is_empty() {
            true => self.required(format!("{path}.key")),
            false => self.text(format!("{path}.key"), key, names::data_key(key)),
        }
    }

    pub(super) fn name_of_object(&mut self, field: String, name: &str) {
        match name.is_empty() {
            true => self.required(field),
            false => self.text(field, name, names::dns_subdomain(name)),
        }
    }
}

fn is_field(path: &str) -> bool {
    let plain = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    plain.contains(&path) || is_entry(path)
}

/// metadata.labels['KEY'] or metadata.annotations['KEY'].
pub(super) fn is_entry(path: &str) -> bool {
    let of_map = |map: &str| {
        let key = path.strip_prefix(map).and_then(|it| it.strip_prefix("['"));
        let key = key.and_then(|it| it.strip_suffix("']"));
        key.is_some_and(|key| !key.is_empty() && !key.contains('\''))
    };
    of_map("metadata.labels") || of_map("metadata.annotations")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_that_the_agent_can_tell() {
        for (path, known) in [
            ("metadata.name", true),
            ("metadata.labels['app.kubernetes.io/name']", true),
            ("metadata.annotations['a']", true),
            ("metadata.labels", false),
            ("metadata.labels['']", false),
            ("spec.serviceAccountName", true),
            ("status.phase", false),
        ] {
            assert_eq!(is_field(path), known, "{path}");
        }
    }
}
