//! A cluster of managers whose connections can be cut and whose folders survive them.

use std::{
    collections::HashMap,
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use barge_proto::v1::{
    self, Change, ClusterRecord, Namespace, ObjectMeta, Outcome, Precondition, Record, RecordRef,
    Transaction, precondition::Must,
};
use barge_server::{
    runtime::Threads,
    storage::{Points, Process, types::Node},
    store::{MemberChange, Options, Store, StoreError},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use crate::{
    exit,
    network::{Addresses, Network, Place},
};

/// Nothing here takes this long unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until a condition holds.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, poll).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// Runs a future that must not take long.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// One manager.
pub struct Manager {
    pub id: u64,
    pub store: Store,
    pub process: Process,
    server: CancellationToken,
}

impl Manager {
    /// As if its process was killed: nothing is handed over, and nothing is answered any more.
    pub async fn kill(self, network: &Network) {
        network.cut(self.id).await;
        self.server.cancel();
        self.store.abandon().await;
    }
}

/// Managers 1 to n, their folders and the network between them.
pub struct Cluster {
    pub network: Network,
    size: u64,
    root: PathBuf,
    /// Deletes the root.
    temporary: Option<TempDir>,
    points: HashMap<u64, Points>,
    /// Folders that some use instead.
    copies: HashMap<u64, PathBuf>,
    addresses: Addresses,
    pub managers: HashMap<u64, Manager>,
    snapshot_log_bytes: u64,
    snapshot_rate: Option<u64>,
    history_changes: Option<usize>,
    /// Of managers that were killed.
    earlier: HashMap<u64, Threads>,
}

impl Cluster {
    /// Folders and addresses for so many managers; none runs yet.
    pub async fn new(size: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Self::at(root.path(), size).await;
        cluster.temporary = Some(root);
        cluster
    }

    /// As [`Cluster::new`], in a folder that may hold the managers of an earlier life.
    pub async fn at(root: &Path, size: u64) -> Self {
        let mut addresses = HashMap::new();
        for id in 1..=size {
            let socket = free_socket().await;
            addresses.insert(format!("manager-{id}:7100"), Place { id, socket });
        }
        Self {
            network: Network::default(),
            size,
            root: root.to_owned(),
            temporary: None,
            copies: HashMap::new(),
            addresses: Arc::new(Mutex::new(addresses)),
            managers: HashMap::new(),
            snapshot_log_bytes: 64 << 20,
            snapshot_rate: None,
            history_changes: None,
            earlier: HashMap::new(),
            points: HashMap::new(),
        }
    }

    /// Is told what the storage of a manager that starts later is about to do.
    pub fn listen(&mut self, id: u64, points: Points) {
        self.points.insert(id, points);
    }

    pub fn snapshot_log_bytes(mut self, bytes: u64) -> Self {
        self.snapshot_log_bytes = bytes;
        self
    }

    pub fn snapshot_rate(mut self, bytes: u64) -> Self {
        self.snapshot_rate = Some(bytes);
        self
    }

    /// Watches and lists can go back so many changes.
    pub fn history_changes(mut self, changes: usize) -> Self {
        self.history_changes = Some(changes);
        self
    }

    /// All managers run and vote.
    pub async fn started(mut self) -> Self {
        let ids: Vec<u64> = (1..=self.size).collect();
        for id in &ids {
            self.start(*id).await;
        }
        self.store(1).bootstrap().await.unwrap();
        for id in &ids[1..] {
            self.join(1, *id).await;
        }
        for manager in self.managers.values() {
            eventually("everybody knows the voters", async || {
                let members = manager.store.status().members;
                (members.iter().filter(|member| member.voter).count() == ids.len()).then_some(())
            })
            .await;
        }
        self
    }

    /// Makes a manager that runs a voter.
    pub async fn join(&self, leader: u64, id: u64) {
        let store = self.store(leader);
        let change = async |change| {
            let changed = soon("a member is changed", store.change_members(change)).await;
            changed.unwrap();
        };
        change(MemberChange::Set(id, self.node(id))).await;
        eventually("it has caught up", async || {
            let members = store.status().members;
            members
                .iter()
                .any(|member| member.id == id && member.lag == Some(0))
                .then_some(())
        })
        .await;
        change(MemberChange::Promote([id].into())).await;
    }

    pub fn node(&self, id: u64) -> Node {
        Node {
            address: self.address(id),
            uid: format!("uid-{id}"),
        }
    }

    pub fn address(&self, id: u64) -> String {
        let addresses = self.addresses.lock().unwrap();
        addresses
            .iter()
            .find(|(_, place)| place.id == id)
            .unwrap()
            .0
            .clone()
    }

    pub fn folder(&self, id: u64) -> PathBuf {
        let own = || self.root.join(format!("manager-{id}"));
        self.copies.get(&id).cloned().unwrap_or_else(own)
    }

    /// Its next start is from this copy of its folder.
    pub fn restore(&mut self, id: u64, copy: &Path) {
        self.copies.insert(id, copy.to_owned());
    }

    pub fn options(&self, id: u64) -> Options {
        let mut options = Options::new(
            self.folder(id),
            "cluster".into(),
            id,
            self.address(id),
            format!("uid-{id}"),
            self.network.connect(id, self.addresses.clone()),
        );
        options.snapshot_log_bytes = self.snapshot_log_bytes;
        options.snapshot_rate = self.snapshot_rate.unwrap_or(options.snapshot_rate);
        options.history_changes = self.history_changes.unwrap_or(options.history_changes);
        options.process.points = self.points.get(&id).cloned().unwrap_or_default();
        options
    }

    /// Starts a manager on what is in its folder.
    pub async fn start(&mut self, id: u64) {
        self.network.heal(id);
        let options = self.options(id);
        // Opened while an earlier life still closes them, databases miss files.
        if let Some(threads) = self.earlier.remove(&id) {
            closed(&threads).await;
        }
        let store = Store::open(options.clone()).await.unwrap();
        exit::wait_for(&options.process.threads);
        let address = self.address(id);
        let socket = self.addresses.lock().unwrap()[&address].socket;
        let listener = eventually("the address is free", async || {
            TcpListener::bind(socket).await.ok()
        })
        .await;
        let server = CancellationToken::new();
        let serve = tonic::transport::Server::builder()
            .add_service(store.service().into_server())
            .serve_with_incoming(TcpListenerStream::new(listener));
        let stopped = server.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = serve => result.unwrap(),
                () = stopped.cancelled() => {}
            }
        });
        let process = options.process;
        self.managers.insert(
            id,
            Manager {
                id,
                store,
                process,
                server,
            },
        );
    }

    pub async fn kill(&mut self, id: u64) {
        let manager = self.managers.remove(&id).unwrap();
        self.earlier.insert(id, manager.process.threads.clone());
        manager.kill(&self.network).await;
    }

    /// Kills a manager of which nobody has a handle, and waits until its databases are closed.
    pub async fn close(&mut self, id: u64) {
        let threads = self.managers[&id].process.threads.clone();
        self.kill(id).await;
        closed(&threads).await;
    }

    pub fn store(&self, id: u64) -> Store {
        self.managers[&id].store.clone()
    }

    /// The manager that leads and is believed to by all that are not cut off.
    pub async fn leader(&self) -> u64 {
        eventually("a leader", async || {
            let running: Vec<_> = self
                .managers
                .values()
                .filter(|manager| !self.network.token(manager.id).is_cancelled())
                .map(|manager| manager.store.leadership().borrow().clone())
                .collect();
            let leader = running.first()?.leader.as_ref()?.0;
            running
                .iter()
                .all(|known| known.leader.as_ref().is_some_and(|(id, _)| *id == leader))
                .then_some(leader)
                .filter(|id| !self.network.token(*id).is_cancelled())
        })
        .await
    }

    /// The leader, when `not` may not know of it yet.
    pub async fn leader_without(&self, not: u64) -> u64 {
        eventually("a leader", async || {
            let managers = self.managers.values().filter(|manager| manager.id != not);
            managers
                .filter(|manager| manager.store.leadership().borrow().is_leader)
                .map(|manager| manager.id)
                .next()
        })
        .await
    }

    /// Its next start is at another address.
    pub async fn move_to_another_address(&mut self, id: u64) {
        let socket = free_socket().await;
        let mut addresses = self.addresses.lock().unwrap();
        addresses.retain(|_, place| place.id != id);
        addresses.insert(
            format!("manager-{id}:{}", socket.port()),
            Place { id, socket },
        );
    }

    /// Some manager that follows.
    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.managers.keys().find(|id| **id != leader).unwrap()
    }

    /// Writes through whoever leads until it is acknowledged.
    pub async fn write(&self, name: &str) -> Outcome {
        eventually("a write", async || {
            let leader = self.leader().await;
            match self
                .managers
                .get(&leader)?
                .store
                .propose(create(name))
                .await
            {
                Ok(outcome) => Some(outcome),
                Err(StoreError::NotLeader { .. } | StoreError::NoQuorum) => None,
                // It may be there already; creating it again is refused then, which tells as much.
                Err(StoreError::Unknown) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await
    }
}

/// Waits until the databases behind these threads are closed.
async fn closed(threads: &Threads) {
    eventually("the databases are closed", async || {
        threads.wait(Duration::ZERO).then_some(())
    })
    .await;
}

/// Not one of those that connections begin at: somebody's could take it between two lives of a manager.
async fn free_socket() -> SocketAddr {
    loop {
        let port = rand::random_range(10_000..20_000);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return listener.local_addr().unwrap();
        }
    }
}

/// Creates a namespace; refused when it exists.
pub fn create(name: &str) -> Transaction {
    create_with(name, 0)
}

/// Creates a namespace of about so many bytes.
pub fn create_with(name: &str, bytes: usize) -> Transaction {
    let namespace = Namespace {
        metadata: Some(ObjectMeta {
            name: name.into(),
            uid: format!("uid-of-{name}"),
            annotations: [("filler".to_owned(), "x".repeat(bytes))].into(),
            ..ObjectMeta::default()
        }),
        ..Namespace::default()
    };
    let record = v1::record::Record::Namespace(namespace);
    Transaction {
        id: name.as_bytes().to_vec(),
        principal: "admin/test".into(),
        time: Some(v1::Time {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        preconditions: vec![Precondition {
            target: Some(RecordRef {
                kind: 1,
                name: name.into(),
                ..RecordRef::default()
            }),
            must: Some(Must::Absent(true)),
        }],
        changes: vec![Change {
            change: Some(v1::change::Change::Put(Record {
                record: Some(record),
            })),
        }],
        ..Transaction::default()
    }
}

/// The cluster's record, at a feature level.
pub fn cluster_at_level(level: u32) -> Record {
    let cluster = ClusterRecord {
        metadata: Some(ObjectMeta {
            name: "cluster".into(),
            uid: "cluster".into(),
            ..ObjectMeta::default()
        }),
        feature_level: level,
        ..ClusterRecord::default()
    };
    Record {
        record: Some(v1::record::Record::Cluster(cluster)),
    }
}

/// Raises the cluster's feature level.
pub fn raise(level: u32) -> Transaction {
    Transaction {
        changes: vec![Change {
            change: Some(v1::change::Change::Put(cluster_at_level(level))),
        }],
        ..create("raise")
    }
}

/// Whether a manager has applied the creation of a namespace.
pub fn has(store: &Store, name: &str) -> bool {
    store.read(|state| state.get::<Namespace>("", name).is_some())
}

/// A copy of a folder as a power cut would leave it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
