//! The leader's tasks: they start when this manager gains leadership and end when it loses it.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::loops;
use crate::{
    cluster::{level, reconcile, rotation::Rotator},
    controllers::{
        Context, NodeHeartbeats, meters::Meters, nodes::NodeTimes, stamp::SystemStamps,
        supervise::supervise,
    },
    life::Heard,
    recovery::backup::schedule::Backups,
    security::{rbac::keeper, tokens::keys},
    store::Store,
};

impl NodeHeartbeats for Heard {
    fn last_heard(&self, node_uid: &str) -> Option<std::time::Instant> {
        self.last_heard(node_uid).map(Instant::into_std)
    }

    fn confirmed(&self, node_uid: &str) -> Option<std::time::Instant> {
        self.confirmed(node_uid).map(Instant::into_std)
    }

    fn attentive_since(&self) -> std::time::Instant {
        let now = Instant::now();
        self.attentive_since(now).unwrap_or(now).into_std()
    }
}

/// After the start of a process, agents that had lost all managers get this long to find it: they may try the addresses of two
/// machines that are gone before. Otherwise a cluster that was away as a whole
/// would begin with replacing all that runs.
pub const RECONNECT: Duration = Duration::from_secs(15);

/// Follows leadership until `stop`. To be called when the process begins: the patience counts from then.
pub async fn run(
    store: Store,
    heard: Heard,
    backups: Backups,
    rotator: Rotator,
    stop: CancellationToken,
    times: NodeTimes,
    meters: Meters,
) {
    let began = Instant::now();
    let mut leadership = store.leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        if !now.is_leader {
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
            continue;
        }
        heard.begin(now.term, Instant::now());
        // A leader that is elected again begins again: its work carries the term.
        let lost = leadership.wait_for(|l| !l.is_leader || l.term != now.term);
        let term = stop.child_token();
        let context = Context {
            term: now.term,
            stamps: Arc::new(SystemStamps),
            cancel: term.clone(),
            meters: meters.clone(),
        };
        let times = NodeTimes {
            patience: times.patience.saturating_sub(began.elapsed()),
            ..times
        };
        let work = lead(
            store.clone(),
            heard.clone(),
            backups.clone(),
            rotator.clone(),
            context,
            times,
        );
        let loops = tokio::spawn(work);
        let ended = tokio::select! {
            lost = lost => lost.is_err(),
            () = stop.cancelled() => true,
        };
        // What they still propose is refused for its term: nothing waits for them.
        term.cancel();
        loops.abort();
        heard.end();
        rotator.missing.clear();
        if ended {
            return;
        }
    }
}

/// Runs all loops of one term. Each has a task of its own: one that panics begins anew after a pause, and the others go on.
async fn lead(
    store: Store,
    heard: Heard,
    backups: Backups,
    rotator: Rotator,
    context: Context,
    times: NodeTimes,
) {
    let term = context.term;
    let loops = loops::run(store.clone(), Arc::new(heard), context.clone(), times);
    tokio::join!(
        loops,
        supervise("membership", &store, &context, || {
            reconcile::run(store.clone(), term).map(Ok)
        }),
        supervise("feature-level", &store, &context, || {
            level::keep(store.clone(), term).map(Ok)
        }),
        supervise("rbac-defaults", &store, &context, || {
            keeper::keep(store.clone(), term).map(Ok)
        }),
        supervise("token-keys", &store, &context, || {
            let keyring = backups.keyring.clone();
            keys::keep(store.clone(), keyring, term).map(Ok)
        }),
        supervise("ca-rotation", &store, &context, || {
            rotator.clone().run(term).map(Ok)
        }),
        supervise("backups", &store, &context, || {
            backups.clone().run(term, context.cancel.clone()).map(Ok)
        }),
    );
}
