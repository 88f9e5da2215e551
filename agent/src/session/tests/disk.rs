//! Sessions over a disk that hangs.

use std::{io::Read, path::PathBuf};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;
use crate::desired::Touched;

/// A file system that hangs: whoever opens the file waits until it is read.
fn hanging(path: PathBuf) -> impl FnOnce() {
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    move || {
        let mut file = std::fs::File::open(&path).unwrap();
        // Or by the one that could not write it.
        let _ = std::fs::remove_file(path);
        let _ = file.read_to_end(&mut Vec::new());
    }
}

#[tokio::test]
async fn life_signs_and_reports_go_on_while_the_disk_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    let go_on = hanging(folder.path().join("assigned/pods.tmp"));
    session.welcome().await;
    session.assign(7, true, &["a"]).await;
    let begin = Instant::now();
    agent.outbox.pod_status("a", PodStatus::default());
    assert_eq!(session.report().await.pods.len(), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let signs = manager.life.signs();
    let since = signs.iter().filter(|(at, _)| *at >= begin).count();
    assert!(since >= 5, "{since} in three seconds");
    assert_eq!(agent.desired.borrow().revision, 0, "not on disk yet");
    // The session takes what comes meanwhile, acknowledgements included.
    session.assign(8, false, &["b"]).await;
    session.ack(1).await;
    let settled = async {
        while agent.outbox.is_waiting() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, settled).await.unwrap();
    // It goes on with an error, and is written again, in the same session.
    go_on();
    agent.until(|desired| desired.revision == 8).await;
    assert_eq!(agent.desired.borrow().pods.len(), 2);
    agent.outbox.pod_status("b", PodStatus::default());
    assert_eq!(session.report().await.pods[0].uid, "b");
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_pods_and_no_services() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    session.assign(7, true, &["a"]).await;
    agent.until(|desired| desired.revision == 7).await;
    let go_on = hanging(folder.path().join("assigned/pods.tmp"));
    session.assign(8, false, &["b"]).await;
    let assignment = Assignment {
        revision: 9,
        services: vec![barge_proto::v1::Service {
            metadata: with_pod(0).pods["a"].metadata.clone(),
            ..Default::default()
        }],
        ..Default::default()
    };
    session
        .say(manager_message::Message::Assignment(assignment))
        .await;
    agent.until(|desired| desired.services.len() == 1).await;
    assert_eq!(agent.desired.borrow().pods.len(), 1, "b is not durable");
    go_on();
    agent.until(|desired| desired.revision == 9).await;
    assert_eq!(agent.desired.borrow().pods.len(), 2);
}

#[tokio::test]
async fn what_comes_during_a_write_is_written_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let files = AssignmentFiles::open(folder.path()).unwrap();
    let (sender, mut desired) = watch::channel(Arc::new(Desired::default()));
    let keeper = Arc::new(Keeper::new(files.clone(), "c1".into(), sender));
    let manager = Manager::start().await;
    let managers: Arc<dyn Managers> = Known::new([&manager]);
    let running = {
        let keeper = keeper.clone();
        tokio::spawn(async move { keeper.run(&managers, &Outbox::default()).await })
    };
    let go_on = hanging(folder.path().join("assigned/acted.tmp"));
    let touched = Touched {
        pods: true,
        network: false,
        ..Touched::default()
    };
    keeper.put(with_pod(7), touched);
    let half = async {
        while !folder.path().join("assigned/pods").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, half).await.unwrap();
    let none = Desired {
        revision: 8,
        ..Desired::default()
    };
    keeper.put(none, touched);
    tokio::task::spawn_blocking(go_on).await.unwrap();
    let written = desired.wait_for(|desired| desired.revision == 8);
    timeout(LONG, written).await.unwrap().unwrap();
    let loaded = files.load("c1");
    assert_eq!((loaded.revision, loaded.pods.len()), (8, 0));
    running.abort();
}

fn with_pod(revision: u64) -> Desired {
    let pod = barge_proto::v1::Pod {
        metadata: Some(barge_proto::v1::ObjectMeta {
            uid: "a".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    Desired {
        revision,
        pods: [("a".to_owned(), Arc::new(pod))].into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_disk_without_room_for_configuration_takes_deletions() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let mut agent = Agent::start(folder.path(), &[&manager]);
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    session.assign(7, true, &["a", "b"]).await;
    agent.until(|desired| desired.revision == 7).await;
    let kept = folder.path().join("assigned/configuration");
    // It cannot be written from here on.
    std::fs::create_dir(kept.with_extension("tmp")).unwrap();
    let assignment = Assignment {
        revision: 8,
        removed_pod_uids: vec!["a".into()],
        config_maps: vec![barge_proto::v1::ConfigMap::default()],
        ..Default::default()
    };
    session
        .say(manager_message::Message::Assignment(assignment))
        .await;
    agent.until(|desired| desired.deleted.contains("a")).await;
    assert!(!kept.exists(), "nothing older is taken for it");
    // What comes while it is tried again does not wait for it.
    session.assign(9, false, &["c"]).await;
    agent.until(|desired| desired.pods.contains_key("c")).await;
    std::fs::remove_dir(kept.with_extension("tmp")).unwrap();
    let written = async {
        while !kept.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, written).await.unwrap();
}
