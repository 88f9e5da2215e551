//! The containers of a pod or of a template.

use barge_client::v1::{Container, ContainerState, ContainerStatus, EnvFromSource, EnvVar};

use super::text::Text;
use crate::output;

/// Every container, with its status where there is one.
pub fn describe(text: &mut Text, containers: &[Container], statuses: &[ContainerStatus], now: i64) {
    for container in containers {
        let status = statuses.iter().find(|status| status.name == container.name);
        text.section(&container.name, |text| one(text, container, status, now));
    }
}

fn one(text: &mut Text, container: &Container, status: Option<&ContainerStatus>, now: i64) {
    text.field("Image", &container.image);
    if let Some(status) = status {
        text.field("Image ID", &status.image_id);
        text.field("Container ID", &status.container_id);
    }
    text.field("Command", container.command.join(" "));
    text.field("Args", container.args.join(" "));
    text.field("Working Dir", &container.working_dir);
    let ports = container.ports.iter().map(|port| {
        let protocol = if port.protocol.is_empty() {
            "TCP"
        } else {
            &port.protocol
        };
        format!("{}/{protocol}", port.container_port)
    });
    text.list("Ports", ports);
    let resources = container.resources.clone().unwrap_or_default();
    let quantities = |map: std::collections::BTreeMap<String, barge_client::v1::Quantity>| {
        map.into_iter()
            .map(|(name, quantity)| format!("{name} {}", quantity.value))
    };
    text.list("Requests", quantities(resources.requests));
    text.list("Limits", quantities(resources.limits));
    text.list("Environment", container.env.iter().map(variable));
    text.list(
        "Environment From",
        container.env_from.iter().filter_map(source),
    );
    let Some(status) = status else { return };
    if let Some(now_state) = status.state.as_ref().map(|state| state_line(state, now)) {
        text.field("State", now_state);
    }
    if let Some(last) = status
        .last_state
        .as_ref()
        .map(|state| state_line(state, now))
    {
        text.field("Last State", last);
    }
    text.field("Ready", if status.ready { "yes" } else { "no" });
    text.field("Restarts", status.restart_count.to_string());
}

/// A variable with its value, or with where that comes from.
fn variable(variable: &EnvVar) -> String {
    let name = &variable.name;
    let Some(from) = &variable.value_from else {
        return format!("{name}={}", variable.value);
    };
    let from = if let Some(it) = &from.config_map_key_ref {
        let may_lack = may_lack(it.optional);
        format!("from key {} of ConfigMap {}{may_lack}", it.key, it.name)
    } else if let Some(it) = &from.secret_key_ref {
        let may_lack = may_lack(it.optional);
        format!("from key {} of Secret {}{may_lack}", it.key, it.name)
    } else if let Some(it) = &from.field_ref {
        format!("from field {} of the pod", it.field_path)
    } else if let Some(it) = &from.resource_field_ref {
        match it.container_name.as_str() {
            "" => format!("from {}", it.resource),
            container => format!("from {} of container {container}", it.resource),
        }
    } else {
        "from elsewhere".to_owned()
    };
    format!("{name}: <{from}>")
}

/// Where several variables come from.
fn source(source: &EnvFromSource) -> Option<String> {
    let from = match (&source.config_map_ref, &source.secret_ref) {
        (Some(it), _) => format!("ConfigMap {}{}", it.name, may_lack(it.optional)),
        (None, Some(it)) => format!("Secret {}{}", it.name, may_lack(it.optional)),
        (None, None) => return None,
    };
    Some(match source.prefix.as_str() {
        "" => from,
        prefix => format!("{from}, each with the prefix {prefix}"),
    })
}

fn may_lack(optional: Option<bool>) -> &'static str {
    match optional {
        Some(true) => ", if it is there",
        _ => "",
    }
}

fn state_line(state: &ContainerState, now: i64) -> String {
    if let Some(waiting) = &state.waiting {
        let colon = if waiting.message.is_empty() { "" } else { ": " };
        return format!("Waiting, {}{colon}{}", waiting.reason, waiting.message);
    }
    if let Some(running) = &state.running {
        return format!(
            "Running since {}",
            output::age(running.started_at.as_ref(), now)
        );
    }
    if let Some(ended) = &state.terminated {
        let signal = match ended.signal {
            0 => String::new(),
            signal => format!(", signal {signal}"),
        };
        let colon = if ended.message.is_empty() { "" } else { ": " };
        return format!(
            "Terminated, {}, exit code {}{signal}, {} ago{colon}{}",
            ended.reason,
            ended.exit_code,
            output::age(ended.finished_at.as_ref(), now),
            ended.message
        );
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use barge_client::v1::{
        ConfigMapEnvSource, ConfigMapKeySelector, EnvVarSource, ObjectFieldSelector,
        ResourceFieldSelector, SecretKeySelector,
    };

    use super::*;

    fn from(from: EnvVarSource) -> String {
        variable(&EnvVar {
            name: "A".into(),
            value_from: Some(from),
            ..EnvVar::default()
        })
    }

    #[test]
    fn a_variable_says_where_it_comes_from() {
        let plain = EnvVar {
            name: "A".into(),
            value: "1".into(),
            ..EnvVar::default()
        };
        assert_eq!(variable(&plain), "A=1");
        let config = EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: "c".into(),
                key: "k".into(),
                optional: None,
            }),
            ..EnvVarSource::default()
        };
        assert_eq!(from(config), "A: <from key k of ConfigMap c>");
        let secret = EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: "s".into(),
                key: "k".into(),
                optional: Some(true),
            }),
            ..EnvVarSource::default()
        };
        assert_eq!(from(secret), "A: <from key k of Secret s, if it is there>");
        let field = EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "status.podIP".into(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        };
        assert_eq!(from(field), "A: <from field status.podIP of the pod>");
        let resource = EnvVarSource {
            resource_field_ref: Some(ResourceFieldSelector {
                resource: "limits.cpu".into(),
                container_name: "app".into(),
                ..ResourceFieldSelector::default()
            }),
            ..EnvVarSource::default()
        };
        assert_eq!(from(resource), "A: <from limits.cpu of container app>");
    }

    #[test]
    fn a_whole_object_of_variables_is_named() {
        let all = EnvFromSource {
            prefix: "APP_".into(),
            config_map_ref: Some(ConfigMapEnvSource {
                name: "c".into(),
                optional: None,
            }),
            ..EnvFromSource::default()
        };
        let told = source(&all).unwrap();
        assert_eq!(told, "ConfigMap c, each with the prefix APP_");
    }
}
