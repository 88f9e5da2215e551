//! The carrier as a process, and who keeps it running. The containers are played: somebody who holds a pipe, as
//! containerd's shim does, and writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "carrier/disk.rs"]
mod disk;
#[path = "carrier/stage.rs"]
mod stage;

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;

use disk::Disk;
use stage::{LINES, Stage, Writer, eventually, signal};

/// A blocked writer may wait as long for a killed carrier's successor.
const BOUND: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_killed_carrier_is_back_at_once_on_a_quiet_node() {
    let stage = Stage::new();
    let keeper = stage.keep();
    let before = stage.pid().await;
    stage.attach("pod", "c").await;
    let writer = Writer::start(&stage, "pod-c-0", LINES);
    for _ in 0..3 {
        let killed = stage.pid().await;
        signal(killed, Signal::SIGKILL);
        // Nobody asks for anything: a look at the socket is no request for a carrier.
        eventually("another carrier serves", || async {
            (stage.try_pid().await? != killed).then_some(())
        })
        .await;
    }
    assert_ne!(stage.pid().await, before);
    let longest = writer.finish().await;
    assert!(longest < BOUND, "a writer waited for {longest:?}");
    stage.detach("pod-c-0").await;
    stage.log_is_complete("pod", "c", LINES);
    let told = keeper.told();
    assert!(
        told.iter().all(|reason| reason == "CarrierGone"),
        "{told:?}"
    );
    assert!(!told.is_empty());
}

#[tokio::test]
async fn a_stopped_carrier_is_replaced_and_nothing_is_lost() {
    let stage = Stage::new();
    let keeper = stage.keep();
    let stopped = stage.pid().await;
    stage.attach("pod", "c").await;
    let writer = Writer::start(&stage, "pod-c-0", LINES);
    signal(stopped, Signal::SIGSTOP);
    writer.finish().await;
    eventually("the keeper has told", || async {
        keeper
            .told()
            .contains(&"CarrierStuck".to_owned())
            .then_some(())
    })
    .await;
    assert_ne!(stage.pid().await, stopped);
    stage.detach("pod-c-0").await;
    stage.log_is_complete("pod", "c", LINES);
}

#[tokio::test]
async fn a_carrier_that_cannot_start_is_told_once_and_tried_again() {
    let stage = Stage::new();
    // No file in the folder can be made: the folder is a file.
    let run = stage.paths.run();
    std::fs::write(&run, "").unwrap();
    let keeper = stage.keep();
    eventually("the keeper has told", || async {
        (keeper.told() == ["CarrierFailed"]).then_some(())
    })
    .await;
    std::fs::remove_file(run).unwrap();
    stage.pid().await;
    assert_eq!(keeper.told(), ["CarrierFailed"]);
}

#[tokio::test]
async fn without_control_the_one_that_stands_by_takes_over() {
    let stage = Stage::new();
    let first = stage.carrier.ensure().await.unwrap();
    let mut standby = Command::new(stage::PROGRAM)
        .args(["carrier", "--standby", "--data-dir"])
        .arg(stage.paths.data_dir())
        .spawn()
        .unwrap();
    stage.attach("pod", "c").await;
    let writer = Writer::start(&stage, "pod-c-0", LINES);
    assert_eq!(stage.pid().await, first.pid, "it waits");
    signal(first.pid, Signal::SIGKILL);
    let successor = eventually("the other one serves", || stage.try_pid()).await;
    assert_eq!(successor, standby.id());
    let longest = writer.finish().await;
    assert!(longest < BOUND, "a writer waited for {longest:?}");
    // Control finds it, and starts none.
    assert_eq!(stage.carrier.ensure().await.unwrap().pid, successor);
    stage.detach("pod-c-0").await;
    stage.log_is_complete("pod", "c", LINES);
    // It ends as asked, and leaves nothing half done.
    signal(successor, Signal::SIGTERM);
    assert!(standby.wait().unwrap().success());
}

#[tokio::test]
async fn a_disk_that_hangs_stops_one_container_only() {
    let stage = Stage::new();
    let disk = Disk::mount(&stage.paths.pod("hung"));
    stage.attach("hung", "c").await;
    stage.attach("well", "c").await;
    disk.freeze();
    let hung = Writer::start(&stage, "hung-c-0", LINES);
    let well = Writer::start(&stage, "well-c-0", LINES);
    well.finish().await;
    // Answered while the other thread waits for its disk.
    stage.pid().await;
    stage.attach("later", "c").await;
    stage.detach("well-c-0").await;
    stage.log_is_complete("well", "c", LINES);
    assert!(!hung.is_finished(), "its pipe is full");
    disk.thaw();
    hung.finish().await;
    stage.detach("hung-c-0").await;
    stage.log_is_complete("hung", "c", LINES);
}
