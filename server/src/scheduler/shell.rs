//! The scheduler's thread: follows changes, proposes batches of bindings, takes back what was
//! refused.

use super::{
    cluster::{Cluster, Placement, Snapshot},
    plan,
};
use crate::{
    controllers::{
        Context,
        plan::MAX_BATCH,
        replica::{Changes, Gap, NoOutcome, Replica},
        shell::transaction,
        stamp::Stamp,
    },
    transaction::Draft,
};
use barge_proto::v1::{Bind, RefusalReason, change::Change};
use barge_state::RecordKind;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const NAME: &str = "scheduler";
/// Batches under way at a time.
const MAX_RUNNING: usize = 4;
/// How often pods that wait are looked at even when nothing has changed.
const RETRY: Duration = Duration::from_secs(5);
/// The wait before the cluster is read again after a gap.
const RELOAD_DELAY: Duration = Duration::from_millis(100);

/// Schedules until cancelled or deposed.
pub async fn schedule<R: Replica>(replica: R, context: Context) {
    let work = async {
        while follow(&replica, &context).await.is_continue() {
            sleep(RELOAD_DELAY).await;
        }
    };
    tokio::select! {
        () = context.cancel.cancelled() => {}
        () = work => {}
    }
}

/// What a batch came to.
enum Done {
    /// Pods whose binding was refused, or is unknown.
    Bound(Vec<String>),
    /// Pods were told why they wait.
    Told,
    Deposed,
}

/// Runs until changes are missed (continue, with the cluster read again) or the term is over
/// (break).
async fn follow<R: Replica>(replica: &R, context: &Context) -> std::ops::ControlFlow<()> {
    use std::ops::ControlFlow::{Break, Continue};
    let snapshot = replica.read(Snapshot::of);
    let kinds = [RecordKind::Node, RecordKind::Revision, RecordKind::Pod];
    let Ok(mut changes) = replica.watch(snapshot.revision, &kinds) else {
        return Continue(());
    };
    let mut cluster = Cluster::new(&snapshot);
    drop(snapshot);
    // Dropped with this function: bindings that are under way then are seen by the next one as
    // changes.
    let mut running = JoinSet::new();
    let mut telling = false;
    loop {
        let now = context.stamps.monotonic();
        cluster.release(now);
        while running.len() < MAX_RUNNING {
            let batch = plan::place(&mut cluster, MAX_BATCH, now);
            if batch.is_empty() {
                break;
            }
            running.spawn(bind(replica.clone(), context.clone(), batch));
        }
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
                Err(Gap) => return Continue(()),
            },
            Some(done) = running.join_next() => match done {
                Ok(Done::Bound(refused)) => {
                    let now = context.stamps.monotonic();
                    refused.iter().for_each(|pod| cluster.refused(pod, now));
                }
                Ok(Done::Told) => telling = false,
                Ok(Done::Deposed) => return Break(()),
                Err(error) => {
                    tracing::error!(%error, "a batch failed");
                    return Continue(());
                }
            },
            () = sleep_until(Instant::now() + wait) => {}
        }
    }
}

/// Proposes bindings; those that hold are seen as changes.
async fn bind<R: Replica>(replica: R, context: Context, batch: Vec<Placement>) -> Done {
    let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
    let mut draft = Draft::new();
    for placement in &batch {
        draft.change(Change::Bind(Bind {
            pod_uid: placement.pod_uid.clone(),
            node_uid: placement.node_uid.clone(),
        }));
    }
    let transaction = transaction(&context, NAME, draft, &mut stamp);
    let pods = batch.into_iter().map(|placement| placement.pod_uid);
    match replica.propose(transaction).await {
        Err(NoOutcome(error)) => {
            tracing::warn!(error, "propose bindings");
            Done::Bound(pods.collect())
        }
        Ok(outcome) => match outcome.refusal {
            Some(refusal) if refusal.reason() == RefusalReason::WrongTerm => Done::Deposed,
            Some(refusal) => {
                tracing::warn!(refusal = refusal.message, "bindings were refused");
                Done::Bound(pods.collect())
            }
            None => {
                let answers = outcome.binds.iter().zip(pods);
                let refused = answers.filter(|(answer, _)| !answer.is_empty());
                let refused = refused.map(|(answer, pod)| {
                    tracing::debug!(pod, answer, "a binding was refused");
                    pod
                });
                Done::Bound(refused.collect())
            }
        },
    }
}

/// Tells pods why they wait.
async fn tell<R: Replica>(replica: R, context: Context, untold: Vec<(String, Arc<str>)>) -> Done {
    let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
    let mut draft = Draft::new();
    replica.read(|state| {
        for (pod, why) in &untold {
            plan::tell(state, pod, why, &mut stamp, &mut draft);
        }
    });
    if draft.is_empty() {
        return Done::Told;
    }
    let transaction = transaction(&context, NAME, draft, &mut stamp);
    match replica.propose(transaction).await {
        Err(NoOutcome(error)) => {
            tracing::warn!(error, "tell pods why they wait");
            Done::Told
        }
        Ok(outcome) => {
            if let Some(refusal) = outcome.refusal {
                tracing::warn!(refusal = refusal.message, "tell pods why they wait");
            }
            Done::Told
        }
    }
}
