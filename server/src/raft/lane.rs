//! Raft's traffic with other managers, on a lane of its own: neither votes nor heartbeats wait for requests, TLS of clients or the
//! state's lock.

use std::io;

use barge_client::tls::RAFT_ALPN;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, service::interceptor::InterceptedService};

use super::service::RaftService;
use crate::{
    net::{
        Credentials,
        lane::{self, LaneSender},
    },
    runtime::{Threads, thread::RuntimeThread},
};

/// Starts the thread on which Raft's connections live, in both directions.
///
/// # Errors
/// What the operating system says.
pub fn thread(threads: &Threads) -> io::Result<RuntimeThread> {
    RuntimeThread::start("barge-raft-net", threads)
}

/// Serves other managers' Raft on the thread, over the connections that the listener sends, until `stop`. A request that `admit` refuses
/// does not reach Raft.
pub fn serve(
    thread: &RuntimeThread,
    service: RaftService,
    admit: impl Fn(&Request<()>) -> Result<(), Status> + Clone + Send + Sync + 'static,
    credentials: Credentials,
    stop: CancellationToken,
) -> LaneSender {
    let (sender, arrivals) = lane::lane(RAFT_ALPN);
    thread.spawn(async move {
        let service = InterceptedService::new(service.into_server(), move |request| {
            admit(&request).map(|()| request)
        });
        let served = lane::server()
            .add_service(service)
            .serve_with_incoming_shutdown(
                arrivals.connections(credentials),
                stop.cancelled_owned(),
            );
        if let Err(error) = served.await {
            tracing::error!(%error, "Raft is not served any more");
        }
    });
    sender
}
