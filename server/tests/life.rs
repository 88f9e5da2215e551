#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Life signs are answered whatever else a manager is busy with.

use std::{
    sync::{Arc, mpsc as blocking},
    time::{Duration, SystemTime},
};

use barge_client::{
    channel::{ChannelOptions, channel},
    identity::Identity,
    tls::{client_config, for_life_signs},
};
use barge_proto::v1::{
    ClusterRecord, LifeAnswer, LifeSign, Namespace, Node, ObjectMeta, Role, life_client::LifeClient,
};
use barge_server::{
    controllers::NODE_GRACE,
    life::{self, Heard, Parts},
    net::{Credentials, Limits, listener},
    pki::{Authority, Subject, authority::LEAF_LIFE},
    runtime::Threads,
    security::auth::Machines,
    store::{Options, Store, transaction::Draft},
};
use tokio::{net::TcpListener, runtime, sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

const PATIENCE: Duration = Duration::from_secs(30);

fn identity(ca: &Authority, role: Role, uid: &str) -> Identity {
    let subject = Subject {
        cluster_id: "c".to_owned(),
        role,
        uid: uid.to_owned(),
        raft_id: (role == Role::Manager).then_some(1),
    };
    let (key, certificate) = ca
        .issue_with_new_key(&subject, SystemTime::now(), LEAF_LIFE)
        .unwrap();
    Identity {
        cluster_id: "c".to_owned(),
        role,
        uid: uid.to_owned(),
        key: key.serialize_pem(),
        chain: vec![certificate],
        roots: vec![ca.root().clone()],
        members: Vec::new(),
    }
}

fn named(name: &str, uid: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..ObjectMeta::default()
    })
}

async fn write(store: &Store, fill: impl FnOnce(&mut Draft)) {
    let mut draft = Draft::new();
    fill(&mut draft);
    let outcome = store.propose(draft.build("test".to_owned(), None)).await;
    assert_eq!(outcome.unwrap().refusal, None);
}

/// Signs over a lane of its own, on the caller's runtime.
async fn sign(address: &str, agent: &Identity) -> (mpsc::Sender<LifeSign>, Streaming<LifeAnswer>) {
    let tls = for_life_signs(&client_config(agent).unwrap());
    let lane = channel(address, tls, &ChannelOptions::default()).unwrap();
    let (tell, signs) = mpsc::channel(1);
    let answers = LifeClient::new(lane)
        .signs(ReceiverStream::new(signs))
        .await;
    (tell, answers.unwrap().into_inner())
}

async fn answered(
    tell: &mpsc::Sender<LifeSign>,
    answers: &mut Streaming<LifeAnswer>,
    sequence: u64,
) -> LifeAnswer {
    let sign = LifeSign {
        sequence,
        ..LifeSign::default()
    };
    tell.send(sign).await.unwrap();
    let next = timeout(PATIENCE, answers.message()).await;
    next.expect("an answer").unwrap().expect("it goes on")
}

#[test]
fn the_state_is_locked_and_every_other_thread_waits_and_life_signs_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::create("c", SystemTime::now()).unwrap();
    let credentials = Credentials::new(&identity(&ca, Role::Manager, "m")).unwrap();
    let threads = Threads::default();
    let stop = CancellationToken::new();
    // A manager's own runtime, with two threads.
    let manager = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (store, address, lane) = manager.block_on(async {
        let connect = Arc::new(|_: &str| Err("alone".into()));
        let mut options = Options::new(
            dir.path().join("store"),
            "c".to_owned(),
            1,
            "m:1".to_owned(),
            "m".to_owned(),
            connect,
        );
        options.process.threads = threads.clone();
        let store = Store::open(options).await.unwrap();
        store.bootstrap().await.unwrap();
        write(&store, |draft| {
            draft.put(ClusterRecord {
                metadata: named("cluster", "c"),
                next_raft_id: 2,
                ..ClusterRecord::default()
            });
            draft.put(Node {
                metadata: named("n", "n"),
                ..Node::default()
            });
        })
        .await;
        let machines = Machines::of("c", &store);
        tokio::spawn(machines.clone().follow(store.clone(), stop.clone()));
        let heard = Heard::default();
        heard.begin(store.leads_in().unwrap(), tokio::time::Instant::now());
        let parts = Parts {
            store: store.clone(),
            credentials: credentials.clone(),
            machines,
            heard,
            node_grace: NODE_GRACE,
            stop: stop.clone(),
        };
        let (sender, lane) = life::start(parts, &threads).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut others = listener::incoming(
            listener,
            credentials,
            Limits::default(),
            [sender].into(),
            stop.clone(),
        );
        tokio::spawn(async move { while others.next().await.is_some() {} });
        (store, address, lane)
    });

    let agent = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let node = identity(&ca, Role::Agent, "n");
    let (tell, mut answers) = agent.block_on(sign(&address, &node));
    let first = agent.block_on(answered(&tell, &mut answers, 1));
    assert_eq!((first.sequence, first.node_grace_ms), (1, 4000));

    // Somebody reads at length; the thread that applies waits for it, and whoever reads next waits behind that.
    let (release, held) = blocking::channel::<()>();
    let reader = store.clone();
    let reading = std::thread::spawn(move || reader.read(|_| held.recv().is_err()));
    let writer = store.clone();
    let written = manager.spawn(async move {
        write(&writer, |draft| {
            draft.put(Namespace {
                metadata: named("late", "late"),
                ..Namespace::default()
            });
        })
        .await;
    });
    let blocked: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            let (begun, begins) = blocking::channel();
            let task = manager.spawn(async move {
                begun.send(()).ok();
                store.read(|state| state.revision())
            });
            (task, begins)
        })
        .collect();
    // Both threads of the runtime are in it.
    for (_, begins) in &blocked[..2] {
        begins.recv_timeout(PATIENCE).unwrap();
    }
    for sequence in 2..12 {
        let answer = agent.block_on(answered(&tell, &mut answers, sequence));
        assert_eq!(answer.sequence, sequence);
    }
    assert!(!written.is_finished(), "the write waits for the reader");
    drop(release);
    assert!(reading.join().unwrap());
    manager.block_on(async {
        written.await.unwrap();
        for (task, _) in blocked {
            task.await.unwrap();
        }
    });

    stop.cancel();
    manager.block_on(store.shutdown());
    drop((store, lane, tell, answers));
    drop((agent, manager));
    assert!(threads.wait(PATIENCE), "a database is still open");
}
