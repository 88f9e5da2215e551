//! The scheduler: decides which node each pod runs on.
//!
//! It has the whole cluster in memory and a thread of its own. Pods of one revision are one class;
//! for each class it keeps which nodes can take a pod ([`filter`]) and how good they are
//! ([`score`]), and computes that anew only for nodes that changed. Bindings are proposed in
//! batches, several at a time: a node counts a pod as soon as it is decided on, and `apply` checks
//! each binding once more, by itself, against the state as it is then. A pod whose binding is
//! refused waits a little and is placed again; one that no node can take is told why and waits for
//! a change.

pub mod class;
pub mod cluster;
pub mod filter;
pub mod nodes;
pub mod plan;
pub mod queue;
pub mod score;
mod shell;
#[cfg(test)]
mod tests;

use crate::controllers::{Context, replica::Replica};
use tokio::sync::oneshot;

/// Runs the scheduler on its own thread until cancelled or deposed.
pub async fn run<R: Replica>(replica: R, context: Context) {
    let (done, ended) = oneshot::channel::<()>();
    let spawned = std::thread::Builder::new()
        .name("scheduler".to_owned())
        .spawn(move || {
            // Dropped when the thread ends, however it does.
            let _done = done;
            match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime.block_on(shell::schedule(replica, context)),
                Err(error) => tracing::error!(%error, "start the scheduler's runtime"),
            }
        });
    match spawned {
        // Never sent: it ends by being dropped.
        Ok(_) => {
            let _dropped = ended.await;
        }
        Err(error) => tracing::error!(%error, "start the scheduler's thread"),
    }
}
