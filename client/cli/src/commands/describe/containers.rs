//! The containers of a pod or of a template.

use barge_client::v1::{Container, ContainerState, ContainerStatus};

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
    text.list(
        "Environment",
        container
            .env
            .iter()
            .map(|variable| format!("{}={}", variable.name, variable.value)),
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
