//! Waiting until a Deployment runs as it should, and saying why it does not.

use std::time::Duration;

use anyhow::{Result, bail};
use barge_client::{
    Client, Selection, WatchEvent,
    v1::{Deployment, Kind, Object, Pod},
};
use tokio::time::{Instant, timeout_at};

use crate::progress::Progress;

mod trouble;

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollout {
    /// Not yet: one sentence.
    Underway(String),
    /// As it should be.
    Complete,
    /// It will not get there by itself: one sentence.
    Failed(String),
}

/// Judges a Deployment by its own status.
pub fn judge(deployment: &Deployment) -> Rollout {
    let metadata = deployment.metadata.clone().unwrap_or_default();
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let name = &metadata.name;
    let wanted = spec.replicas.unwrap_or(1);
    let stuck = status.conditions.iter().find(|condition| {
        condition.r#type == "Progressing" && condition.reason == "ProgressDeadlineExceeded"
    });
    if status.observed_generation < metadata.generation {
        return Rollout::Underway(format!("{name}: the change has not been seen yet"));
    }
    if let Some(stuck) = stuck {
        let message = if stuck.message.is_empty() {
            "no progress until its deadline"
        } else {
            &stuck.message
        };
        return Rollout::Failed(format!("{name}: {message}"));
    }
    if spec.paused && status.updated_replicas < wanted {
        return Rollout::Failed(format!(
            "{name} is paused: `barge rollout resume deployment/{name}` lets it go on"
        ));
    }
    if status.updated_replicas < wanted {
        let text = format!(
            "{name}: {} of {wanted} replicas are up to date",
            status.updated_replicas
        );
        return Rollout::Underway(text);
    }
    if status.replicas > status.updated_replicas {
        let old = status.replicas - status.updated_replicas;
        return Rollout::Underway(format!("{name}: {old} old replicas are ending"));
    }
    if status.available_replicas < status.updated_replicas {
        let text = format!(
            "{name}: {} of {} replicas are available",
            status.available_replicas, status.updated_replicas
        );
        return Rollout::Underway(text);
    }
    Rollout::Complete
}

/// Follows a Deployment until it is rolled out; when that takes too long, the error says why.
pub async fn wait(client: &Client, namespace: &str, name: &str, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut progress = Progress::new();
    let mut watcher = client.list_and_watch(Selection {
        name: name.to_owned(),
        ..Selection::of(Kind::Deployment, namespace)
    });
    let mut last = None;
    loop {
        let Ok(event) = timeout_at(deadline, watcher.next()).await else {
            progress.finish(None);
            return Err(late(client, name, last, patience).await);
        };
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let Ok(deployment) = Deployment::try_from(object) else {
                    continue;
                };
                match judge(&deployment) {
                    Rollout::Complete => {
                        let text = format!("{name}: rolled out");
                        progress.finish(Some(&text));
                        return Ok(());
                    }
                    Rollout::Underway(text) => progress.say(&text),
                    Rollout::Failed(text) => {
                        progress.finish(None);
                        let why = trouble::of(client, &deployment).await;
                        bail!("{text}{}", trouble::paragraph(&why));
                    }
                }
                last = Some(deployment);
            }
            WatchEvent::Deleted(_) => bail!("deployment \"{name}\" was deleted meanwhile"),
            WatchEvent::Synced { .. } if last.is_none() => {
                bail!("deployment \"{name}\" does not exist")
            }
            WatchEvent::Synced { .. } => {}
        }
    }
}

async fn late(
    client: &Client,
    name: &str,
    last: Option<Deployment>,
    patience: Duration,
) -> anyhow::Error {
    let mut text = format!(
        "deployment \"{name}\" is not rolled out after {:.0} s",
        patience.as_secs_f64()
    );
    if let Some(deployment) = last {
        if let Rollout::Underway(state) = judge(&deployment) {
            text.push_str(&format!(": {state}"));
        }
        let why = trouble::of(client, &deployment).await;
        text.push_str(&trouble::paragraph(&why));
    }
    anyhow::Error::msg(text)
}

/// The pods that a Deployment owns, of all its revisions.
pub async fn pods(client: &Client, deployment: &Deployment) -> Result<Vec<Pod>> {
    let Some(metadata) = &deployment.metadata else {
        return Ok(Vec::new());
    };
    let labels = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref())
        .map(|selector| crate::output::selector(Some(selector)))
        .unwrap_or_default();
    let listing = client
        .list(&Selection {
            labels,
            ..Selection::of(Kind::Pod, &metadata.namespace)
        })
        .await?;
    let pods = listing
        .objects
        .into_iter()
        .filter_map(|object: Object| Pod::try_from(object).ok());
    Ok(pods.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::{Condition, DeploymentSpec, DeploymentStatus, ObjectMeta};

    fn deployment(wanted: i32, status: DeploymentStatus) -> Deployment {
        Deployment {
            metadata: Some(ObjectMeta {
                name: "web".into(),
                generation: 2,
                ..ObjectMeta::default()
            }),
            spec: Some(DeploymentSpec {
                replicas: Some(wanted),
                ..DeploymentSpec::default()
            }),
            status: Some(status),
            ..Deployment::default()
        }
    }

    fn status(observed: i64, all: i32, updated: i32, available: i32) -> DeploymentStatus {
        DeploymentStatus {
            observed_generation: observed,
            replicas: all,
            updated_replicas: updated,
            available_replicas: available,
            ..DeploymentStatus::default()
        }
    }

    #[test]
    fn only_the_whole_is_complete() {
        let underway = |wanted, status, part: &str| match judge(&deployment(wanted, status)) {
            Rollout::Underway(text) => assert!(text.contains(part), "{text}"),
            other => panic!("{other:?}"),
        };
        // The status is of the template before.
        underway(3, status(1, 3, 3, 3), "not been seen");
        underway(3, status(2, 4, 1, 3), "1 of 3 replicas are up to date");
        underway(3, status(2, 4, 3, 3), "1 old replicas are ending");
        underway(3, status(2, 3, 3, 2), "2 of 3 replicas are available");
        assert_eq!(judge(&deployment(3, status(2, 3, 3, 3))), Rollout::Complete);
        assert_eq!(judge(&deployment(0, status(2, 0, 0, 0))), Rollout::Complete);
    }

    #[test]
    fn a_paused_rollout_is_not_waited_for() {
        let mut paused = deployment(3, status(2, 3, 0, 3));
        paused.spec.as_mut().unwrap().paused = true;
        let Rollout::Failed(text) = judge(&paused) else {
            panic!("waits for a paused rollout");
        };
        assert!(text.contains("resume"), "{text}");
        paused.status = Some(status(2, 3, 3, 3));
        assert_eq!(judge(&paused), Rollout::Complete);
    }

    #[test]
    fn a_missed_deadline_is_a_failure() {
        let mut stuck = status(2, 3, 1, 2);
        stuck.conditions.push(Condition {
            r#type: "Progressing".into(),
            status: "False".into(),
            reason: "ProgressDeadlineExceeded".into(),
            ..Condition::default()
        });
        assert!(matches!(judge(&deployment(3, stuck)), Rollout::Failed(_)));
    }
}
