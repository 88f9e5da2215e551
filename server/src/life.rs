//! Life signs of agents, on a lane of their own.
//!
//! An agent signs every half second, over a connection that carries nothing else, to the manager that it reached. That manager hands
//! the sign to the leader ([`relay`]) over a connection that carries nothing else. The leader notes when it heard from the node
//! ([`heard`]) and answers; the answer goes the same way back. All of it runs on one thread on which nothing else runs, and takes no
//! lock of the state, no disk and no queue that anything else fills ([`crate::net::lane`], [`crate::security::auth::published`]).
//!
//! ```text
//! agent ── Signs ──► manager ── Relay ──► leader: heard(node)
//!       ◄─ answer ─         ◄─ answer ──
//! ```

use std::{io, time::Duration};

use barge_client::tls::LIFE_ALPN;
use barge_proto::v1::life_server::LifeServer;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;

use crate::{
    net::{
        Credentials, Dialer,
        lane::{self, LaneSender},
    },
    runtime::{Threads, thread::RuntimeThread},
    security::auth::Machines,
    store::Store,
};

pub mod heard;
pub mod leader;
pub mod pulse;
pub mod relay;
mod service;

pub use heard::Heard;
pub use pulse::Pulse;

use leader::Leader;
use relay::Relay;
use service::LifeService;

/// The largest message: the signs of a few thousand nodes.
const MAX_MESSAGE: usize = 1 << 20;

/// What the lane works with.
pub struct Parts {
    /// The leader, and the revision that this manager has applied.
    pub store: Store,
    /// What this manager shows and trusts.
    pub credentials: Credentials,
    /// The identities that may sign.
    pub machines: Machines,
    /// Takes the notes while this manager leads.
    pub heard: Heard,
    /// How long a node may be silent; agents are told.
    pub node_grace: Duration,
    /// Ends the lane.
    pub stop: CancellationToken,
}

/// Starts the lane's thread; it serves the connections that the listener sends to the lane until it is dropped.
///
/// # Errors
/// What the operating system says.
pub fn start(parts: Parts, threads: &Threads) -> io::Result<(LaneSender, RuntimeThread)> {
    let (sender, arrivals) = lane::lane(LIFE_ALPN);
    let thread = RuntimeThread::start("barge-life", threads)?;
    let Parts {
        store,
        credentials,
        machines,
        heard,
        node_grace,
        stop,
    } = parts;
    thread.spawn(async move {
        tokio::spawn(heard.pulse().clone().run());
        let leader = Leader {
            store: store.clone(),
            machines: machines.clone(),
            heard,
            node_grace,
        };
        let relay = Relay::start(store, Dialer::for_life_signs(&credentials), stop.clone());
        let admitted = machines.clone();
        let service = LifeService {
            machines,
            leader,
            relay,
            stop: stop.clone(),
        };
        let server = LifeServer::new(service).max_decoding_message_size(MAX_MESSAGE);
        // Before the first byte of a message is read.
        let server = InterceptedService::new(server, move |request| {
            admitted.belongs(&request).map(|()| request)
        });
        let served = lane::server()
            .add_service(server)
            .serve_with_incoming_shutdown(
                arrivals.connections(credentials),
                stop.cancelled_owned(),
            );
        if let Err(error) = served.await {
            tracing::error!(%error, "the life signs are not served any more");
        }
    });
    Ok((sender, thread))
}
