//! The steps of a pod that are under way, one at a time for each thing that a step is about.

use std::collections::BTreeSet;

use tokio::task::{JoinError, JoinSet};

use super::hands::Outcome;
use crate::pods::plan::Step;

/// What a step is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Sandbox,
    Volumes,
    HostPaths,
    Measure,
    /// The next attempt of the container with this name.
    Next(String),
    /// The container with this id of the runtime.
    There(String),
}

/// Steps under way. They end when this is dropped.
#[derive(Default)]
pub struct Running {
    steps: JoinSet<(Subject, Outcome)>,
    busy: BTreeSet<Subject>,
}

impl Running {
    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.busy.is_empty()
    }

    /// Whether a step can begin now. What takes the ground from under containers waits for all others.
    pub fn admits(&self, step: &Step) -> bool {
        match step {
            Step::RemoveSandbox | Step::ReleaseSandbox => self.busy.is_empty(),
            step => !self.busy.contains(&subject(step)),
        }
    }

    /// Whether the pod's volumes are being made.
    pub fn makes_volumes(&self) -> bool {
        self.busy.contains(&Subject::Volumes)
    }

    /// Begins a step.
    pub fn begin(&mut self, step: &Step, work: impl Future<Output = Outcome> + Send + 'static) {
        let subject = subject(step);
        self.busy.insert(subject.clone());
        self.steps.spawn(async move { (subject, work.await) });
    }

    /// The next outcome; waits for ever while nothing is under way.
    pub async fn next(&mut self) -> Outcome {
        match self.steps.join_next().await {
            Some(ended) => self.take(ended),
            None => std::future::pending().await,
        }
    }

    /// An outcome that is there already.
    pub fn ready(&mut self) -> Option<Outcome> {
        let ended = self.steps.try_join_next()?;
        Some(self.take(ended))
    }

    /// Waits until all steps have ended, whatever becomes of them.
    pub async fn finish(mut self) {
        while self.steps.join_next().await.is_some() {}
    }

    fn take(&mut self, ended: Result<(Subject, Outcome), JoinError>) -> Outcome {
        match ended {
            Ok((subject, outcome)) => {
                self.busy.remove(&subject);
                outcome
            }
            // The worker fails with its step, and is started again.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Outcome::Dropped,
            },
        }
    }
}

fn subject(step: &Step) -> Subject {
    match step {
        Step::CreateSandbox | Step::RemoveSandbox | Step::ReleaseSandbox => Subject::Sandbox,
        Step::Volumes { .. } => Subject::Volumes,
        Step::LookAtHostPaths => Subject::HostPaths,
        Step::Measure => Subject::Measure,
        Step::Pull { container } | Step::Start { container, .. } => {
            Subject::Next(container.clone())
        }
        Step::Stop { id, .. } | Step::Remove { id } => Subject::There(id.clone()),
    }
}
