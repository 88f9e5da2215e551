//! The scheduler's thread: follows changes, proposes batches of bindings, takes back refused
//! ones.

use super::{
    NAME,
    aside::Aside,
    batch,
    cluster::{Cluster, Placement, Snapshot},
};
use crate::{
    controllers::{
        Context,
        guard::{Panicked, catch},
        meters::Look,
        plan::MAX_BATCH,
        propose::{Proposed, propose},
        replica::{Changes, Gap, Replica},
        stamp::Stamp,
    },
    store::transaction::Draft,
};
use barge_proto::v1::{Bind, change::Change};
use barge_state::RecordKind;
use futures::FutureExt;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep, sleep_until},
};

/// Records that are read in one hold of the state's lock: about a millisecond.
const SLICE: usize = 4096;
/// Batches under way at a time.
const MAX_RUNNING: usize = 4;
/// How often pods that wait are looked at even when nothing has changed.
const RETRY: Duration = Duration::from_secs(5);
/// The wait before the cluster is read again after a gap.
const RELOAD_DELAY: Duration = Duration::from_millis(100);

/// Schedules until cancelled or deposed.
///
/// # Errors
/// [`Panicked`] when something other than placing the pods of a class failed.
pub async fn schedule<R: Replica>(replica: R, context: Context) -> Result<(), Panicked> {
    let mut aside = Aside::default();
    let _ended = context.meters.until_ended(NAME);
    let work = async {
        while follow(&replica, &context, &mut aside).await?.is_continue() {
            sleep(RELOAD_DELAY).await;
        }
        Ok(())
    };
    tokio::select! {
        () = context.cancel.cancelled() => Ok(()),
        ended = work => ended,
    }
}

/// What a batch came to.
enum Done {
    /// Pods whose binding was refused.
    Bound(Vec<String>),
    /// The cluster gave no answer for these pods.
    Unanswered(Vec<String>),
    /// Pods were told why they wait.
    Told,
    Deposed,
}

/// Runs until changes are missed or a class had to be set aside (continue, with the cluster read again), or the term is over (break).
async fn follow<R: Replica>(
    replica: &R,
    context: &Context,
    aside: &mut Aside,
) -> Result<std::ops::ControlFlow<()>, Panicked> {
    use std::ops::ControlFlow::{Break, Continue};
    let began = Instant::now();
    let Ok((mut cluster, mut changes)) = load(replica).await else {
        return Ok(Continue(()));
    };
    let reload = began.elapsed();
    // Dropped with this function: bindings that are under way then are seen by the next one as
    // changes.
    let mut running = JoinSet::new();
    let mut telling = false;
    loop {
        let now = context.stamps.monotonic();
        cluster.release(now);
        while running.len() < MAX_RUNNING {
            let look = context.meters.begin(NAME, None);
            match catch(|| batch::place(&mut cluster, aside, MAX_BATCH, now)) {
                Ok(batch) if batch.is_empty() => {
                    look.discard();
                    break;
                }
                Ok(batch) => running.spawn(bind(replica.clone(), context.clone(), batch, look)),
                Err(panicked) => {
                    tracing::error!(%panicked, "placing pods failed");
                    context.meters.panicked(NAME);
                    let class = cluster.being_placed().ok_or_else(|| panicked.clone())?;
                    aside.put(class, &panicked, reload, now);
                    return Ok(Continue(()));
                }
            };
        }
        context.meters.depth(NAME, cluster.queue.count());
        if !telling {
            let untold = cluster.queue.untold(MAX_BATCH);
            telling = !untold.is_empty();
            if telling {
                running.spawn(tell(replica.clone(), context.clone(), untold));
            }
        }
        let release = cluster.next_release();
        let wait = release.map_or(RETRY, |at| at.saturating_duration_since(now).min(RETRY));
        tokio::select! {
            changed = changes.next() => match changed {
                Ok(changed) => changed.iter().for_each(|change| cluster.apply(change)),
                Err(Gap) => return Ok(Continue(())),
            },
            Some(done) = running.join_next() => match done {
                Ok(Done::Bound(refused)) => {
                    let now = context.stamps.monotonic();
                    refused.iter().for_each(|pod| cluster.refused(pod, now));
                }
                Ok(Done::Unanswered(pods)) => {
                    let now = context.stamps.monotonic();
                    pods.iter().for_each(|pod| cluster.unanswered(pod, now));
                }
                Ok(Done::Told) => telling = false,
                Ok(Done::Deposed) => return Ok(Break(())),
                Err(error) => return Err(Panicked(error.to_string())),
            },
            () = sleep_until(Instant::now() + wait) => {}
        }
    }
}

/// Reads the cluster, in slices, so that `apply` waits for none of them long. The changes since the first slice follow.
async fn load<R: Replica>(replica: &R) -> Result<(Cluster, R::Changes), Gap> {
    let mut snapshot = Snapshot::default();
    let (mut last, revision) =
        replica.read(|state| (snapshot.slice(state, SLICE), state.revision()));
    let kinds = [RecordKind::Node, RecordKind::Revision, RecordKind::Pod];
    let mut changes = replica.watch(revision, &kinds)?;
    while !last {
        // What waits for the state has its turn.
        yield_now().await;
        last = replica.read(|state| snapshot.slice(state, SLICE));
    }
    let mut cluster = Cluster::new(&snapshot);
    drop(snapshot);
    // Those that are there already: what is placed by an older state would be refused.
    while let Some(changed) = changes.next().now_or_never() {
        changed?.iter().for_each(|change| cluster.apply(change));
    }
    Ok((cluster, changes))
}

/// Proposes bindings; those that hold are seen as changes.
async fn bind<R: Replica>(
    replica: R,
    context: Context,
    batch: Vec<Placement>,
    _look: Look,
) -> Done {
    let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
    let mut draft = Draft::new();
    for placement in &batch {
        draft.change(Change::Bind(Bind {
            pod_uid: placement.pod_uid.clone(),
            node_uid: placement.node_uid.clone(),
        }));
    }
    let pods = batch.into_iter().map(|placement| placement.pod_uid);
    match propose(&replica, &context, NAME, draft, &mut stamp).await {
        Proposed::Deposed => Done::Deposed,
        Proposed::Failed(error) => {
            tracing::warn!(error, "propose bindings");
            context.meters.failed(NAME);
            Done::Bound(pods.collect())
        }
        Proposed::Unanswered(error) => {
            tracing::warn!(error, "propose bindings");
            context.meters.retried(NAME);
            Done::Unanswered(pods.collect())
        }
        Proposed::Refused(refusal) => {
            tracing::warn!(refusal = refusal.message, "bindings were refused");
            context.meters.failed(NAME);
            Done::Bound(pods.collect())
        }
        Proposed::Applied(outcome) => {
            let answers = outcome.binds.iter().zip(pods);
            let refused = answers.filter(|(answer, _)| !answer.is_empty());
            let refused = refused.map(|(answer, pod)| {
                tracing::debug!(pod, answer, "a binding was refused");
                context.meters.retried(NAME);
                pod
            });
            Done::Bound(refused.collect())
        }
    }
}

/// Tells pods why they wait.
async fn tell<R: Replica>(replica: R, context: Context, untold: Vec<(String, Arc<str>)>) -> Done {
    let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
    let mut draft = Draft::new();
    let told = replica.read(|state| {
        catch(|| {
            for (pod, why) in &untold {
                batch::tell(state, pod, why, &mut stamp, &mut draft);
            }
        })
    });
    if let Err(panicked) = told {
        tracing::error!(%panicked, "telling pods why they wait failed");
        context.meters.panicked(NAME);
        return Done::Told;
    }
    match propose(&replica, &context, NAME, draft, &mut stamp).await {
        Proposed::Applied(_) => {}
        Proposed::Deposed => return Done::Deposed,
        Proposed::Failed(error) | Proposed::Unanswered(error) => {
            tracing::warn!(error, "tell pods why they wait");
        }
        Proposed::Refused(refusal) => {
            tracing::warn!(refusal = refusal.message, "tell pods why they wait");
        }
    }
    Done::Told
}
