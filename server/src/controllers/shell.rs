//! Drives a controller: follows changes, keeps the set of dirty keys, proposes what the plans say.

use super::{
    Context, Controller,
    guard::{Panicked, catch},
    plan::{self, Severity},
    propose::{Deposed, Proposed, propose},
    replica::{Changes, Gap, Replica},
    stamp::Stamp,
    work::{Cause, Looked, WorkSet},
};
use crate::store::transaction::Draft;
use barge_proto::v1::{Refusal, RefusalReason};
use barge_state::{Changed, RecordKind};
use futures::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Dirty keys a controller keeps; when there are more it lists everything again.
const MAX_KEYS: usize = 100_000;
/// Failures in a row after which a lost race counts as any other failure.
const MANY_FAILURES: u32 = 5;
/// The wait before everything is listed again after a gap.
const RELIST_DELAY: Duration = Duration::from_millis(100);
/// A key rests so many times as long as its plan held the state's lock, during which nothing is applied.
const REST: u32 = 20;
/// The longest rest.
const MAX_REST: Duration = Duration::from_millis(500);
/// How often keys that wait are counted.
const COUNT: Duration = Duration::from_secs(1);

/// Runs a controller until it is cancelled or the term is over.
///
/// # Errors
/// [`Panicked`] when the controller cannot say what it has to look at. Begun anew it lists everything, so no change is missed.
pub async fn drive<R: Replica, C: Controller>(
    replica: R,
    controller: Arc<C>,
    context: Context,
) -> Result<(), Panicked> {
    let mut work = WorkSet::new(MAX_KEYS);
    let mut running = JoinSet::new();
    let _ended = context.meters.until_ended(C::NAME);
    let work = async {
        loop {
            match follow(&replica, &controller, &context, &mut work, &mut running).await {
                End::Deposed => return Ok(()),
                End::Panicked(panicked) => return Err(panicked),
                End::Gap => sleep(RELIST_DELAY).await,
                End::Overflow => {}
            }
        }
    };
    tokio::select! {
        () = context.cancel.cancelled() => Ok(()),
        ended = work => ended,
    }
}

/// Why following changes ended.
enum End {
    Gap,
    Overflow,
    Deposed,
    Panicked(Panicked),
}

/// What became of a look, and how long its plan looked at the state.
type Ended = (Result<Looked, Deposed>, Duration);
type Running<K> = JoinSet<(K, Ended)>;

async fn follow<R: Replica, C: Controller>(
    replica: &R,
    controller: &Arc<C>,
    context: &Context,
    work: &mut WorkSet<C::Key>,
    running: &mut Running<C::Key>,
) -> End {
    let listed = replica.read(|state| (state.revision(), catch(|| controller.all(state))));
    let (revision, keys) = match listed {
        (revision, Ok(keys)) => (revision, keys),
        (_, Err(panicked)) => return End::Panicked(panicked),
    };
    let now = context.stamps.monotonic();
    for key in keys {
        if work.add(key, Cause::Observed, now) {
            context.meters.added(C::NAME);
        }
    }
    let mut changes = match replica.watch(revision, C::KINDS) {
        Ok(changes) => changes,
        Err(Gap) => return End::Gap,
    };
    let mut counted = None;
    loop {
        if work.overflowed() {
            return End::Overflow;
        }
        let now = context.stamps.monotonic();
        while running.len() < C::RUNNING
            && let Some((key, failures, due)) = work.take(now)
        {
            let (replica, controller) = (replica.clone(), controller.clone());
            let context = context.clone();
            let under_way = context.meters.begin(C::NAME, Some(now - due));
            running.spawn(async move {
                let look = look(&replica, &*controller, &context, &key, failures);
                let ended = AssertUnwindSafe(look).catch_unwind().await;
                drop(under_way);
                (key, ended.unwrap_or((Ok(Looked::Failed), Duration::ZERO)))
            });
        }
        if !work.is_due(now) {
            context.meters.depth(C::NAME, 0);
        } else if counted.is_none_or(|at| now - at >= COUNT) {
            context.meters.depth(C::NAME, work.waiting(now));
            counted = Some(now);
        }
        let room = running.len() < C::RUNNING;
        // Whatever comes before that wakes the loop by itself.
        let wait = work.next_due().map_or(Duration::MAX, |due| due - now);
        let wait = wait.min(Duration::from_secs(3600));
        tokio::select! {
            changed = changes.next() => match changed {
                Ok(changed) => {
                    // This loop may have waited for long.
                    let now = context.stamps.monotonic();
                    let mut added = |key, cause| {
                        if work.add(key, cause, now) {
                            context.meters.added(C::NAME);
                        }
                    };
                    let followed = replica.read(|state| catch(|| {
                        for change in &*changed {
                            let cause = cause(change);
                            controller.dirtied(state, change, &mut |key| added(key, cause));
                        }
                    }));
                    if let Err(panicked) = followed {
                        return End::Panicked(panicked);
                    }
                }
                Err(Gap) => return End::Gap,
            },
            Some(done) = running.join_next() => match done {
                Ok((key, (Ok(looked), planned))) => {
                    let rest = (planned * REST).min(MAX_REST);
                    work.looked(key, looked, rest, context.stamps.monotonic());
                }
                Ok((_, (Err(Deposed), _))) => return End::Deposed,
                Err(error) => return End::Panicked(Panicked(error.to_string())),
            },
            () = sleep_until(Instant::now() + wait), if room => {}
        }
    }
}

/// Whether a change is an edit: something that is asked for came, went or became another. Pods and events come and go by themselves.
fn cause(change: &Changed) -> Cause {
    if let Some(RecordKind::Pod | RecordKind::Event) = change.kind() {
        return Cause::Observed;
    }
    let generation = |record: &barge_state::Stored| record.meta().generation;
    let (before, after) = (&change.before, &change.after);
    match before.as_ref().map(generation) == after.as_ref().map(generation) {
        true => Cause::Observed,
        false => Cause::Edited,
    }
}

/// One look at a key: plan, propose.
async fn look<R: Replica, C: Controller>(
    replica: &R,
    controller: &C,
    context: &Context,
    key: &C::Key,
    failures: u32,
) -> Ended {
    let mut stamp = Stamp::new(context.stamps.now(), context.stamps.seed());
    let (planned, took) = replica.read(|state| {
        let began = Instant::now();
        let plan = catch(|| controller.plan(state, key, &mut stamp));
        (plan, began.elapsed())
    });
    let plan = match planned {
        Ok(plan) => plan,
        Err(panicked) => {
            tracing::error!(controller = C::NAME, ?key, %panicked, "a plan failed");
            context.meters.panicked(C::NAME);
            context.meters.failed(C::NAME);
            let message = format!(
                "The {} controller failed on this object, which is a fault of Barge; it tries again later. {panicked}",
                C::NAME
            );
            tell(replica, controller, context, key, message, &mut stamp).await;
            return (Ok(Looked::Failed), took);
        }
    };
    let again = plan.again;
    if plan.draft.is_empty() {
        return (Ok(Looked::Idle(again)), took);
    }
    let looked = match propose(replica, context, C::NAME, plan.draft, &mut stamp).await {
        Proposed::Applied(_) => Ok(Looked::Done(again)),
        Proposed::Deposed => Err(Deposed),
        Proposed::Refused(refusal) if is_race(&refusal) && failures < MANY_FAILURES => {
            let why = refusal.message;
            tracing::debug!(controller = C::NAME, ?key, why, "a plan came too late");
            context.meters.retried(C::NAME);
            Ok(Looked::Raced)
        }
        Proposed::Refused(refusal) => {
            let why = refusal.message;
            tracing::warn!(controller = C::NAME, ?key, why, "a plan was refused");
            context.meters.failed(C::NAME);
            tell(replica, controller, context, key, why, &mut stamp).await;
            Ok(Looked::Failed)
        }
        Proposed::Failed(error) => {
            tracing::warn!(controller = C::NAME, ?key, error, "propose a plan");
            context.meters.failed(C::NAME);
            Ok(Looked::Failed)
        }
        Proposed::Unanswered(error) => {
            tracing::warn!(controller = C::NAME, ?key, error, "propose a plan");
            context.meters.retried(C::NAME);
            Ok(Looked::Unanswered)
        }
    };
    (looked, took)
}

/// Records a failure on the object that it concerns. Best effort: the failure is retried anyway, and told again.
async fn tell<R: Replica, C: Controller>(
    replica: &R,
    controller: &C,
    context: &Context,
    key: &C::Key,
    message: String,
    stamp: &mut Stamp,
) {
    let Ok(Some(about)) = replica.read(|state| catch(|| controller.concerned(state, key))) else {
        return;
    };
    let component = format!("{}-controller", C::NAME);
    let event = plan::event(
        stamp,
        &component,
        about,
        Severity::Warning,
        "FailedSync",
        message,
    );
    let mut draft = Draft::new();
    draft.event(event);
    match propose(replica, context, C::NAME, draft, stamp).await {
        Proposed::Applied(_) | Proposed::Deposed => {}
        Proposed::Refused(refusal) => {
            tracing::warn!(refusal = refusal.message, "record the event of a failure");
        }
        Proposed::Failed(error) | Proposed::Unanswered(error) => {
            tracing::warn!(error, "record the event of a failure");
        }
    }
}

/// Another proposal was applied first: the next plan sees it.
fn is_race(refusal: &Refusal) -> bool {
    matches!(
        refusal.reason(),
        RefusalReason::Exists | RefusalReason::NotFound | RefusalReason::Conflict
    )
}
