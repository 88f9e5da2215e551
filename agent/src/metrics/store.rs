//! What was measured: written by the sampler and by the pods' workers, read by whoever asks. In memory only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    LONGEST,
    ring::{Average, Counter, EACH_FIVE, EACH_SECOND, Ring, per_second},
};
use crate::runtime::{Container, ContainerState, Traffic, Usage};

/// The measurements of this agent. Cheap to clone; no lock is held longer than it takes to put in a number or to look at one pod.
///
/// A container's hour takes 13 kB and its pod's network 4.5 kB, so 100 pods of one container take 1.8 MB. It begins with the agent: one that was started anew knows the
/// averages again after two samples, which is two seconds.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// All times are since then, by a clock that is never set.
    begin: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    pods: BTreeMap<String, Pod>,
    machine: Option<Machine>,
    disk: Option<Disk>,
}

#[derive(Default)]
struct Pod {
    /// By name, whichever attempt it is: an average may begin before a restart.
    containers: BTreeMap<String, Measured>,
    network: Option<Network>,
}

struct Measured {
    /// Of the attempt that runs, or ran last.
    id: String,
    attempt: u32,
    running: bool,
    /// When it was last seen running.
    seen_us: u64,
    cpu: Counter,
    samples: Ring<Sample>,
    /// Bytes on disk, and when they were counted.
    storage: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Microseconds of processor time since the first sample.
    cpu_us: u64,
    /// Bytes of memory that cannot be taken back.
    memory: u64,
}

struct Network {
    received: Counter,
    sent: Counter,
    samples: Ring<(u64, u64)>,
}

struct Machine {
    cpu: Counter,
    samples: Ring<Sample>,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes in use.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A container that runs, as the sampler knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Running {
    /// Uid of its pod.
    pub pod_uid: String,
    /// Its name in the pod.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// Which restart.
    pub attempt: u32,
}

impl From<&Container> for Running {
    fn from(container: &Container) -> Self {
        Self {
            pod_uid: container.pod_uid.clone(),
            name: container.name.clone(),
            id: container.id.clone(),
            attempt: container.attempt,
        }
    }
}

/// What is known of a container or of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// For how long the newest sample has been there.
    pub age: Duration,
    /// The processor over the window; `None` while there is one sample only.
    pub cpu: Option<Average>,
    /// Bytes, of the newest sample.
    pub memory: u64,
    /// Bytes on disk, as they were counted last; 0 before that.
    pub storage: u64,
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Came in.
    pub received: u64,
    /// Went out.
    pub sent: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self(Arc::new(Inner {
            begin: Instant::now(),
            kept: Mutex::default(),
        }))
    }
}

impl Store {
    /// Now, on the store's clock.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.0.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A pod's containers are these now. Those that run are sampled from now on.
    pub fn observe(&self, pod_uid: &str, containers: &[Container]) {
        let now = self.now_us();
        let runs = |it: &&Container| matches!(it.state, ContainerState::Running { .. });
        let mut kept = self.lock();
        if !kept.pods.contains_key(pod_uid) && !containers.iter().any(|it| runs(&it)) {
            return;
        }
        let pod = kept.pods.entry(pod_uid.to_owned()).or_default();
        for measured in pod.containers.values_mut() {
            if measured.running {
                measured.seen_us = now;
            }
            measured.running = false;
        }
        for container in containers.iter().filter(runs) {
            let known = pod.containers.entry(container.name.clone());
            let known = known.or_insert_with(|| Measured::new(container, now));
            if known.id != container.id {
                known.id.clone_from(&container.id);
                known.attempt = container.attempt;
                known.cpu.begin_anew();
            }
            known.running = true;
        }
    }

    /// Nothing is left of a pod.
    pub fn forget(&self, pod_uid: &str) {
        self.lock().pods.remove(pod_uid);
    }

    /// Drops what nobody can ask for any more: of containers that ended more than an hour ago.
    pub fn sweep(&self) {
        let now = self.now_us();
        let is_old = |seen: u64| u128::from(now.saturating_sub(seen)) > LONGEST.as_micros();
        for pod in self.lock().pods.values_mut() {
            pod.containers
                .retain(|_, it| it.running || !is_old(it.seen_us));
        }
    }

    /// The containers that run.
    pub fn running(&self) -> Vec<Running> {
        let kept = self.lock();
        let all = kept.pods.iter().flat_map(|(pod_uid, pod)| {
            let running = pod.containers.iter().filter(|(_, it)| it.running);
            running.map(move |(name, it)| Running {
                pod_uid: pod_uid.clone(),
                name: name.clone(),
                id: it.id.clone(),
                attempt: it.attempt,
            })
        });
        all.collect()
    }

    /// Pods of which something runs.
    pub fn running_pods(&self) -> Vec<String> {
        let kept = self.lock();
        let running = |pod: &Pod| pod.containers.values().any(|it| it.running);
        let pods = kept.pods.iter().filter(|(_, pod)| running(pod));
        pods.map(|(uid, _)| uid.clone()).collect()
    }

    /// Puts in what a container has used until `at_us`.
    pub fn put_usage(&self, of: &Running, at_us: u64, usage: Usage) {
        let mut kept = self.lock();
        if let Some(measured) = measured(&mut kept, of) {
            let cpu_us = measured.cpu.read(usage.cpu_us);
            let memory = usage.memory;
            measured.samples.push(at_us, Sample { cpu_us, memory });
        }
    }

    /// Puts in how many bytes of the disk a container takes.
    pub fn put_storage(&self, of: &Running, bytes: u64) {
        let now = self.now_us();
        if let Some(measured) = measured(&mut self.lock(), of) {
            measured.storage = Some((bytes, now));
        }
    }

    /// For how long the bytes on disk of a container have been known.
    pub fn storage_age(&self, of: &Running) -> Option<Duration> {
        let now = self.now_us();
        let mut kept = self.lock();
        let (_, at) = measured(&mut kept, of)?.storage?;
        Some(Duration::from_micros(now.saturating_sub(at)))
    }

    /// Puts in what the interfaces of a pod have carried until now.
    pub fn put_traffic(&self, pod_uid: &str, traffic: Traffic) {
        let now = self.now_us();
        if let Some(pod) = self.lock().pods.get_mut(pod_uid) {
            let network = pod.network.get_or_insert_with(Network::new);
            let received = network.received.read(traffic.received);
            let sent = network.sent.read(traffic.sent);
            network.samples.push(now, (received, sent));
        }
    }

    /// Puts in what the whole machine has used until now.
    pub fn put_machine(&self, usage: Usage) {
        let now = self.now_us();
        let mut kept = self.lock();
        let machine = kept.machine.get_or_insert_with(Machine::new);
        let cpu_us = machine.cpu.read_steady(usage.cpu_us);
        let memory = usage.memory;
        machine.samples.push(now, Sample { cpu_us, memory });
    }

    /// Puts in how full the file system of the agent's folder is.
    pub fn put_disk(&self, disk: Disk) {
        self.lock().disk = Some(disk);
    }

    /// What a container takes that runs, with its processor averaged over the last `window`; `None` before the first sample, and when it does not run.
    pub fn container(&self, pod_uid: &str, name: &str, window: Duration) -> Option<Taken> {
        let now = self.now_us();
        let kept = self.lock();
        let measured = kept.pods.get(pod_uid)?.containers.get(name)?;
        if !measured.running {
            return None;
        }
        let storage = measured.storage.map_or(0, |(bytes, _)| bytes);
        taken(&measured.samples, now, window).map(|taken| Taken { storage, ..taken })
    }

    /// What a pod's interfaces carried over the last `window`; `None` without a network of its own, and before the second sample.
    pub fn network(&self, pod_uid: &str, window: Duration) -> Option<Rates> {
        let kept = self.lock();
        let network = kept.pods.get(pod_uid)?.network.as_ref()?;
        let (begin, end) = network.samples.span(window)?;
        let micros = end.0 - begin.0;
        Some(Rates {
            received: per_second(end.1.0 - begin.1.0, micros),
            sent: per_second(end.1.1 - begin.1.1, micros),
        })
    }

    /// What the whole machine takes, with its processors averaged over the last `window`.
    pub fn machine(&self, window: Duration) -> Option<Taken> {
        let now = self.now_us();
        let kept = self.lock();
        let samples = &kept.machine.as_ref()?.samples;
        let storage = kept.disk.map_or(0, |disk| disk.used);
        taken(samples, now, window).map(|taken| Taken { storage, ..taken })
    }

    /// How full the file system of the agent's folder is.
    pub fn disk(&self) -> Option<Disk> {
        self.lock().disk
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of this attempt; `None` when it is another one by now.
fn measured<'a>(kept: &'a mut Kept, of: &Running) -> Option<&'a mut Measured> {
    let pod = kept.pods.get_mut(&of.pod_uid)?;
    pod.containers
        .get_mut(&of.name)
        .filter(|measured| measured.id == of.id)
}

fn taken(samples: &Ring<Sample>, now_us: u64, window: Duration) -> Option<Taken> {
    let (at, newest) = samples.newest()?;
    let cpu = samples.span(window).map(|(begin, end)| {
        let micros = end.0 - begin.0;
        // Microseconds of processor time in a second are millionths of a core.
        let used = end.1.cpu_us - begin.1.cpu_us;
        Average {
            cpu_millis: (per_second(used, micros) + 500) / 1000,
            window: Duration::from_micros(micros),
        }
    });
    Some(Taken {
        age: Duration::from_micros(now_us.saturating_sub(at)),
        cpu,
        memory: newest.memory,
        storage: 0,
    })
}

impl Measured {
    fn new(container: &Container, now_us: u64) -> Self {
        Self {
            id: container.id.clone(),
            attempt: container.attempt,
            running: true,
            seen_us: now_us,
            cpu: Counter::default(),
            samples: Ring::new(EACH_SECOND),
            storage: None,
        }
    }
}

impl Network {
    fn new() -> Self {
        Self {
            received: Counter::default(),
            sent: Counter::default(),
            samples: Ring::new(EACH_FIVE),
        }
    }
}

impl Machine {
    fn new() -> Self {
        Self {
            cpu: Counter::default(),
            samples: Ring::new(EACH_SECOND),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn container(id: &str, runs: bool) -> Container {
        Container {
            id: id.into(),
            pod_uid: "p".into(),
            name: "web".into(),
            attempt: 0,
            image_id: String::new(),
            image: String::new(),
            state: match runs {
                true => ContainerState::Running {
                    pid: 7,
                    started_at_ms: 0,
                },
                false => ContainerState::Lost,
            },
        }
    }

    fn usage(cpu_us: u64) -> Usage {
        Usage {
            cpu_us,
            memory: 4096,
        }
    }

    #[test]
    fn an_average_goes_on_over_a_restart_and_ends_with_the_container() {
        let store = Store::default();
        store.observe("p", &[container("p-web-0", false)]);
        assert!(store.running().is_empty(), "nothing runs");
        store.observe("p", &[container("p-web-0", true)]);
        let first = store.running().remove(0);
        assert_eq!(store.container("p", "web", super::super::WINDOW), None);
        // It used a minute before this agent was started: that is nobody's matter now.
        store.put_usage(&first, SECOND, usage(60 * SECOND));
        let taken = store.container("p", "web", super::super::WINDOW).unwrap();
        assert_eq!((taken.cpu, taken.memory), (None, 4096));
        store.put_usage(&first, 3 * SECOND, usage(61 * SECOND));
        store.observe(
            "p",
            &[container("p-web-0", false), container("p-web-1", true)],
        );
        store.put_usage(&first, 4 * SECOND, usage(99 * SECOND));
        let second = store.running().remove(0);
        assert_eq!(second.id, "p-web-1");
        store.put_usage(&second, 5 * SECOND, usage(SECOND));
        let cpu = store
            .container("p", "web", super::super::WINDOW)
            .unwrap()
            .cpu;
        let expected = Average {
            cpu_millis: 500,
            window: Duration::from_secs(4),
        };
        assert_eq!(cpu, Some(expected), "two seconds in four");
        store.observe("p", &[container("p-web-1", false)]);
        assert_eq!(store.container("p", "web", super::super::WINDOW), None);
        store.forget("p");
        store.put_usage(&second, 9 * SECOND, usage(SECOND));
        store.put_traffic("p", Traffic::default());
        assert!(store.running_pods().is_empty());
    }

    #[test]
    fn a_machines_counter_that_is_set_back_is_no_burst() {
        let store = Store::default();
        // It has been up for a while.
        for cpu_us in [90_000, 90_001, 89_999, 90_000].map(|seconds| seconds * SECOND) {
            store.put_machine(usage(cpu_us));
            let before = store.now_us();
            while store.now_us() < before + 2000 {
                std::thread::yield_now();
            }
        }
        let kept = store.lock();
        let samples = &kept.machine.as_ref().unwrap().samples;
        let (_, newest) = samples.newest().unwrap();
        assert_eq!(newest.cpu_us, 2 * SECOND);
    }

    #[test]
    fn traffic_is_a_rate() {
        let store = Store::default();
        store.observe("p", &[container("p-web-0", true)]);
        store.put_traffic("p", Traffic::default());
        assert_eq!(store.network("p", LONGEST), None);
        while store.now_us() < 2000 {
            std::thread::yield_now();
        }
        let traffic = Traffic {
            received: 1 << 40,
            sent: 0,
        };
        store.put_traffic("p", traffic);
        let rates = store.network("p", LONGEST).unwrap();
        assert!(rates.received > 1 << 40, "in less than a second: {rates:?}");
        assert_eq!(rates.sent, 0);
    }
}
