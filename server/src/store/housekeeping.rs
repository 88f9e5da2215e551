//! Gives memory back when the manager is quiet: old history, write buffers, and memory that its allocators keep.

use std::{
    io,
    time::{Duration, Instant},
};

use barge_proto::v1::Node;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Store;
use crate::{runtime::allocators, storage::rocks::Usage};

/// How often this manager looks.
const PERIOD: Duration = Duration::from_secs(5);
/// It is quiet when for so long...
const QUIET: Duration = Duration::from_secs(60);
/// ...fewer entries of the log than this were applied in each period.
const FEW: u64 = 25;
/// Memory is given back at most so often: each time may add a file to both databases.
const AGAIN: Duration = Duration::from_secs(300);
/// Write buffers with fewer bytes are not worth a file.
const WORTH: u64 = 1 << 20;
/// So many bytes of history that were dropped are worth a look at the allocators.
const DROPPED: usize = 1 << 20;
/// Entries of the log that stay in memory, in bytes.
const TAIL: usize = 1 << 20;

/// Decides when it is time.
#[derive(Debug, Default)]
struct Quiet {
    applied: u64,
    since: Option<Instant>,
    given_back: Option<Instant>,
}

impl Quiet {
    /// Whether memory is to be given back now, when entries up to `applied` have been applied.
    fn look(&mut self, now: Instant, applied: u64) -> bool {
        let busy = applied.saturating_sub(self.applied) >= FEW;
        self.applied = applied;
        if busy {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let last = self.given_back.map_or(Duration::MAX, |last| now - last);
        let due = now - since >= QUIET && last >= AGAIN;
        if due {
            self.given_back = Some(now);
        }
        due
    }

    /// Whether it is quiet, since [`QUIET`] or longer.
    fn is(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now - since >= QUIET)
    }
}

/// Looks after memory until `stop`.
pub(super) async fn run(store: Store, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        let (mut quiet, mut dropped) = (Quiet::default(), 0);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            dropped += store.0.hub.forget_old(now);
            store.0.hub.fit(store.read(|state| state.count::<Node>()));
            let applied = store.0.state.progress().borrow().applied;
            let due = quiet.look(now, applied.unwrap_or_default());
            if due {
                tracing::debug!(memory = ?store.memory(), "giving memory back");
                if let Err(error) = store.give_back().await {
                    tracing::warn!(%error, "write buffers were not given back");
                }
            }
            if due || (dropped >= DROPPED && quiet.is(now)) {
                dropped = 0;
                let given_back = tokio::task::spawn_blocking(allocators::give_back).await;
                if let Err(error) = given_back {
                    tracing::warn!(%error, "freed memory was not given back");
                }
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// What a manager's memory is taken by, as far as it is counted, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// The history of changes.
    pub history: usize,
    /// How many changes that is.
    pub changes: usize,
    /// Remembered answers to requests.
    pub requests: usize,
    /// How many answers that is.
    pub answers: usize,
    /// The number of events.
    pub events: usize,
    /// Entries of the log.
    pub tail: usize,
    /// Both databases.
    pub databases: Usage,
}

impl Store {
    /// What this manager's memory is taken by.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let (changes, history) = self.0.hub.size();
        let ((answers, requests), events) = self.read(|state| {
            let events = state.count::<barge_proto::v1::Event>();
            (state.requests_size(), events)
        });
        Memory {
            history,
            changes,
            requests,
            answers,
            events,
            tail: self.0.log.tail_bytes(),
            databases: self.0.log.usage() + self.0.state.usage(),
        }
    }

    /// Forgets entries of the log that are on disk, and writes what the databases hold in memory to their files; not while the disk is low.
    ///
    /// # Errors
    /// What a database says.
    pub async fn give_back(&self) -> io::Result<()> {
        self.0.log.forget_tail(TAIL);
        // RocksDB takes no more writes after a flush for which there was no room.
        if self.0.space.borrow().low {
            return Ok(());
        }
        if self.0.log.usage().write_buffers >= WORTH {
            self.0.log.flush().await?;
        }
        if self.0.state.usage().write_buffers >= WORTH {
            self.0.state.flush().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every five seconds for so many seconds, and says after how many of them memory was given back.
    fn looks(
        quiet: &mut Quiet,
        begin: Instant,
        seconds: u64,
        mut applied: impl FnMut(u64) -> u64,
    ) -> Vec<u64> {
        let times = (0..seconds).step_by(5);
        let due = times.filter(|at| quiet.look(begin + Duration::from_secs(*at), applied(*at)));
        due.collect()
    }

    #[test]
    fn memory_is_given_back_every_five_quiet_minutes() {
        let (mut quiet, begin) = (Quiet::default(), Instant::now());
        assert_eq!(
            looks(&mut quiet, begin, 1500, |at| 1000 + at),
            [65, 365, 665, 965, 1265]
        );
    }

    #[test]
    fn it_is_not_given_back_while_much_is_written() {
        let (mut quiet, begin) = (Quiet::default(), Instant::now());
        assert_eq!(looks(&mut quiet, begin, 3600, |at| 5 * at), [0; 0]);
        // One burst a minute is no rest.
        assert_eq!(looks(&mut quiet, begin, 3600, |at| 100 * (at / 60)), [0; 0]);
        let after = begin + Duration::from_secs(3600);
        assert_eq!(looks(&mut quiet, after, 300, |_| 6000), [65]);
    }
}
