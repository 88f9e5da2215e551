//! A whole agent on a machine whose disk is full, and on one that was booted.
#![allow(clippy::panic)]

use std::{fs, io::Write};

use barge_proto::v1::{
    Assignment, Condition, Container, Node, NodeSpec, NodeStatus, ObjectMeta, Pod, PodSpec,
    PodStatus, Report, Welcome, manager_message::Message,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::time::Instant;

use super::*;
use crate::{
    desired::Touched,
    files::{RESERVE_BYTES, Reserve},
    testing::managers::{Accepted, Manager},
};

/// Until something that takes ten seconds at most has certainly happened.
const LONG: Duration = Duration::from_secs(100);

fn pod(uid: &str) -> Pod {
    Pod {
        metadata: Some(ObjectMeta {
            uid: uid.to_owned(),
            name: uid.to_owned(),
            namespace: "default".to_owned(),
            ..Default::default()
        }),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "web".to_owned(),
                image: "nginx".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> &'a Condition {
    conditions.iter().find(|c| c.r#type == kind).unwrap()
}

/// Takes and acknowledges reports until one is as it should be.
async fn until(session: &mut Accepted, what: &str, mut holds: impl FnMut(&Report) -> bool) {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < LONG, "waited in vain until {what}");
        let report = timeout(Duration::from_secs(25), session.report()).await;
        let report = report.unwrap_or_else(|_| panic!("no report until {what}"));
        session.ack(report.sequence).await;
        if holds(&report) {
            return;
        }
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_keeps_no_agent_from_its_managers() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing can be written where new files are made before they are renamed.
    for name in [
        "incarnation.tmp",
        "assigned/acted.tmp",
        "assigned/network.tmp",
    ] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    let mut manager = Manager::start().await;
    let stop = CancellationToken::new();
    let agent = tokio::spawn(run(options(folder.path(), &manager, &stop), stop.clone()));
    let mut session = manager.accept().await;
    session.hello().await;
    session.say(Message::Welcome(with_node())).await;
    session.assign(7, true, &["a"]).await;
    // The session goes on, and says what waits.
    until(&mut session, "told", |report| {
        let mut events = report.events.iter();
        events.any(|event| event.reason == "AssignmentNotSaved")
    })
    .await;
    manager.life.until_signed().await;
    assert!(!agent.is_finished());
    stop.cancel();
    agent.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_that_lacks_a_part_ends_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::start().await;
    let stop = CancellationToken::new();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(1_700_000_000_000));
    let runtime = Scripted::new(clock.clone());
    runtime.panic_in("network", 1);
    let options = options_on(runtime, clock, folder.path(), &manager, &stop);
    let agent = tokio::spawn(run(options, stop.clone()));
    let mut session = manager.accept().await;
    session.hello().await;
    session.say(Message::Welcome(with_node())).await;
    let end = timeout(LONG, agent).await.unwrap().unwrap().unwrap();
    let part = "pod network";
    assert_eq!(end, End::Broken { part });
    assert!(stop.is_cancelled());
}

fn with_node() -> Welcome {
    Welcome {
        node: Some(Node {
            metadata: Some(ObjectMeta {
                uid: "n".to_owned(),
                ..Default::default()
            }),
            spec: Some(NodeSpec {
                pod_cidr: "10.244.1.0/24".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A small file system in memory, until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = Some("size=48m");
        let none = None::<&str>;
        mount(none, folder.path(), Some("tmpfs"), MsFlags::empty(), size).unwrap();
        Self(folder)
    }

    /// Writes until there is no room left.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.path().join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn on_a_full_disk_the_session_goes_on_and_pods_are_deleted() {
    let disk = SmallDisk::new();
    let folder = disk.0.path();
    let mut manager = Manager::start().await;
    let stop = CancellationToken::new();
    let options = options(folder, &manager, &stop);
    let runtime = options.runtime.clone();
    let agent = tokio::spawn(run(options, stop.clone()));
    let mut session = manager.accept().await;
    let hello = session.whole_hello().await;
    let pressure = |status: &NodeStatus| condition(&status.conditions, "DiskPressure").clone();
    assert_eq!(pressure(&hello.status.unwrap()).status, "False");
    let reserve = folder.join("reserve");
    assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
    session.say(Message::Welcome(with_node())).await;
    let assignment = Assignment {
        revision: 7,
        full: true,
        pods: vec![pod("a"), pod("b")],
        ..Default::default()
    };
    session.say(Message::Assignment(assignment)).await;
    let runs = |uid: &'static str| {
        move |report: &Report| {
            let mut pods = report.pods.iter().filter(|pod| pod.uid == uid);
            pods.any(|pod| pod.status.as_ref().is_some_and(|s| s.phase == "Running"))
        }
    };
    until(&mut session, "b runs", runs("b")).await;
    disk.fill();
    let assignment = Assignment {
        revision: 8,
        removed_pod_uids: vec!["a".to_owned()],
        ..Default::default()
    };
    session.say(Message::Assignment(assignment)).await;
    until(&mut session, "a is gone", |report| {
        report.pods.iter().any(|pod| pod.uid == "a" && pod.gone)
    })
    .await;
    assert!(!reserve.exists(), "it was saved in the reserve's room");
    // The last block is taken. What is deleted now waits for room, and is told of.
    disk.fill();
    let assignment = Assignment {
        revision: 9,
        removed_pod_uids: vec!["b".to_owned()],
        ..Default::default()
    };
    session.say(Message::Assignment(assignment)).await;
    let (mut is_told, mut is_full) = (false, false);
    until(&mut session, "the node says so", |report| {
        let mut events = report.events.iter();
        is_told |= events.any(|event| event.reason == "AssignmentNotSaved");
        let node = report.node.as_ref().map(&pressure);
        is_full |= node.is_some_and(|c| c.status == "True" && c.reason == "DiskIsFull");
        is_told && is_full
    })
    .await;
    assert_eq!(runtime.list().await.unwrap().containers.len(), 1);
    fs::remove_file(folder.join("filler")).unwrap();
    until(&mut session, "b is gone", |report| {
        report.pods.iter().any(|pod| pod.uid == "b" && pod.gone)
    })
    .await;
    until(&mut session, "the pressure ends", |report| {
        let node = report.node.as_ref().map(&pressure);
        node.is_some_and(|c| c.status == "False")
    })
    .await;
    assert!(Reserve::of(folder).keep().unwrap());
    stop.cancel();
    agent.await.unwrap().unwrap();
    drop(disk);
}

#[tokio::test]
async fn after_a_boot_no_sign_goes_out_before_the_managers_know_that_nothing_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, proc) = (folder.path().join("data"), folder.path().join("proc"));
    fs::create_dir_all(proc.join("sys/kernel/random")).unwrap();
    fs::create_dir_all(&data_dir).unwrap();
    fs::write(proc.join("sys/kernel/random/boot_id"), "second").unwrap();
    fs::write(data_dir.join("boot"), "first").unwrap();
    let mut ready = pod("a");
    ready.status = Some(PodStatus {
        phase: "Running".to_owned(),
        conditions: vec![Condition {
            r#type: "Ready".to_owned(),
            status: "True".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    });
    let kept = Desired {
        pods: [("a".to_owned(), Arc::new(ready))].into(),
        ..Default::default()
    };
    let files = AssignmentFiles::open(&data_dir).unwrap();
    let touched = Touched {
        pods: true,
        network: true,
        ..Touched::default()
    };
    files.save("c1", &kept, touched).unwrap();
    let mut manager = Manager::start().await;
    let stop = CancellationToken::new();
    let mut options = options(&data_dir, &manager, &stop);
    options.sources.proc.clone_from(&proc);
    // Nothing of the pod is made meanwhile: its first word is about the boot.
    let agent = tokio::spawn(run(options, stop.clone()));
    let mut session = manager.accept().await;
    session.hello().await;
    session.welcome().await;
    let report = session.report().await;
    let status = report.pods[0].status.clone().unwrap();
    assert_eq!(condition(&status.conditions, "Ready").status, "False");
    // Twice as long as between two signs, and less than they may be held back.
    sleep(Duration::from_secs(1)).await;
    assert!(manager.life.signs().is_empty(), "it signed too early");
    session.ack(report.sequence).await;
    manager.life.until_signed().await;
    stop.cancel();
    agent.await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(data_dir.join("boot")).unwrap(), "second");
}
