//! The scheduler: decides which node each pod runs on.
//!
//! It has the whole cluster in memory and a thread of its own. Pods of one revision are one class;
//! for each class it keeps which nodes can take a pod ([`filter`]) and how good they are
//! ([`score`]), and computes that anew only for nodes that changed. Bindings are proposed in
//! batches, several at a time: a node counts a pod as soon as it is decided on, and `apply` checks
//! each binding once more, by itself, against the state as it is then. A pod whose binding is
//! refused waits a little and is placed again; a pod that no node can take gets an event with the reasons and waits for
//! a change.

pub mod aside;
pub mod batch;
pub mod class;
pub mod cluster;
pub mod filter;
pub mod nodes;
pub mod queue;
pub mod score;
mod shell;
#[cfg(test)]
mod tests;

use crate::controllers::{
    Context,
    guard::{Panicked, catch},
    replica::Replica,
};
use tokio::sync::oneshot;

/// For principals and metrics.
pub const NAME: &str = "scheduler";

/// Runs the scheduler on its own thread until cancelled or deposed.
///
/// # Errors
/// [`Panicked`] when the thread did, or could not be started.
pub async fn run<R: Replica>(replica: R, context: Context) -> Result<(), Panicked> {
    let (done, ended) = oneshot::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| Panicked(error.to_string()))?;
        catch(|| runtime.block_on(shell::schedule(replica, context)))?
    };
    // A caller that gave up needs no answer.
    let thread = move || drop(done.send(work()));
    let spawned = std::thread::Builder::new()
        .name(NAME.to_owned())
        .spawn(thread);
    spawned.map_err(|error| Panicked(format!("start the scheduler's thread: {error}")))?;
    let lost = |_| Panicked("the scheduler's thread ended".to_owned());
    ended.await.map_err(lost)?
}
