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
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Streaming, transport::Channel};

mod exec;
mod forward;
mod input;
mod logs;
mod places;
mod running;

use self::{
    logs::Logs,
    places::{Place, Places},
};
use crate::{clock::Clock, desired::Desired, metrics, runtime::Runtime, session::Streams};

/// Streams refused at a time; further ones are not opened, and the manager waits for them in vain.
const REFUSALS: usize = 16;
/// The exit code of a stream that is refused for want of a place: as in sysexits, trying again later helps. Managers know the number.
const TRY_AGAIN: i32 = 75;
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
    runtime: Arc<dyn Runtime>,
    desired: watch::Receiver<Arc<Desired>>,
    logs: Logs,
    measured: Measured,
    places: Places,
    refusals: Arc<Semaphore>,
    /// Counts the streams.
    open: TaskTracker,
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
            logs: Logs::new(runtime.clone(), desired.clone()),
            runtime,
            desired,
            measured,
            places: Places::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            open: TaskTracker::new(),
            stop,
        }
    }

    /// Returns when all streams have ended after `stop`, and with them what was run for people in containers.
    pub async fn ended(self) {
        self.stop.cancelled().await;
        self.open.close();
        self.open.wait().await;
    }

    /// Serves a stream. Its place is given back when the connection and all that works for the stream have ended: a disk that hangs holds
    /// no more threads than there are places, and a program that does not end no more than one.
    async fn serve(self, channel: Channel, stream_id: String, what: Option<What>, place: Place) {
        let (chunks, outgoing) = mpsc::channel(AHEAD);
        let place = Arc::new(place);
        let dialed = self
            .stop
            .run_until_cancelled(dial(channel, stream_id, outgoing));
        let Some(Some(mut back)) = dialed.await else {
            return;
        };
        let last = self.produce(what, &chunks, &mut back, &place).await;
        let finish = async {
            if let Some(last) = last {
                // Fails only when the peer went: nobody is left to tell.
                let _ = chunks.send(last).await;
            }
            drop(chunks);
            // The stream still has to be drained by the peer.
            until_gone(&mut back).await;
        };
        self.stop.run_until_cancelled(finish).await;
        drop(place);
    }

    /// Sends what was asked for. Answers the last chunk, if there is one to be sent.
    async fn produce(
        &self,
        what: Option<What>,
        chunks: &mpsc::Sender<TunnelChunk>,
        back: &mut Streaming<TunnelChunk>,
        place: &Arc<Place>,
    ) -> Option<TunnelChunk> {
        let (runtime, held) = (&*self.runtime, place.clone());
        let desired = self.desired.borrow().clone();
        match what {
            Some(What::Logs(options)) => {
                let copied = self.logs.copy(&options, false, chunks, held);
                self.unless_gone(back, copied).await?.err().map(failed)
            }
            Some(What::PreviousLogs(options)) => {
                let copied = self.logs.copy(&options, true, chunks, held);
                self.unless_gone(back, copied).await?.err().map(failed)
            }
            Some(What::Attach(options)) => {
                let attached = self.logs.attach(&options, chunks, held);
                Some(match self.unless_gone(back, attached).await? {
                    Ok(code) => exited(code),
                    Err(error) => failed(error),
                })
            }
            Some(What::Exec(options)) => {
                match exec::run(runtime, desired, &options, chunks, back, &self.stop).await {
                    exec::End::Code(code) => Some(exited(code)),
                    exec::End::Failed(error, exit_code) => Some(TunnelChunk {
                        exit_code,
                        ..failed(error)
                    }),
                    exec::End::Gone => None,
                }
            }
            Some(What::Forward(options)) => {
                let forwarded = forward::run(runtime, desired, &options, chunks, back);
                let ended = self.stop.run_until_cancelled(forwarded).await?;
                ended.err().map(failed)
            }
            Some(What::Metrics(request)) => {
                let told = self.tell(&request, chunks);
                self.unless_gone(back, told).await?;
                None
            }
            None => Some(failed(
                "this node does not know what was asked for".to_owned(),
            )),
        }
    }

    /// What comes of some work, unless the client goes before, or this agent stops.
    async fn unless_gone<T>(
        &self,
        back: &mut Streaming<TunnelChunk>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            () = until_gone(back) => None,
            done = work => Some(done),
        }
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

    /// Says why there is no place, to a manager that hears it within [`DIAL`].
    async fn refuse(
        self,
        channel: Channel,
        stream_id: String,
        why: String,
        _permit: OwnedSemaphorePermit,
    ) {
        let (chunks, outgoing) = mpsc::channel(1);
        let refusal = TunnelChunk {
            exit_code: Some(TRY_AGAIN),
            ..failed(why)
        };
        let _ = chunks.send(refusal).await;
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
        let why = match self.places.take(what.as_ref()) {
            Ok(place) => {
                self.open.spawn(server.serve(channel, id, what, place));
                return;
            }
            Err(why) => why,
        };
        match self.refusals.clone().try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(server.refuse(channel, id, why, permit))),
            Err(_) => tracing::warn!(why, "a stream was not opened: {REFUSALS} are being refused"),
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

/// The last chunk of a program's stream.
fn exited(code: i32) -> TunnelChunk {
    TunnelChunk {
        exit_code: Some(code),
        ..Default::default()
    }
}

/// The last chunk of a stream that went wrong.
fn failed(error: String) -> TunnelChunk {
    TunnelChunk {
        error,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
