//! Looks at what the runtime has, for all who ask at the same time.
//!
//! A pod's worker asks for its own pod, which costs the shims of no other one. When many ask at a time, one listing of everything answers all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Inventory, Runtime, RuntimeError};

/// Looks asked for and not begun.
const QUEUE: usize = 1024;
/// More pods than these are looked at by one listing of everything.
const SINGLY: usize = 4;
/// Between failed looks.
const RETRY: Duration = Duration::from_millis(500);

type Answer = Result<Arc<Inventory>, RuntimeError>;

struct Request {
    /// The pod's uid; `None` for everything.
    pod: Option<String>,
    reply: oneshot::Sender<Answer>,
}

/// Asks the runtime what there is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lister {
    requests: mpsc::Sender<Request>,
}

impl Lister {
    /// Starts a lister; it ends with its last handle.
    pub fn start(runtime: Arc<dyn Runtime>) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(runtime, queue));
        Self { requests }
    }

    /// A listing of everything that was begun after this call. Tries until the runtime answers; `None` once `stop` is cancelled.
    pub async fn fresh(&self, stop: &CancellationToken) -> Option<Arc<Inventory>> {
        stop.run_until_cancelled(self.until_answered(None)).await
    }

    /// As [`Self::fresh`], of one pod at least.
    pub async fn pod(&self, uid: &str, stop: &CancellationToken) -> Option<Arc<Inventory>> {
        let answered = self.until_answered(Some(uid));
        stop.run_until_cancelled(answered).await
    }

    /// Waits until nobody lists any more, which is never, but for a defect.
    pub async fn ended(&self) {
        self.requests.closed().await;
    }

    async fn until_answered(&self, pod: Option<&str>) -> Arc<Inventory> {
        loop {
            let (reply, answer) = oneshot::channel();
            let pod = pod.map(str::to_owned);
            if self.requests.send(Request { pod, reply }).await.is_ok()
                && let Ok(Ok(inventory)) = answer.await
            {
                return inventory;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn run(runtime: Arc<dyn Runtime>, mut queue: mpsc::Receiver<Request>) {
    let mut failing = false;
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        let answers = look(&*runtime, &waiting).await;
        match answers.values().find_map(|answer| answer.as_ref().err()) {
            Some(error) if !failing => {
                tracing::warn!(%error, "cannot list containers");
                failing = true;
            }
            None if failing => {
                tracing::info!("containers can be listed again");
                failing = false;
            }
            _ => {}
        }
        for request in waiting.drain(..) {
            let answer = answers.get(&request.pod).or_else(|| answers.get(&None));
            if let Some(answer) = answer {
                // Who asked may have gone.
                let _ = request.reply.send(answer.clone());
            }
        }
    }
}

/// By the pods that were looked at; everything under no pod.
async fn look(runtime: &dyn Runtime, waiting: &[Request]) -> BTreeMap<Option<String>, Answer> {
    let asked: BTreeSet<_> = waiting.iter().map(|it| it.pod.as_deref()).collect();
    if asked.contains(&None) || asked.len() > SINGLY {
        return BTreeMap::from([(None, runtime.list().await.map(Arc::new))]);
    }
    let looks = asked.into_iter().flatten().map(async |uid| {
        let found = runtime.find_pod(uid).await.map(Arc::new);
        (Some(uid.to_owned()), found)
    });
    join_all(looks).await.into_iter().collect()
}
