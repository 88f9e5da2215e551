//! The loops that plan over the state while this manager leads: the controllers and the scheduler.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::FutureExt;

use crate::{
    controllers::{
        Context, NodeHeartbeats, deletions, deployment, disruption, endpoints, garbage, keep,
        names,
        nodes::{self, NodeTimes},
        propose::catch_up,
        replica::Replica,
        replica_set,
        supervise::supervise,
    },
    scheduler,
};

/// Runs all loops of the leader, the scheduler too, until they are cancelled or the term is over. None of them plans before this manager has
/// applied all that earlier leaders left in the log.
/// The future may be dropped at any time: what it had proposed either is applied or is not.
pub async fn run<R: Replica>(
    replica: R,
    heartbeats: Arc<dyn NodeHeartbeats>,
    context: Context,
    times: NodeTimes,
) {
    // Ends the scheduler's thread when this future is dropped.
    let cancel = context.cancel.child_token();
    let _ended = cancel.clone().drop_guard();
    let context = Context { cancel, ..context };
    let nodes = nodes::Lifecycle::new(heartbeats, context.stamps.clone(), times);
    let begun = catch_up(&replica, &context);
    if !matches!(
        context.cancel.run_until_cancelled(begun).await,
        Some(Ok(()))
    ) {
        return;
    }
    tokio::join!(
        keep(&replica, deployment::Deployments, &context),
        keep(&replica, replica_set::ReplicaSets, &context),
        keep(&replica, disruption::DisruptionBudgets, &context),
        keep(&replica, endpoints::EndpointsOfServices, &context),
        keep(&replica, names::NamesOfCluster, &context),
        keep(&replica, nodes, &context),
        keep(&replica, deletions::Deletions::default(), &context),
        supervise(garbage::NAME, &replica, &context, || {
            garbage::run(replica.clone(), context.clone()).map(Ok)
        }),
        supervise(scheduler::NAME, &replica, &context, || {
            scheduler::run(replica.clone(), context.clone())
        }),
    );
}
