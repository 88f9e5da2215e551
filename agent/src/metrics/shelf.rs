//! The meters of all containers, and who reads them: a thread takes one after the other. One that hangs in a read keeps its meter; the others are read by the next thread.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::store::{Running, Store};
use crate::runtime::{Meter, Runtime};

/// Threads that may read at a time: so many reads may hang before nothing is read any more.
const THREADS: usize = 8;

/// The meters. Cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    runtime: Arc<dyn Runtime>,
    store: Store,
    threads: Arc<Semaphore>,
    meters: Arc<Mutex<Meters>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Meters {
    /// Read in this round; `None` is to be opened.
    home: BTreeMap<Running, Option<Box<dyn Meter>>>,
    /// To be read in this round.
    due: VecDeque<(Running, Option<Box<dyn Meter>>)>,
    /// Being read, since this round.
    out: BTreeMap<Running, u64>,
    /// All that should be read.
    wanted: BTreeSet<Running>,
    /// Counts the rounds.
    round: u64,
}

/// The right to read as one of [`THREADS`].
pub struct Turn(OwnedSemaphorePermit);

impl Shelf {
    /// No meters yet. Threads stop when `stop` is cancelled.
    pub fn new(runtime: Arc<dyn Runtime>, store: Store, stop: CancellationToken) -> Self {
        Self {
            runtime,
            store,
            threads: Arc::new(Semaphore::new(THREADS)),
            meters: Arc::default(),
            stop,
        }
    }

    /// Begins a round: every meter of these containers is to be read, but for those that have not come back. Answers the turn of a thread that
    /// should call [`Self::read`]: `None` when there is nothing to read, when one is at it and gets on, and when all threads hang.
    pub fn begin(&self, running: Vec<Running>) -> Option<Turn> {
        let mut meters = self.lock();
        let meters = &mut *meters;
        meters.wanted = running.into_iter().collect();
        meters.home.retain(|key, _| meters.wanted.contains(key));
        meters.due.retain(|(key, _)| meters.wanted.contains(key));
        let new: Vec<_> = {
            let late: BTreeSet<_> = meters.due.iter().map(|(key, _)| key).collect();
            let is_there = |key: &Running| {
                let (home, out) = (&meters.home, &meters.out);
                home.contains_key(key) || out.contains_key(key) || late.contains(key)
            };
            let new = meters.wanted.iter().filter(|key| !is_there(key));
            new.map(|key| (key.clone(), None)).collect()
        };
        meters.due.extend(std::mem::take(&mut meters.home));
        meters.due.extend(new);
        meters.round += 1;
        let gets_on = meters.out.values().any(|since| since + 1 == meters.round);
        if meters.due.is_empty() || gets_on {
            return None;
        }
        match self.threads.clone().try_acquire_owned() {
            Ok(permit) => Some(Turn(permit)),
            Err(_) => {
                tracing::warn!(
                    "what containers take is not measured: {THREADS} reads of control groups do not end"
                );
                None
            }
        }
    }

    /// Reads all that is due. Blocks.
    pub fn read(&self, turn: Turn) {
        let _permit = turn.0;
        while !self.stop.is_cancelled()
            && let Some((key, meter)) = self.take()
        {
            let meter = self.measure(&key, meter);
            self.give_back(key, meter);
        }
    }

    /// Reads one meter. `None` when that did not work: it is opened anew in the next round.
    fn measure(&self, key: &Running, meter: Option<Box<dyn Meter>>) -> Option<Box<dyn Meter>> {
        let opened = match meter {
            Some(meter) => Ok(meter),
            None => self.runtime.meter(&key.pod_uid, &key.id),
        };
        let read = opened.and_then(|mut meter| Ok((meter.read()?, meter)));
        match read {
            Ok((usage, meter)) => {
                self.store.put_usage(key, self.store.now_us(), usage);
                Some(meter)
            }
            Err(error) => {
                // It has just ended, as a rule.
                tracing::debug!(container = key.id, %error, "cannot read what a container takes");
                None
            }
        }
    }

    fn take(&self) -> Option<(Running, Option<Box<dyn Meter>>)> {
        let mut meters = self.lock();
        let (key, meter) = meters.due.pop_front()?;
        let round = meters.round;
        meters.out.insert(key.clone(), round);
        Some((key, meter))
    }

    fn give_back(&self, key: Running, meter: Option<Box<dyn Meter>>) {
        let mut meters = self.lock();
        meters.out.remove(&key);
        if meters.wanted.contains(&key) {
            meters.home.insert(key, meter);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Meters> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{thread, time::Duration};

    use super::*;
    use crate::{
        clock::SystemClock,
        metrics::WINDOW,
        runtime::{Container, ContainerState},
        testing::Scripted,
    };

    fn container(pod: usize) -> Container {
        Container {
            id: format!("p{pod}-web-0"),
            pod_uid: format!("p{pod}"),
            name: "web".into(),
            attempt: 0,
            image_id: String::new(),
            image: String::new(),
            state: ContainerState::Running {
                pid: 1,
                started_at_ms: 0,
            },
        }
    }

    #[test]
    fn a_read_that_hangs_holds_up_no_other() {
        let runtime = Scripted::new(Arc::new(SystemClock));
        let (store, stop) = (Store::default(), CancellationToken::new());
        let shelf = Shelf::new(runtime.clone(), store.clone(), stop);
        for pod in 0..4 {
            store.observe(&format!("p{pod}"), &[container(pod)]);
        }
        runtime.hang_meter("p1-web-0", true);
        let known = |pod: usize| {
            let taken = store.container(&format!("p{pod}"), "web", WINDOW);
            taken.is_some_and(|taken| taken.cpu.is_some())
        };
        let mut readers = Vec::new();
        let mut rounds = 0;
        while !(known(0) && known(2) && known(3)) {
            rounds += 1;
            assert!(rounds < 10_000, "the others are not read");
            let mine = shelf.clone();
            if let Some(turn) = shelf.begin(store.running()) {
                readers.push(thread::spawn(move || mine.read(turn)));
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!known(1));
        assert_eq!(shelf.lock().out.len(), 1);
        runtime.hang_meter("p1-web-0", false);
        readers.into_iter().for_each(|it| it.join().unwrap());
        // Gone by now: it is not kept.
        store.forget("p0");
        let turn = shelf.begin(store.running()).unwrap();
        shelf.read(turn);
        assert!(known(1));
        let meters = shelf.lock();
        assert_eq!((meters.home.len(), meters.out.len()), (3, 0));
    }
}
