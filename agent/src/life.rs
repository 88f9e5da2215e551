//! Life signs: the node's proof to the leader that it lives, over connections and on a thread that do nothing else.
//!
//! The agent signs to a *first choice*, and keeps a *second choice* connected that can take over at any moment. Which managers these
//! are, and when to sign, is decided by [`choice`]; [`driver`] does what it says, over a [`line`] to each. The session is held with
//! the first choice, because a manager that answers has a way to the leader.

use std::{io, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::subscriber::NoSubscriber;

use crate::{managers::Managers, programmed::Programmed};

mod choice;
mod driver;
mod line;

/// For how long life signs may be held back at most, whatever they wait for.
pub const LONGEST_HOLD: Duration = Duration::from_secs(10);

/// What others in the agent see of its life signs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lane {
    chosen: watch::Receiver<Option<String>>,
    /// Why no manager answers, while none does.
    silence: watch::Receiver<Option<String>>,
    session: watch::Sender<SessionState>,
}

/// How the session is. Only the last word counts.
#[derive(Debug, Default)]
enum SessionState {
    /// There was none yet.
    #[default]
    None,
    /// The manager at this address welcomed this node.
    Began(String),
    /// The session with this one ended or did not come about.
    Ended(String),
}

impl Lane {
    /// The manager that the session should be with: the first choice. `None` before any manager is known.
    pub fn chosen(&self) -> watch::Receiver<Option<String>> {
        self.chosen.clone()
    }

    /// The session with this manager ended or did not come about. Another one becomes the first choice if there is any, one that
    /// answers life signs before others; told so again and again, all managers become it in turn.
    pub fn give_up(&self, address: &str) {
        self.session
            .send_replace(SessionState::Ended(address.to_owned()));
    }

    /// The session with this manager has begun: it stays the first choice for as long as it answers life signs.
    pub fn settled(&self, address: &str) {
        self.session
            .send_replace(SessionState::Began(address.to_owned()));
    }

    /// Logs when managers stop answering and when they do so again. The lane itself logs nothing, because a write to the log can
    /// block.
    pub async fn log(mut self) {
        while self.silence.changed().await.is_ok() {
            let silence = self.silence.borrow_and_update().clone();
            match silence {
                None => tracing::info!("life signs are answered"),
                Some(last) => tracing::warn!(
                    last,
                    "no manager answers this node's life signs; containers go on running"
                ),
            }
        }
    }
}

/// Signs on the runtime of `handle` until `stop` is cancelled, to managers that are looked up in `managers` again and again. The first
/// sign goes out when `begin` has ended, or after [`LONGEST_HOLD`]; a manager for the session is chosen at once. Each sign tells how far the node's rules are by then, and `programmed` is told how far all nodes' are.
pub fn start(
    handle: &Handle,
    managers: Arc<dyn Managers>,
    programmed: Programmed,
    stop: CancellationToken,
    begin: impl Future<Output = ()> + Send + 'static,
) -> Lane {
    let (driver, lane) = driver::Driver::new(managers, programmed);
    handle.spawn(async move {
        stop.run_until_cancelled(driver.run(timeout(LONGEST_HOLD, begin)))
            .await;
    });
    lane
}

/// A runtime on a thread of its own until `until` is cancelled. Whatever runs there must not block.
///
/// # Errors
/// The operating system gives no thread.
pub fn thread(until: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("life-signs".to_owned())
        .spawn(move || {
            // Libraries log, too, and the reader of the log may be slow: then the write blocks.
            tracing::subscriber::with_default(NoSubscriber::default(), || {
                runtime.block_on(until.cancelled());
            });
            // A lookup of a name that hangs is not waited for.
            runtime.shutdown_background();
        })?;
    Ok(handle)
}

#[cfg(test)]
mod tests;
