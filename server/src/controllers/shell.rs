//! Drives a controller: follows changes, keeps the set of dirty keys, proposes what the plans say.

use super::{
    Context, Controller,
    plan::{self, Plan, Severity},
    replica::{Changes, Gap, NoOutcome, Replica},
    stamp::Stamp,
    work::{Looked, WorkSet},
};
use crate::transaction::Draft;
use barge_proto::v1::{Refusal, RefusalReason, Transaction};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Dirty keys a controller keeps; when there are more it lists everything again.
const MAX_KEYS: usize = 100_000;
/// Failures in a row after which a lost race is worth telling about too.
const MANY_FAILURES: u32 = 5;
/// The wait before everything is listed again after a gap.
const RELIST_DELAY: Duration = Duration::from_millis(100);

/// Runs a controller until it is cancelled or the term is over.
pub async fn drive<R: Replica, C: Controller>(replica: R, controller: C, context: Context) {
    let controller = Arc::new(controller);
    let mut work = WorkSet::new(MAX_KEYS);
    let mut running = JoinSet::new();
    loop {
        let ended = follow(&replica, &controller, &context, &mut work, &mut running);
        let pause = tokio::select! {
            () = context.cancel.cancelled() => return,
            ended = ended => match ended {
                End::Deposed => return,
                End::Gap => Instant::now() + RELIST_DELAY,
                End::Overflow => Instant::now(),
            },
        };
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = sleep_until(pause) => {}
        }
    }
}

/// Why following changes ended.
enum End {
    Gap,
    Overflow,
    Deposed,
}

type Running<K> = JoinSet<(K, Result<Looked, Deposed>)>;

struct Deposed;

async fn follow<R: Replica, C: Controller>(
    replica: &R,
    controller: &Arc<C>,
    context: &Context,
    work: &mut WorkSet<C::Key>,
    running: &mut Running<C::Key>,
) -> End {
    let (revision, keys) = replica.read(|state| (state.revision(), controller.all(state)));
    let now = context.stamps.monotonic();
    for key in keys {
        work.add(key, now);
    }
    let mut changes = match replica.watch(revision, C::KINDS) {
        Ok(changes) => changes,
        Err(Gap) => return End::Gap,
    };
    loop {
        if work.overflowed() {
            return End::Overflow;
        }
        let now = context.stamps.monotonic();
        while running.len() < C::RUNNING
            && let Some((key, failures)) = work.take(now)
        {
            let (replica, controller) = (replica.clone(), controller.clone());
            let context = context.clone();
            running.spawn(async move {
                let looked = look(&replica, &*controller, &context, &key, failures).await;
                (key, looked)
            });
        }
        let room = running.len() < C::RUNNING;
        // Whatever comes before that wakes the loop by itself.
        let wait = work.next_due().map_or(Duration::MAX, |due| due - now);
        let wait = wait.min(Duration::from_secs(3600));
        tokio::select! {
            changed = changes.next() => match changed {
                Ok(changed) => replica.read(|state| {
                    for change in &*changed {
                        controller.dirtied(state, change, &mut |key| work.add(key, now));
                    }
                }),
                Err(Gap) => return End::Gap,
            },
            Some(done) = running.join_next() => match done {
                Ok((key, Ok(looked))) => work.looked(key, looked, context.stamps.monotonic()),
                Ok((_, Err(Deposed))) => return End::Deposed,
                // A plan that panicked is lost with its key: list again, which finds it. Without
                // that no other would ever look at the key.
                Err(error) => {
                    tracing::error!(controller = C::NAME, %error, "a plan failed");
                    *work = WorkSet::new(MAX_KEYS);
                    running.abort_all();
                    return End::Gap;
                }
            },
            () = sleep_until(Instant::now() + wait), if room => {}
        }
    }
}

/// One look at a key: plan, propose.
async fn look<R: Replica, C: Controller>(
    replica: &R,
    controller: &C,
    context: &Context,
    key: &C::Key,
    failures: u32,
) -> Result<Looked, Deposed> {
    let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
    let plan = replica.read(|state| controller.plan(state, key, &mut stamp));
    let again = plan.again;
    match submit(replica, context, C::NAME, plan, &mut stamp).await {
        Submitted::Applied => Ok(Looked::Done(again)),
        Submitted::Deposed => Err(Deposed),
        Submitted::Refused(refusal) => {
            tracing::debug!(
                controller = C::NAME,
                ?key,
                refusal = refusal.message,
                "refused"
            );
            if !is_race(&refusal) || failures >= MANY_FAILURES {
                tell(replica, controller, context, key, &refusal, &mut stamp).await;
            }
            Ok(Looked::Failed)
        }
        Submitted::Failed(error) => {
            tracing::warn!(controller = C::NAME, ?key, error, "propose a plan");
            Ok(Looked::Failed)
        }
    }
}

/// Records a failure on the object that it concerns. Best effort: the failure is retried anyway,
/// and told again.
async fn tell<R: Replica, C: Controller>(
    replica: &R,
    controller: &C,
    context: &Context,
    key: &C::Key,
    refusal: &Refusal,
    stamp: &mut Stamp,
) {
    tracing::warn!(
        controller = C::NAME,
        ?key,
        refusal = refusal.message,
        "a plan was refused"
    );
    let Some(about) = replica.read(|state| controller.concerned(state, key)) else {
        return;
    };
    let component = format!("{}-controller", C::NAME);
    let message = refusal.message.clone();
    let event = plan::event(
        stamp,
        &component,
        about,
        Severity::Warning,
        "FailedSync",
        message,
    );
    let mut plan = Plan::default();
    plan.draft.event(event);
    match submit(replica, context, C::NAME, plan, stamp).await {
        Submitted::Applied | Submitted::Deposed => {}
        Submitted::Refused(refusal) => {
            tracing::warn!(refusal = refusal.message, "record the event of a failure");
        }
        Submitted::Failed(error) => tracing::warn!(error, "record the event of a failure"),
    }
}

/// Somebody else was faster: the next look sees what they did.
fn is_race(refusal: &Refusal) -> bool {
    matches!(
        refusal.reason(),
        RefusalReason::Exists | RefusalReason::NotFound | RefusalReason::Conflict
    )
}

/// What became of a plan.
#[derive(Debug)]
pub enum Submitted {
    /// Applied, or there was nothing to do.
    Applied,
    /// Refused whole.
    Refused(Refusal),
    /// No answer.
    Failed(String),
    /// The term is over.
    Deposed,
}

/// Proposes a plan in the name of a controller, in the term that it was made in.
pub async fn submit<R: Replica>(
    replica: &R,
    context: &Context,
    name: &str,
    plan: Plan,
    stamp: &mut Stamp,
) -> Submitted {
    if plan.draft.is_empty() {
        return Submitted::Applied;
    }
    let transaction = transaction(context, name, plan.draft, stamp);
    match replica.propose(transaction).await {
        Err(NoOutcome(error)) => Submitted::Failed(error),
        Ok(outcome) => match outcome.refusal {
            None => Submitted::Applied,
            Some(refusal) if refusal.reason() == RefusalReason::WrongTerm => Submitted::Deposed,
            Some(refusal) => Submitted::Refused(refusal),
        },
    }
}

/// A transaction of a loop of this leader.
pub fn transaction(context: &Context, name: &str, draft: Draft, stamp: &mut Stamp) -> Transaction {
    let id = stamp.uid().into_bytes();
    draft.build_at(format!("controller/{name}"), id, stamp.now, context.term)
}
