//! The parts of an agent that run beside each other. None of them ends before the agent does; one that does, or that panics, is a defect of this program, and the
//! rest would go on without it, in silence. So it ends the agent, which is started again.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// Tasks with names.
#[derive(Default)]
pub struct Parts {
    running: JoinSet<()>,
    parts: HashMap<Id, Part>,
}

#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    /// It ends when its work is done.
    ends: bool,
}

impl Parts {
    /// Begins a part that lasts as long as the agent.
    pub fn lasting(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.begin(Part { name, ends: false }, work);
    }

    /// Begins a part that ends when its work is done.
    pub fn passing(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.begin(Part { name, ends: true }, work);
    }

    fn begin(&mut self, part: Part, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.running.spawn(work);
        self.parts.insert(task.id(), part);
    }

    /// Waits until a part is missing, and names it.
    pub async fn missing(&mut self) -> &'static str {
        while let Some(ended) = self.running.join_next_with_id().await {
            let (id, panicked) = match &ended {
                Ok((id, ())) => (*id, false),
                Err(error) => (error.id(), error.is_panic()),
            };
            let Some(part) = self.parts.remove(&id) else {
                continue;
            };
            if panicked || !part.ends {
                return part.name;
            }
        }
        std::future::pending().await
    }

    /// Waits until all have ended.
    pub async fn finish(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_or_ends_before_its_time_is_named() {
        let mut parts = Parts::default();
        parts.passing("note", async {});
        parts.lasting("lasts", std::future::pending());
        let long = Duration::from_secs(600);
        assert!(timeout(long, parts.missing()).await.is_err());
        parts.lasting("ends", sleep(Duration::from_secs(1)));
        assert_eq!(timeout(long, parts.missing()).await, Ok("ends"));
        parts.passing("panics", async { panic!("as told") });
        assert_eq!(timeout(long, parts.missing()).await, Ok("panics"));
        assert!(timeout(long, parts.missing()).await.is_err());
    }
}
