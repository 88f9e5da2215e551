//! A manager's reaction to full disks, its own or those of too many others, before a write fails.
//!
//! Every manager measures its own disk. The leader asks the voters for theirs. A leader that is below its floor hands leadership to a
//! voter with space. When there is none, or fewer than a majority have space, it refuses writes until there
//! is space again. The floor leaves room for entries that are being replicated already. Reads go on.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use barge_proto::v1::{RaftSpaceRequest, RaftSpaceResponse};
use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Store;
use crate::storage::{space::Space, types::RaftId};

/// Between two measurements.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a voter may take to say how much space it has.
const ANSWER: Duration = Duration::from_millis(500);

/// The disk to be measured.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub path: PathBuf,
    /// In bytes; absent for the default.
    pub floor: Option<u64>,
}

impl Disk {
    /// Measures it; as it was before when that is not possible.
    pub fn measure(&self, before: Space) -> Space {
        match Space::measure(&self.path, self.floor, before) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "cannot ask for the free space");
                before
            }
        }
    }
}

/// What a leader should do.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Write,
    /// To one of these.
    HandOver(Vec<RaftId>),
    /// These are low.
    Refuse(Vec<RaftId>),
}

/// Decides by what is known of the voters. A write needs a majority of managers with space; one that does not answer may be
/// down, so that its disk is of no use, but that alone is nothing to refuse writes for.
fn decide(me: RaftId, voters: &BTreeMap<RaftId, Option<Space>>) -> Verdict {
    let those = |low: bool| -> Vec<RaftId> {
        voters
            .iter()
            .filter(|(_, space)| space.is_some_and(|space| space.low == low))
            .map(|(id, _)| *id)
            .collect()
    };
    let (low, enough) = (those(true), those(false));
    if low.is_empty() {
        Verdict::Write
    } else if enough.len() < voters.len() / 2 + 1 {
        Verdict::Refuse(low)
    } else if low.contains(&me) {
        Verdict::HandOver(enough)
    } else {
        Verdict::Write
    }
}

impl Store {
    /// How much space there is on this manager's disk, measured about once a second.
    #[must_use]
    pub fn space(&self) -> Space {
        *self.0.space.borrow()
    }
}

/// Measures until `stop`, and acts while this manager leads.
pub(super) async fn keep(
    store: Store,
    disk: Disk,
    space: watch::Sender<Space>,
    refusing: watch::Sender<Option<Arc<str>>>,
    stop: CancellationToken,
) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            ticks.tick().await;
            let before = *space.borrow();
            let measured = disk.clone();
            // A file system may take its time.
            let Ok(now) = tokio::task::spawn_blocking(move || measured.measure(before)).await
            else {
                continue;
            };
            if before.low != now.low {
                match now.low {
                    true => tracing::warn!(space = %now, "the disk runs full"),
                    false => tracing::info!(space = %now, "there is space on the disk again"),
                }
            }
            space.send_replace(now);
            let reason = match store.0.leadership.borrow().is_leader {
                true => None,
                // Only the leader decides.
                false => Some(None),
            };
            let reason = match reason {
                Some(reason) => reason,
                None => lead(&store, now).await,
            };
            refusing.send_if_modified(|before| {
                let changed = *before != reason;
                match (&before, &reason) {
                    (None, Some(why)) => tracing::warn!("refusing writes: {why}"),
                    (Some(_), None) => tracing::info!("writes are accepted again"),
                    _ => {}
                }
                *before = reason;
                changed
            });
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Why writes are to be refused, if they are.
async fn lead(store: &Store, mine: Space) -> Option<Arc<str>> {
    let members = store.status().members;
    let asked = members
        .iter()
        .filter(|member| member.voter)
        .map(|member| async move {
            let space = match member.id == store.0.id {
                true => Some(mine),
                false => ask(store, member.id, &member.address).await,
            };
            (member.id, space)
        });
    let voters: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
    let low = match decide(store.0.id, &voters) {
        Verdict::Write => return None,
        Verdict::Refuse(low) => low,
        Verdict::HandOver(targets) => {
            tracing::warn!(space = %mine, "handing leadership to a manager with more space");
            match store.hand_over_to(&targets).await {
                Ok(Some(_)) => return None,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "leadership was not handed over"),
            }
            vec![store.0.id]
        }
    };
    let named: Vec<_> = members
        .iter()
        .filter(|member| low.contains(&member.id))
        .filter_map(|member| {
            let space = voters.get(&member.id).copied().flatten()?;
            Some(format!("{} has {space}", member.address))
        })
        .collect();
    Some(named.join("; ").into())
}

async fn ask(store: &Store, id: RaftId, address: &str) -> Option<Space> {
    let mut client = store.0.channels.client(address).ok()?;
    let answer = timeout(ANSWER, client.space(RaftSpaceRequest { to: id })).await;
    Some(from_proto(answer.ok()?.ok()?.into_inner()))
}

fn from_proto(space: RaftSpaceResponse) -> Space {
    Space {
        free: space.free_bytes,
        floor: space.floor_bytes,
        low: space.low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(low: &[Option<bool>]) -> BTreeMap<RaftId, Option<Space>> {
        let space = |low: bool| Space {
            low,
            ..Space::default()
        };
        (1..).zip(low.iter().map(|low| low.map(space))).collect()
    }

    #[test]
    fn a_leader_that_is_low_looks_for_one_that_is_not() {
        let (low, fine, silent) = (Some(true), Some(false), None);
        let cases = [
            (vec![fine], Verdict::Write),
            (vec![low], Verdict::Refuse(vec![1])),
            (vec![fine, low, fine], Verdict::Write),
            (vec![low, fine, fine], Verdict::HandOver(vec![2, 3])),
            (vec![fine, low, low], Verdict::Refuse(vec![2, 3])),
            (vec![low, low, fine], Verdict::Refuse(vec![1, 2])),
            // What is written would be on the one that is low and on one other.
            (vec![fine, silent, low], Verdict::Refuse(vec![3])),
            (vec![low, silent, fine], Verdict::Refuse(vec![1])),
            (vec![fine, silent, silent], Verdict::Write),
            (
                vec![low, low, fine, fine, fine],
                Verdict::HandOver(vec![3, 4, 5]),
            ),
        ];
        for (known, verdict) in cases {
            assert_eq!(decide(1, &voters(&known)), verdict, "{known:?}");
        }
    }
}
