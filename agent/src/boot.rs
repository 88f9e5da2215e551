//! Whether the machine was booted since an agent ran here: then none of the containers runs that the managers know as ready.
//!
//! The first life sign brings a lost node back, and with it its pods, as the managers remember them. So after a boot the agent first says
//! that they are not ready, and signs when that is durable.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use barge_proto::v1::{Condition, Pod, PodStatus, Time};
use tokio::time::timeout;

use crate::{
    desired::Desired,
    files::{self, Reserve},
    outbox::Outbox,
};

/// For the file of the last boot. A disk that takes longer must not hold up life signs.
const PATIENCE: Duration = Duration::from_secs(1);

/// A boot of the machine.
#[derive(Debug, Clone)]
pub struct Boot {
    path: PathBuf,
    reserve: Reserve,
    /// The kernel's name for it; empty when it has none.
    id: String,
    last: Last,
}

/// What is known of the boot before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Unknown,
    Same,
    Other,
}

impl Boot {
    /// Compares the machine's boot with the one that was noted in the data folder. `proc` is `/proc`, but in tests.
    pub async fn look(data_dir: &Path, proc: &Path) -> Self {
        let (path, reserve) = (data_dir.join("boot"), Reserve::of(data_dir));
        let (noted, kernels) = (path.clone(), proc.join("sys/kernel/random/boot_id"));
        let look = move || {
            Ok((
                files::read_if_there(&noted)?,
                files::read_if_there(&kernels)?,
            ))
        };
        let (last, id) = match timeout(PATIENCE, files::reading(look)).await {
            Ok(Ok((noted, id))) => {
                let id = id.unwrap_or_default();
                let last = match noted {
                    Some(noted) if noted == id => Last::Same,
                    Some(_) if !id.is_empty() => Last::Other,
                    _ => Last::Unknown,
                };
                (last, String::from_utf8_lossy(&id).into_owned())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot find out whether the machine was booted");
                (Last::Unknown, String::new())
            }
            Err(_) => (Last::Unknown, String::new()),
        };
        Self {
            path,
            reserve,
            id,
            last,
        }
    }

    /// Whether the machine was certainly booted since an agent ran here.
    pub fn is_new(&self) -> bool {
        self.last == Last::Other
    }

    /// Notes this boot, for the next agent.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn note(self) -> io::Result<()> {
        if self.last == Last::Same || self.id.is_empty() {
            return Ok(());
        }
        let write = move || self.reserve.write_atomic(&self.path, self.id.as_bytes());
        files::blocking(write).await
    }
}

/// Puts into the outbox that none of the assigned pods is ready, and returns when that is durable. Pods that have ended stay so.
pub async fn say_not_ready(desired: &Desired, outbox: &Outbox, now: Time) {
    let goes_on = |pod: &&std::sync::Arc<Pod>| {
        let phase = pod.status.as_ref().map_or("", |status| &status.phase);
        !matches!(phase, "Succeeded" | "Failed")
    };
    let pods = desired.pods.iter().filter(|(_, pod)| goes_on(pod));
    let statuses: Vec<_> = pods
        .map(|(uid, pod)| (uid.clone(), not_ready(pod.status.as_ref(), now)))
        .collect();
    outbox.first_reports(statuses).await;
}

fn not_ready(status: Option<&PodStatus>, now: Time) -> PodStatus {
    let mut status = status.cloned().unwrap_or_else(|| PodStatus {
        phase: "Pending".to_owned(),
        ..PodStatus::default()
    });
    let init = status.init_container_statuses.iter_mut();
    for container in init.chain(&mut status.container_statuses) {
        (container.ready, container.started) = (false, Some(false));
    }
    for kind in ["Ready", "ContainersReady"] {
        let condition = Condition {
            r#type: kind.to_owned(),
            status: "False".to_owned(),
            reason: "NodeRebooted".to_owned(),
            message: "the machine was booted; the pod is started again".to_owned(),
            last_transition_time: Some(now),
            ..Condition::default()
        };
        match status.conditions.iter_mut().find(|c| c.r#type == kind) {
            Some(known) => *known = condition,
            None => status.conditions.push(condition),
        }
    }
    status
}
