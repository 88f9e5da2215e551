//! One listing of the runtime for all who ask at the same time.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Inventory, Runtime, RuntimeError};

/// Listings asked for and not begun.
const QUEUE: usize = 1024;
/// Between failed listings.
const RETRY: Duration = Duration::from_millis(500);

type Answer = Result<Arc<Inventory>, RuntimeError>;

/// Asks the runtime what there is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lister {
    requests: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl Lister {
    /// Starts a lister; it ends with its last handle.
    pub fn start(runtime: Arc<dyn Runtime>) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(runtime, queue));
        Self { requests }
    }

    /// A listing that was begun after this call. Tries until the runtime answers; `None` once `stop` is cancelled.
    pub async fn fresh(&self, stop: &CancellationToken) -> Option<Arc<Inventory>> {
        stop.run_until_cancelled(self.until_answered()).await
    }

    /// Waits until nobody lists any more, which is never, but for a defect.
    pub async fn ended(&self) {
        self.requests.closed().await;
    }

    async fn until_answered(&self) -> Arc<Inventory> {
        loop {
            let (reply, answer) = oneshot::channel();
            if self.requests.send(reply).await.is_ok()
                && let Ok(Ok(inventory)) = answer.await
            {
                return inventory;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn run(runtime: Arc<dyn Runtime>, mut queue: mpsc::Receiver<oneshot::Sender<Answer>>) {
    let mut failing = false;
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let answer = runtime.list().await.map(Arc::new);
        match &answer {
            Err(error) if !failing => {
                tracing::warn!(%error, "cannot list containers");
                failing = true;
            }
            Ok(_) if failing => {
                tracing::info!("containers can be listed again");
                failing = false;
            }
            _ => {}
        }
        for reply in waiting.drain(..) {
            // Who asked may have gone.
            let _ = reply.send(answer.clone());
        }
    }
}
