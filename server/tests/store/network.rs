//! Connections between managers that can be cut.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use barge_server::raft::Connect;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Endpoint, Uri};

/// The network between managers: connections of a manager that is cut off break, and no new ones come about.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<HashMap<u64, Port>>>);

#[derive(Default)]
struct Port {
    cut: CancellationToken,
    /// What carries its connections.
    carriers: TaskTracker,
    /// How often it tried in vain to connect to somebody.
    attempts: usize,
    /// How often somebody tried in vain to connect to it.
    asked: usize,
}

impl Network {
    /// Ends when the manager is cut off.
    pub fn token(&self, id: u64) -> CancellationToken {
        self.0.lock().unwrap().entry(id).or_default().cut.clone()
    }

    /// How often a manager that was cut off has tried to connect to somebody.
    pub fn attempts(&self, id: u64) -> usize {
        self.0.lock().unwrap().entry(id).or_default().attempts
    }

    /// How often somebody has tried to connect to a manager that was cut off.
    pub fn asked(&self, id: u64) -> usize {
        self.0.lock().unwrap().entry(id).or_default().asked
    }

    /// Nothing that is sent afterwards arrives.
    pub async fn cut(&self, id: u64) {
        self.token(id).cancel();
        // One that is just being run may still read what is sent next.
        let carriers = self.carriers(id);
        carriers.close();
        carriers.wait().await;
    }

    fn carriers(&self, id: u64) -> TaskTracker {
        self.0
            .lock()
            .unwrap()
            .entry(id)
            .or_default()
            .carriers
            .clone()
    }

    pub fn heal(&self, id: u64) {
        self.0.lock().unwrap().insert(id, Port::default());
    }

    /// How one manager reaches the others.
    pub fn connect(&self, from: u64, addresses: Addresses) -> Connect {
        let network = self.clone();
        Arc::new(move |address: &str| {
            let place = addresses.lock().unwrap().get(address).copied();
            let (network, to) = (network.clone(), place.map_or(0, |place| place.id));
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .connect_timeout(Duration::from_millis(500));
            Ok(
                endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                    let (ids, network) = ((from, to), network.clone());
                    let (from, to) = (network.token(from), network.token(to));
                    async move {
                        let count = |id, add: fn(&mut Port)| {
                            add(network.0.lock().unwrap().entry(id).or_default());
                        };
                        if from.is_cancelled() {
                            count(ids.0, |port| port.attempts += 1);
                        }
                        if to.is_cancelled() {
                            count(ids.1, |port| port.asked += 1);
                        }
                        if from.is_cancelled() || to.is_cancelled() {
                            return Err(std::io::Error::other("cut off"));
                        }
                        let place = place.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
                        let mut remote = TcpStream::connect(place.socket).await?;
                        remote.set_nodelay(true)?;
                        let (local, mut inner) = tokio::io::duplex(1 << 20);
                        let tracked = [ids.0, ids.1].map(|id| network.carriers(id).token());
                        tokio::spawn(async move {
                            let _tracked = tracked;
                            tokio::select! {
                                biased;
                                () = from.cancelled() => {}
                                () = to.cancelled() => {}
                                _ = tokio::io::copy_bidirectional(&mut inner, &mut remote) => {}
                            }
                        });
                        Ok(TokioIo::new(local))
                    }
                })),
            )
        })
    }
}

/// Who is where, by the address that is told to others; a manager that moves is found by those that run already. Sockets are
/// other ones in each process, so that a cluster outlives the process that it began in.
pub type Addresses = Arc<Mutex<HashMap<String, Place>>>;

#[derive(Clone, Copy)]
pub struct Place {
    pub id: u64,
    pub socket: SocketAddr,
}
