//! A whole agent over a runtime in memory, with a manager on this machine.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    clock::TokioClock,
    testing::{
        Scripted,
        managers::{Known, Manager},
    },
};

#[tokio::test]
async fn a_disk_that_is_full_keeps_no_agent_from_its_managers() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_owned();
    // Nothing can be written where new files are made before they are renamed.
    for name in [
        "incarnation.tmp",
        "assigned/acted.tmp",
        "assigned/network.tmp",
    ] {
        std::fs::create_dir_all(data_dir.join(name)).unwrap();
    }
    let mut manager = Manager::start().await;
    let stop = CancellationToken::new();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(1_700_000_000_000));
    let options = Options {
        cluster_id: "c1".to_owned(),
        managers: Known::new([&manager]),
        life: life::thread(stop.clone()).unwrap(),
        runtime: Scripted::new(clock.clone()),
        carrier: None,
        clock,
        sources: Sources {
            proc: "/proc".into(),
            etc: "/etc".into(),
            data_dir: data_dir.clone(),
            name: "n".to_owned(),
            address: "192.0.2.1".to_owned(),
        },
        data_dir,
        network: None,
        parallel_creations: 1,
    };
    let agent = tokio::spawn(run(options, stop.clone()));
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    // The session cannot go on without a disk, and is tried again; life signs do.
    manager.accept().await.hello().await;
    manager.life.until_signed().await;
    assert!(!agent.is_finished());
    stop.cancel();
    agent.await.unwrap().unwrap();
}
