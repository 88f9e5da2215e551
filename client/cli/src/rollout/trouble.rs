//! The reasons why a Deployment is not ready: its warning events, and its pods' conditions.

use std::collections::BTreeMap;

use barge_client::{
    Client, Selection,
    v1::{Condition, Deployment, Event, Kind, Pod},
};

/// The most reasons that are told.
const REASONS: usize = 8;

/// One sentence for each reason, most frequent first.
pub async fn of(client: &Client, deployment: &Deployment) -> Vec<String> {
    // Help for an error: what cannot be had is left out.
    let pods = super::pods(client, deployment).await.unwrap_or_default();
    let metadata = deployment.metadata.clone().unwrap_or_default();
    let events = client
        .list(&Selection::of(Kind::Event, &metadata.namespace))
        .await;
    let events: Vec<_> = events
        .map(|listing| listing.objects)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|object| Event::try_from(object).ok())
        .collect();
    reasons(deployment, &pods, &events)
}

/// The reasons below an error's first line.
pub fn paragraph(reasons: &[String]) -> String {
    reasons
        .iter()
        .map(|reason| format!("\n  {reason}"))
        .collect()
}

fn reasons(deployment: &Deployment, pods: &[Pod], events: &[Event]) -> Vec<String> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |text: String| *found.entry(text).or_default() += 1;
    for condition in deployment
        .status
        .iter()
        .flat_map(|status| &status.conditions)
    {
        if condition.status == "False" && !condition.message.is_empty() {
            count(format!("{}: {}", condition.reason, condition.message));
        }
    }
    let mut uids = vec![uid(deployment.metadata.as_ref())];
    for pod in pods {
        uids.push(uid(pod.metadata.as_ref()));
        pod_reasons(pod).for_each(&mut count);
    }
    for event in events.iter().filter(|event| event.r#type == "Warning") {
        let about = event.involved_object.clone().unwrap_or_default();
        if !about.uid.is_empty() && uids.contains(&about.uid.as_str()) {
            count(format!("{}: {}", event.reason, event.message.trim()));
        }
    }
    if found.is_empty() {
        found.extend(unready(pods).map(|text| (text, 1)));
    }
    let mut reasons: Vec<_> = found.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    reasons.truncate(REASONS);
    reasons.into_iter().map(|(text, _)| text).collect()
}

fn uid(metadata: Option<&barge_client::v1::ObjectMeta>) -> &str {
    metadata.map_or("", |metadata| &metadata.uid)
}

/// The pods that are not ready, for want of a better reason.
fn unready(pods: &[Pod]) -> impl Iterator<Item = String> + '_ {
    let ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().map_or(&[][..], |s| &s.conditions);
        conditions
            .iter()
            .any(|condition| condition.r#type == "Ready" && condition.status == "True")
    };
    pods.iter().filter(move |pod| !ready(pod)).map(|pod| {
        let name = pod.metadata.as_ref().map_or("", |metadata| &metadata.name);
        format!("pod {name}: {}", crate::output::pod_status(pod))
    })
}

/// Why a pod is not placed, and why its containers wait or ended.
fn pod_reasons(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let status = pod.status.as_ref();
    let conditions = status.map_or(&[][..], |status| &status.conditions);
    let unplaced = conditions
        .iter()
        .filter(|condition| condition.r#type == "PodScheduled" && condition.status == "False")
        .map(|condition: &Condition| format!("{}: {}", condition.reason, condition.message));
    let containers = status.into_iter().flat_map(|status| {
        let init = status.init_container_statuses.iter();
        init.chain(&status.container_statuses)
    });
    let waiting = containers.filter_map(|container| {
        let state = container.state.as_ref()?;
        let (reason, message) = match (&state.waiting, &state.terminated) {
            (Some(waiting), _) => (&waiting.reason, &waiting.message),
            (None, Some(ended)) if ended.exit_code != 0 => (&ended.reason, &ended.message),
            _ => return None,
        };
        // Nothing is wrong yet.
        if reason.is_empty() || matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let colon = if message.is_empty() { "" } else { ": " };
        Some(format!(
            "container {}: {reason}{colon}{message}",
            container.name
        ))
    });
    unplaced.chain(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::*;

    #[test]
    fn names_each_reason_once_and_only_ours() {
        let meta = |uid: &str| {
            Some(ObjectMeta {
                uid: uid.into(),
                ..ObjectMeta::default()
            })
        };
        let deployment = Deployment {
            metadata: meta("d"),
            ..Deployment::default()
        };
        let pod = Pod {
            metadata: meta("p"),
            status: Some(PodStatus {
                conditions: vec![Condition {
                    r#type: "PodScheduled".into(),
                    status: "False".into(),
                    reason: "Unschedulable".into(),
                    message: "0/1 nodes are available: 1 insufficient cpu".into(),
                    ..Condition::default()
                }],
                ..PodStatus::default()
            }),
            ..Pod::default()
        };
        let warning = |uid: &str, reason: &str| Event {
            r#type: "Warning".into(),
            reason: reason.into(),
            message: "m".into(),
            involved_object: Some(ObjectReference {
                uid: uid.into(),
                ..ObjectReference::default()
            }),
            ..Event::default()
        };
        let events = [
            warning("p", "Failed"),
            warning("other", "Foreign"),
            warning("d", "Failed"),
        ];
        assert_eq!(
            reasons(&deployment, &[pod.clone(), pod], &events),
            [
                "Failed: m",
                "Unschedulable: 0/1 nodes are available: 1 insufficient cpu"
            ]
        );
    }
}
