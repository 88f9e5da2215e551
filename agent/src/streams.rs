//! Streams that managers ask for on behalf of people: the agent dials back, each time over a connection of its own, and serves what was asked
//! for. A stream that nobody reads stands still by itself and holds up nothing else.

use std::{sync::Arc, time::Duration};

use barge_proto::v1::{
    AgentMetricsRequest, OpenStream, TunnelChunk, open_stream::What, session_client::SessionClient,
};
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};

mod logs;

use self::logs::Logs;
use crate::{clock::Clock, desired::Desired, metrics, runtime::Runtime, session::Streams};

/// Streams served at a time, each over a connection of its own.
const STREAMS: usize = 128;
/// Streams refused at a time; further ones are not opened, and the manager waits for them in vain.
const REFUSALS: usize = 16;
/// For the manager to take a stream that it asked for, and for a refusal to be read.
const DIAL: Duration = Duration::from_secs(10);
/// Chunks ahead of a slow reader.
const AHEAD: usize = 4;

/// What was measured, and the time of day for it.
#[derive(Clone)]
pub struct Measured {
    /// The measurements.
    pub store: metrics::Store,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Serves streams. Cheap to clone.
#[derive(Clone)]
pub struct StreamServer {
    logs: Logs,
    desired: watch::Receiver<Arc<Desired>>,
    measured: Measured,
    streams: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    stop: CancellationToken,
}

impl StreamServer {
    /// Serves until `stop` is cancelled.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        desired: watch::Receiver<Arc<Desired>>,
        measured: Measured,
        stop: CancellationToken,
    ) -> Self {
        Self {
            logs: Logs::new(runtime, desired.clone()),
            desired,
            measured,
            streams: Arc::new(Semaphore::new(STREAMS)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            stop,
        }
    }

    /// Serves a stream. Its permit is given back when the connection and all that works for the stream have ended: a disk that hangs holds
    /// no more threads than there are permits.
    async fn serve(
        self,
        channel: Channel,
        stream_id: String,
        what: Option<What>,
        permit: OwnedSemaphorePermit,
    ) {
        let (chunks, outgoing) = mpsc::channel(AHEAD);
        let permit = Arc::new(permit);
        let held = permit.clone();
        let served = async {
            let Some(mut back) = dial(channel, stream_id, outgoing).await else {
                return;
            };
            let produce = async {
                let result = match what {
                    Some(What::Logs(options)) => {
                        self.logs.copy(&options, false, &chunks, held).await
                    }
                    Some(What::PreviousLogs(options)) => {
                        self.logs.copy(&options, true, &chunks, held).await
                    }
                    Some(What::Metrics(request)) => {
                        self.tell(&request, &chunks).await;
                        Ok(())
                    }
                    _ => Err("this node does not know what was asked for".to_owned()),
                };
                if let Err(error) = result {
                    // Fails only when the peer went: nobody is left to tell.
                    let _ = chunks.send(last(error)).await;
                }
                drop(chunks);
            };
            // Producing may end first: the stream still has to be drained by the peer.
            let gone = until_gone(&mut back);
            tokio::pin!(gone);
            tokio::select! {
                () = &mut gone => {}
                () = produce => gone.await,
            }
        };
        self.stop.run_until_cancelled(served).await;
        drop(permit);
    }

    /// Answers a question about what was measured.
    async fn tell(&self, request: &AgentMetricsRequest, chunks: &mpsc::Sender<TunnelChunk>) {
        let Measured { store, clock } = &self.measured;
        let desired = self.desired.borrow().clone();
        for chunk in metrics::answer::chunks(store, &desired, request, clock.now_ms()) {
            if chunks.send(chunk).await.is_err() {
                return;
            }
        }
    }

    /// Says that there is no room, to a manager that hears it within [`DIAL`].
    async fn refuse(self, channel: Channel, stream_id: String, _permit: OwnedSemaphorePermit) {
        let (chunks, outgoing) = mpsc::channel(1);
        let error = format!("this node serves {STREAMS} streams already; end some of them");
        let _ = chunks.send(last(error)).await;
        drop(chunks);
        let refused = timeout(DIAL, async {
            if let Some(mut back) = dial(channel, stream_id, outgoing).await {
                until_gone(&mut back).await;
            }
        });
        self.stop.run_until_cancelled(refused).await;
    }
}

impl Streams for StreamServer {
    fn open(&self, channel: Channel, request: OpenStream) {
        let (server, id, what) = (self.clone(), request.stream_id, request.what);
        if let Ok(permit) = self.streams.clone().try_acquire_owned() {
            tokio::spawn(server.serve(channel, id, what, permit));
        } else if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
            tokio::spawn(server.refuse(channel, id, permit));
        } else {
            tracing::warn!(
                "a stream was not opened: {STREAMS} are open, and {REFUSALS} are being refused"
            );
        }
    }
}

/// Dials the manager back and names the stream; what is put into `outgoing` follows. Answers the manager's half once it has taken the
/// stream.
async fn dial(
    channel: Channel,
    stream_id: String,
    outgoing: mpsc::Receiver<TunnelChunk>,
) -> Option<Streaming<TunnelChunk>> {
    let first = TunnelChunk {
        stream_id,
        ..Default::default()
    };
    let first = futures::stream::once(std::future::ready(first));
    let mut client = SessionClient::new(channel);
    let call = client.tunnel(first.chain(ReceiverStream::new(outgoing)));
    match timeout(DIAL, call).await {
        Ok(Ok(response)) => return Some(response.into_inner()),
        Ok(Err(status)) => tracing::debug!(%status, "cannot dial back"),
        Err(_) => tracing::debug!("the manager does not take the stream that it asked for"),
    }
    None
}

/// Returns when the manager ends its half, which is the client's end: it has had all, or has gone.
async fn until_gone(back: &mut Streaming<TunnelChunk>) {
    while let Ok(Some(_)) = back.message().await {}
}

/// The last chunk of a stream that went wrong.
fn last(error: String) -> TunnelChunk {
    TunnelChunk {
        error,
        ..Default::default()
    }
}
