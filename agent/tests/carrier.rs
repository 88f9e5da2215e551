//! The carrier as a process, and who keeps it running. The containers are played: somebody who holds a pipe, as
//! containerd's shim does, and writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "carrier/disk.rs"]
mod disk;
#[path = "carrier/stage.rs"]
mod stage;

use std::{fs::OpenOptions, io::Write, process::Command, time::Duration};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::Signal,
};

use disk::Disk;
use stage::{LINES, Stage, Writer, eventually, signal};

/// A blocked writer may wait as long for a killed carrier's successor.
const BOUND: Duration = Duration::from_secs(5);

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

#[tokio::test]
async fn a_last_line_without_a_newline_is_written_when_its_writer_ends() {
    let stage = Stage::new();
    stage.attach("pod", "c").await;
    let log = stage.paths.log("pod", "c", 0);
    let has = async |text: &str| {
        eventually(&format!("the log has \"{text}\""), || async {
            let log = std::fs::read_to_string(&log).unwrap();
            log.ends_with(text).then_some(())
        })
        .await;
    };
    let mut pipe = stage.pipe("pod-c-0");
    pipe.write_all(b"one\nhalf a").unwrap();
    has(" stdout F one\n").await;
    // A line that may go on stays in the pipe.
    pipe.write_all(b" line\npanic: at the disco").unwrap();
    has(" stdout F half a line\n").await;
    drop(pipe);
    has(" stdout P panic: at the disco\n").await;
    // Another one may come, and the successor of a carrier sees its end too.
    let mut pipe = stage.pipe("pod-c-0");
    pipe.write_all(b"and then").unwrap();
    let killed = stage.pid().await;
    signal(killed, Signal::SIGKILL);
    let successor = stage.carrier.ensure().await.unwrap();
    assert_ne!(successor.pid, killed);
    drop(pipe);
    has(" stdout P and then\n").await;
    stage.detach("pod-c-0").await;
}

#[tokio::test]
async fn settled_is_what_was_written_to_its_last_byte() {
    let stage = Stage::new();
    stage.attach("pod", "c").await;
    // Somebody may write still.
    let pipe = stage.pipe("pod-c-0");
    let early = stage.carrier.settle("pod-c-0").await.unwrap_err();
    assert!(early.to_string().contains("writes still"), "{early}");
    drop(pipe);
    let writer = Writer::start(&stage, "pod-c-0", LINES);
    // Waits for its end.
    stage.settle("pod-c-0").await;
    stage.log_is_complete("pod", "c", LINES);
    writer.finish().await;
    // By a successor, too, to which nobody has ever written, and when there is nothing any more.
    signal(stage.pid().await, Signal::SIGKILL);
    stage.settle("pod-c-0").await;
    stage.detach("pod-c-0").await;
    stage.settle("pod-c-0").await;
}

/// The kernel keeps each write of such a writer in a page of its own: sixteen bytes fill the pipe.
#[tokio::test]
async fn a_pipe_that_is_full_of_few_bytes_holds_up_nobody() {
    let stage = Stage::new();
    stage.attach("pod", "c").await;
    let mut pipe = OpenOptions::new()
        .write(true)
        .open(stage.paths.container_io("pod-c-0").join("stdout"))
        .unwrap();
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_DIRECT)).unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..100 {
            pipe.write_all(b"x").unwrap();
        }
    });
    eventually("all is written", || async {
        writer.is_finished().then_some(())
    })
    .await;
    writer.join().unwrap();
    stage.settle("pod-c-0").await;
    let log = std::fs::read_to_string(stage.paths.log("pod", "c", 0)).unwrap();
    assert_eq!(log.matches('x').count(), 100, "{log}");
    stage.detach("pod-c-0").await;
}

/// Such a writer waits for the rest of its line to be taken, whether or not the carrier can ask how full the pipe is.
#[tokio::test]
async fn a_pipe_that_cannot_be_opened_again_holds_up_nobody() {
    let stage = Stage::new();
    stage.attach("pod", "c").await;
    let path = stage.paths.container_io("pod-c-0").join("stdout");
    let mut pipe = OpenOptions::new().write(true).open(&path).unwrap();
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_DIRECT)).unwrap();
    std::fs::remove_file(&path).unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..100 {
            pipe.write_all(b"x").unwrap();
        }
    });
    eventually("all is written", || async {
        writer.is_finished().then_some(())
    })
    .await;
    writer.join().unwrap();
    let log = stage.paths.log("pod", "c", 0);
    eventually("all is in the log", || async {
        let log = std::fs::read_to_string(&log).unwrap();
        (log.matches('x').count() == 100).then_some(())
    })
    .await;
    stage.detach("pod-c-0").await;
}

#[tokio::test]
async fn a_log_that_cannot_be_rotated_loses_nothing() {
    /// With what stands before each, more than a log takes before it is rotated.
    const MANY: usize = 280_000;
    let stage = Stage::new();
    stage.attach("pod", "c").await;
    let log = stage.paths.log("pod", "c", 0);
    // What cannot be replaced by a file.
    let obstacle = log.with_extension("log.1");
    std::fs::create_dir_all(obstacle.join("x")).unwrap();
    Writer::start(&stage, "pod-c-0", MANY).finish().await;
    let last = format!(" F {MANY}\n");
    eventually("all is in the log", || async {
        let text = std::fs::read_to_string(&log).unwrap();
        text.ends_with(&last).then_some(())
    })
    .await;
    assert!(std::fs::metadata(&log).unwrap().len() > 10 << 20);
    stage.log_is_complete("pod", "c", MANY);
    // Once it can, it is: with what comes next, after the pause.
    std::fs::remove_dir_all(&obstacle).unwrap();
    let mut pipe = stage.pipe("pod-c-0");
    eventually("the log is rotated", || {
        pipe.write_all(b"more\n").unwrap();
        let is_rotated = obstacle.is_file();
        async move { is_rotated.then_some(()) }
    })
    .await;
    drop(pipe);
    stage.detach("pod-c-0").await;
}
