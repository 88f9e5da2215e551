//! Serving: the services behind the authorisation layer, and the tasks beside them.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use barge_client::{
    channel::{CONNECTION_WINDOW, STREAM_WINDOW},
    identity::KeptIdentity,
    renew,
};
use barge_proto::{
    DESCRIPTOR_SET,
    v1::{
        Role, access_server::AccessServer, api_server::ApiServer, cluster_server::ClusterServer,
        credentials_server::CredentialsServer, logs_server::LogsServer,
        metrics_server::MetricsServer, pod_streams_server::PodStreamsServer,
        service_accounts_server::ServiceAccountsServer, session_server::SessionServer,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Router};
use tower::layer::util::{Identity as NoLayer, Stack};

use super::{
    announce::Announce,
    health, leading, members,
    metrics::{self, Metrics, Sources},
};
use crate::{
    api::{
        ApiService,
        access::AccessService,
        accounts::{self, AccountsService},
        credentials::{self, CredentialsService},
        pipeline::Layers,
        vault::Vault,
    },
    calls::{
        in_flight::InFlight,
        leader::ToLeader,
        shares::{self, Shares, SharesLayer},
    },
    cluster::{self, ClusterService, lock, rotation},
    controllers::{meters::Meters, nodes::NodeTimes},
    life::{self, Heard},
    net::{Credentials, Dialer, Limits, Rules, listener, reserved::ReservedPorts},
    observe::{
        logging::Logging,
        requests::Requests,
        spans::{Calls, Spans},
    },
    raft,
    recovery::backup::schedule::Backups,
    runtime::{Threads, thread::RuntimeThread},
    security::{
        audit::AuditLog,
        auth::{AuthLayer, Machines, Principal, StateDirectory},
        issue::Issuer,
    },
    sessions::{
        Asker, LogsService, MetricsService, PodStreamsService, Reach, Relay, SessionService,
        Sessions, Tunnels, connect::Host, relay::Leading,
    },
    store::Store,
};

/// The largest request of a client.
pub const MAX_REQUEST: usize = barge_proto::limits::REQUEST_BYTES;
/// The largest message between managers, and of an agent: a batch of reports.
const MAX_RELAY: usize = 8 << 20;
/// The largest message of the services that carry none.
const MAX_SMALL: usize = 64 << 10;
/// The largest message on streams into pods: a piece of 64 KiB, or a program and its arguments.
const MAX_PIECE: usize = 256 << 10;
/// Streams on one connection; another manager has all its forwarded requests on one.
const MAX_STREAMS: u32 = 4096;
/// The largest head of a request: a path, and the metadata of gRPC and ours.
const MAX_HEADERS: u32 = 16 << 10;
/// A connection that does not answer a ping for as long is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What serving needs.
pub struct Serving {
    /// The state.
    pub store: Store,
    /// The way to other managers.
    pub dialer: Dialer,
    /// What this manager shows and trusts.
    pub credentials: Credentials,
    /// The identity of this manager.
    pub identity: KeptIdentity,
    /// Signs certificates.
    pub issuer: Issuer,
    /// The audit log.
    pub audit: AuditLog,
    /// Where it is reached.
    pub advertise: String,
    /// Counts the requests that are being answered.
    pub in_flight: InFlight,
    /// Where its data is; backups are made there before they are put where they are kept.
    pub data_dir: PathBuf,
    /// What becomes of calls.
    pub spans: Spans,
    /// What this manager writes.
    pub logging: Logging,
    /// How long an agent may be silent before its node is not ready, and may be lost.
    pub node_grace: Duration,
    /// Counts the threads that hold the state.
    pub threads: Threads,
    /// Where Raft's connections live.
    pub raft_thread: Arc<RuntimeThread>,
    /// The shortest time between two nodes that are lost.
    pub node_loss_interval: Duration,
    /// Ports of the nodes that no Service may take.
    pub reserved_ports: ReservedPorts,
    /// Ends streams, then serving.
    pub stop: CancellationToken,
}

/// Why serving did not work.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket.
    #[error("listen: {0}")]
    Listen(#[from] io::Error),
    /// The schema for reflection.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server.
    #[error("serve: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until `stop`, and then until all connections have ended: clients are asked to leave (GOAWAY) and leave with the
/// answer to their last request, other managers when Raft has ended here.
///
/// # Errors
/// When it cannot serve at all; what goes wrong on a connection ends that connection.
pub async fn serve(
    serving: Serving,
    rules: Rules,
    listener: TcpListener,
    metrics: Option<TcpListener>,
) -> Result<(), ServeError> {
    let heard = Heard::default();
    let stop = serving.stop.clone();
    let address = listener.local_addr()?;
    let machines = Machines::of(&serving.identity.current().cluster_id, &serving.store);
    tokio::spawn(machines.clone().follow(serving.store.clone(), stop.clone()));
    // The thread lives as long as this function.
    let (life, _thread) = life::start(
        life::Parts {
            store: serving.store.clone(),
            credentials: serving.credentials.clone(),
            machines: machines.clone(),
            heard: heard.clone(),
            node_grace: serving.node_grace,
            stop: stop.clone(),
        },
        &serving.threads,
    )?;
    let raft = raft::lane::serve(
        &serving.raft_thread,
        serving.store.service(),
        move |request| machines.manager(request).map(drop),
        serving.credentials.clone(),
        stop.clone(),
    );
    let incoming = listener::incoming(
        listener,
        serving.credentials.clone(),
        Limits::default(),
        [life, raft].into(),
        stop.clone(),
    );
    let sessions = Sessions::default();
    let requests = Requests::new(rules.clone());
    let shares = Shares::new(shares::Limits::default());
    let meters = Meters::default();
    if let Some(listener) = metrics {
        let metrics = Metrics::new(Sources {
            store: serving.store.clone(),
            sessions: sessions.clone(),
            requests: requests.clone(),
            shares: shares.clone(),
            gaps: heard.gaps(),
            controllers: meters.clone(),
            identity: serving.identity.clone(),
            spans: serving.spans.clone(),
        });
        tracing::info!("metrics at http://{}/metrics", listener.local_addr()?);
        tokio::spawn(metrics::serve(listener, Arc::new(metrics), stop.clone()));
    }
    let missing = rotation::Missing::default();
    let rotator = rotation::Rotator {
        store: serving.store.clone(),
        dialer: serving.dialer.clone(),
        identity: serving.identity.clone(),
        heard: heard.clone(),
        missing: missing.clone(),
    };
    let router = router(&serving, rules, requests, sessions, missing, shares)?;
    tracing::info!(advertise = serving.advertise, "listening on {address}");
    tokio::spawn(leading::run(
        serving.store.clone(),
        heard,
        Backups {
            store: serving.store.clone(),
            keyring: serving.issuer.keyring().clone(),
            data_dir: serving.data_dir.clone(),
        },
        rotator,
        stop.clone(),
        NodeTimes {
            patience: leading::RECONNECT,
            grace: serving.node_grace,
            loss_interval: serving.node_loss_interval,
        },
        meters,
    ));
    tokio::spawn(lock::follow(
        serving.store.clone(),
        serving.issuer.keyring().clone(),
        stop.clone(),
    ));
    tokio::spawn(members::keep(
        serving.store.clone(),
        serving.identity.clone(),
        stop.clone(),
    ));
    let credentials = serving.credentials.clone();
    let shown = serving.identity.clone();
    tokio::spawn(shown.follow(move |identity| credentials.replace(identity)));
    let (renewing, issuer) = (serving.identity.clone(), serving.issuer.clone());
    let wanted = watch::Sender::new(renew::Wanted::default());
    let told = wanted.subscribe();
    let following = rotation::follow(serving.store.clone(), wanted);
    tokio::spawn(stop.clone().run_until_cancelled_owned(following));
    tokio::spawn(stop.clone().run_until_cancelled_owned(renew::keep(
        renewing,
        told,
        move |identity| {
            let issuer = issuer.clone();
            async move { issuer.renew(&identity).await }
        },
    )));
    Box::pin(router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned())).await?;
    Ok(())
}

type AuthorisedRouter = Router<
    Stack<
        Announce,
        Stack<
            InFlight,
            Stack<SharesLayer, Stack<AuthLayer, Stack<Requests, Stack<Calls, NoLayer>>>>,
        >,
    >,
>;

fn router(
    serving: &Serving,
    rules: Rules,
    requests: Requests,
    sessions: Sessions,
    missing: rotation::Missing,
    shares: Shares,
) -> Result<AuthorisedRouter, ServeError> {
    let Serving {
        store,
        dialer,
        identity,
        advertise,
        stop,
        ..
    } = serving;
    let cluster_id = identity.current().cluster_id.clone();
    let to_leader = ToLeader::new(store.clone(), dialer.clone());
    let tunnels = Tunnels::default();
    let relay = Relay::start(
        Leading {
            store: store.clone(),
            // A connection of its own: what clients have sent on must not hold up what agents report.
            dialer: dialer.apart(),
            principal: Principal {
                role: Role::Manager,
                uid: identity.current().uid.clone(),
            },
        },
        stop.clone(),
    );
    let host = Host {
        store: store.clone(),
        sessions: sessions.clone(),
        relay,
        keyring: serving.issuer.keyring().clone(),
        stop: stop.clone(),
    };
    let reach = Reach {
        store: store.clone(),
        sessions: sessions.clone(),
        tunnels: tunnels.clone(),
        dialer: dialer.clone(),
        advertise: advertise.clone(),
    };
    let logs = LogsService {
        reach: reach.clone(),
        shares: shares.clone(),
        stop: stop.clone(),
    };
    let into_pods = PodStreamsService {
        reach,
        shares: shares.clone(),
        stop: stop.clone(),
    };
    let asker = Asker::new(
        store.clone(),
        sessions.clone(),
        tunnels.clone(),
        // A connection of its own: what clients have sent on holds up no answer, and long answers hold up nothing else.
        dialer.apart(),
        advertise.clone(),
    );
    let taken = MetricsService {
        store: store.clone(),
        asker: asker.clone(),
    };
    let cluster = ClusterService::new(cluster::Parts {
        store: store.clone(),
        to_leader: to_leader.clone(),
        dialer: dialer.clone(),
        identity: identity.clone(),
        issuer: serving.issuer.clone(),
        sessions,
        logging: serving.logging.clone(),
        missing,
        backups: Arc::new(Semaphore::new(1)),
        unlocking: Arc::new(Semaphore::new(1)),
    });
    let credentials = CredentialsService::new(credentials::Parts {
        store: store.clone(),
        to_leader: to_leader.clone(),
        issuer: serving.issuer.clone(),
        cluster_id: cluster_id.clone(),
    });
    let accounts = AccountsService::new(accounts::Parts {
        store: store.clone(),
        to_leader: to_leader.clone(),
        keyring: serving.issuer.keyring().clone(),
    });
    let auth = AuthLayer::new(
        rules.clone(),
        &cluster_id,
        Arc::new(StateDirectory(store.clone())),
        serving.audit.clone(),
    );
    let calls = serving.spans.calls(&rules);
    let api = ApiService::new(
        store.clone(),
        to_leader,
        shares.clone(),
        Vault::new(serving.issuer.keyring().clone()),
        serving.reserved_ports.clone(),
        Layers {
            auth: auth.clone(),
            requests: requests.clone(),
            in_flight: serving.in_flight.clone(),
            calls: calls.clone(),
        },
        stop.clone(),
    );
    tokio::spawn(api.sweep());
    let session = SessionService::new(host, tunnels, asker);
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(health::run(store.clone(), reporter, stop.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .layer(calls)
        .layer(requests)
        .layer(auth)
        .layer(SharesLayer::new(shares, rules.clone()))
        .layer(serving.in_flight.clone())
        .layer(Announce(identity.clone()))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(ApiServer::new(api).max_decoding_message_size(MAX_REQUEST))
        .add_service(ClusterServer::new(cluster).max_decoding_message_size(MAX_SMALL))
        .add_service(CredentialsServer::new(credentials).max_decoding_message_size(MAX_SMALL))
        .add_service(
            AccessServer::new(AccessService(store.clone())).max_decoding_message_size(MAX_SMALL),
        )
        .add_service(ServiceAccountsServer::new(accounts).max_decoding_message_size(MAX_SMALL))
        .add_service(SessionServer::new(session).max_decoding_message_size(MAX_RELAY))
        .add_service(LogsServer::new(logs).max_decoding_message_size(MAX_SMALL))
        .add_service(PodStreamsServer::new(into_pods).max_decoding_message_size(MAX_PIECE))
        .add_service(MetricsServer::new(taken).max_decoding_message_size(MAX_SMALL)))
}
