//! The containers of a pod: which there are, and what they need at most at a time.

use crate::v1::{Container, PodSpec};

impl Container {
    /// Whether it is an init container that runs on beside the pod's containers. Only asked of init containers: `restartPolicy` is refused
    /// elsewhere.
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }
}

impl PodSpec {
    /// Init containers and containers, in the order in which they start.
    pub fn all_containers(&self) -> impl DoubleEndedIterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// What the pod's containers need at most at a time, when each needs `of` it: either sidecars and containers together, or an init
    /// container beside the sidecars before it (Kubernetes' "effective" request of a pod).
    #[must_use]
    pub fn at_a_time<T: Copy + Default>(
        &self,
        of: impl Fn(&Container) -> T,
        plus: impl Fn(T, T) -> T,
        max: impl Fn(T, T) -> T,
    ) -> T {
        let (mut sidecars, mut peak) = (T::default(), T::default());
        for container in &self.init_containers {
            let needs = plus(sidecars, of(container));
            peak = max(peak, needs);
            if container.is_sidecar() {
                sidecars = needs;
            }
        }
        let containers = self.containers.iter().map(of);
        max(peak, containers.fold(sidecars, plus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, sidecar: bool) -> Container {
        Container {
            name: name.to_owned(),
            restart_policy: if sidecar { "Always" } else { "" }.to_owned(),
            ..Container::default()
        }
    }

    fn needs(init: &[(&str, bool)], containers: &[&str]) -> u64 {
        let init = init.iter().map(|(name, sidecar)| container(name, *sidecar));
        let containers = containers.iter().map(|name| container(name, false));
        let spec = PodSpec {
            init_containers: init.collect(),
            containers: containers.collect(),
            ..PodSpec::default()
        };
        // Each needs what it is called.
        let of = |it: &Container| it.name.parse().unwrap_or(0);
        spec.at_a_time(of, |a, b| a + b, u64::max)
    }

    #[test]
    fn the_largest_need_at_a_time_counts() {
        assert_eq!(needs(&[], &["1", "2"]), 3);
        assert_eq!(needs(&[("5", false), ("2", false)], &["1", "2"]), 5);
        assert_eq!(needs(&[("2", true)], &["1", "2"]), 5);
        assert_eq!(needs(&[("5", false), ("2", true)], &["1", "2"]), 5);
        assert_eq!(needs(&[("2", true), ("5", false)], &["1", "2"]), 7);
        assert_eq!(needs(&[("2", true), ("3", true)], &["1"]), 6);
    }
}
