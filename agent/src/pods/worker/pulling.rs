//! The images of a pod's containers, and what is told about them, in Kubernetes' words.

use std::time::Duration;

use barge_proto::v1::Pod;

use super::{
    Pad, Worker,
    hands::{Hands, Outcome},
    steps::pace,
};
use crate::{
    events::{Severity, pod_reference},
    pods::{
        pull_secrets::{Brought, brought},
        spec,
    },
    runtime::{Image, PullPolicy, RuntimeError},
};

/// An image, and how it came.
pub struct Got {
    image: Image,
    /// How long it was pulled for; `None` when it was here.
    pulled: Option<Duration>,
}

impl Hands {
    /// Makes the image of a container present. What is here waits for no other pull.
    pub(super) async fn pull(&self, pod: &Pod, name: String) -> Outcome {
        let Some(container) = spec::container(pod, &name) else {
            return Outcome::Dropped;
        };
        let (image, policy) = (&container.image, spec::pull_policy(container));
        let given = self.wanted.borrow().given.clone();
        let Brought { secrets, problem } = brought(pod, &given);
        if let Some(message) = problem {
            let reason = "FailedToRetrieveImagePullSecret";
            let recorder = &self.shared.recorder;
            recorder.record(pod_reference(pod), Severity::Warning, reason, message);
        }
        let pull = async {
            let runtime = &self.shared.runtime;
            // Asked also when the registry has to be asked: a wrong name, or a runtime that is away, is no pull.
            let found = runtime.find_image(image, &secrets).await?;
            if let Some(image) = found.filter(|_| policy != PullPolicy::Always) {
                let pulled = None;
                return Ok(Got { image, pulled });
            }
            if policy != PullPolicy::Never {
                let message = format!("Pulling image \"{image}\"");
                let recorder = &self.shared.recorder;
                recorder.record(pod_reference(pod), Severity::Normal, "Pulling", message);
            }
            let begun = self.shared.clock.now_ms();
            let image = runtime.pull(image, policy, &secrets).await?;
            let took = self.shared.clock.now_ms().saturating_sub(begun);
            let pulled = Some(Duration::from_millis(u64::try_from(took).unwrap_or(0)));
            Ok(Got { image, pulled })
        };
        // It may take minutes. When the pod ends before, the pull does too, unless another pod waits for it.
        match self.while_wanted(pull).await {
            Some(result) => Outcome::Pulled(name, result),
            None => Outcome::Dropped,
        }
    }
}

impl Worker {
    /// Remembers what became of a pull, and tells it.
    pub(super) fn pulled(
        &self,
        pad: &mut Pad,
        name: &str,
        result: Result<Got, RuntimeError>,
        now: i64,
    ) {
        let image = image_of(pad, name);
        match result {
            Ok(Got { image: got, pulled }) => {
                let message = match pulled {
                    Some(took) => format!("Successfully pulled image \"{image}\" in {took:?}"),
                    None => format!("Container image \"{image}\" already present on machine"),
                };
                self.event(pad, Severity::Normal, "Pulled", &message);
                let memory = pad.memory.container(name);
                memory.pull.worked();
                memory.image = Some(got);
            }
            Err(error) => {
                let (reason, message) = match error.reason {
                    "ErrImageNeverPull" => ("ErrImageNeverPull", error.message.clone()),
                    "InvalidImageName" => ("InspectFailed", error.message.clone()),
                    _ => {
                        let why = &error.message;
                        ("Failed", format!("Failed to pull image \"{image}\": {why}"))
                    }
                };
                self.event(pad, Severity::Warning, reason, &message);
                let pace = pace(&error);
                let memory = pad.memory.container(name);
                memory.pull.failed(pace, error.reason, error.message, now);
            }
        }
    }

    /// Tells once per failed pull that the next one waits.
    pub(super) fn tell_pull_back_off(&self, pad: &mut Pad, now: i64) {
        let waiting: Vec<_> = pad
            .memory
            .containers
            .iter()
            .filter(|(_, memory)| memory.pull.until(now).is_some())
            .filter_map(|(name, memory)| Some((name, memory.pull.failure.as_ref()?)))
            .filter(|(name, failure)| {
                let told = pad.told_pulls.get(*name);
                failure.reason == "ErrImagePull" && told != Some(&failure.failed_ms)
            })
            .map(|(name, failure)| (name.clone(), failure.failed_ms))
            .collect();
        for (name, failed_ms) in waiting {
            let message = format!("Back-off pulling image \"{}\"", image_of(pad, &name));
            self.event(pad, Severity::Normal, "BackOff", &message);
            pad.told_pulls.insert(name, failed_ms);
        }
    }
}

/// As the pod names the image of a container.
fn image_of(pad: &Pad, name: &str) -> String {
    let pod = pad.pod.as_deref();
    let container = pod.and_then(|pod| spec::container(pod, name));
    container.map_or_else(String::new, |container| container.image.clone())
}
