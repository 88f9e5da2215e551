//! Disks that hang, are full or damaged; pods that have ended; and steps that take long.

use std::io::Read;

use barge_proto::v1::{ContainerStatus, ExecAction, Lifecycle, LifecycleHandler};
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{
    deletions::{RUNNING, stranger},
    *,
};

/// What a disk that works takes at most, here: ten times what it promises.
const LONG: Duration = Duration::from_secs(60);

/// The record of a pod cannot be written until the answer is called: whoever opens the file for that waits.
fn hang(machine: &Machine, uid: &str) -> impl FnOnce() + use<> {
    let folder = machine.folder.path().join("pods").join(uid);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("record.tmp");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    move || {
        let mut file = std::fs::File::open(&path).unwrap();
        // Or by the one that could not write it.
        let _ = std::fs::remove_file(path);
        let _ = file.read_to_end(&mut Vec::new());
    }
}

/// Waits by the machine's time: the test's own is paused.
pub(super) async fn really(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_only_the_pod_that_waits_for_it() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always"), pod("u2", "Always")]));
    agent.until_phase("u1", "Running").await;
    agent.until_phase("u2", "Running").await;
    let go_on = hang(&machine, "u1");
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    machine.runtime.exit(&container_id("u2", "web", 0), 1);
    let restarted = timeout(LONG, agent.until("u2", "restarted", restarts(1))).await;
    assert!(restarted.is_ok(), "u2 waits for the record of u1");
    let started = |call: &String| call == "start web/1";
    let starts = machine
        .runtime
        .calls()
        .iter()
        .filter(|c| started(c))
        .count();
    assert_eq!(starts, 1, "the number of u1's next attempt is not durable");
    // It goes on with an error, and is written again.
    tokio::task::spawn_blocking(go_on).await.unwrap();
    agent.until("u1", "restarted", restarts(1)).await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_record_cannot_be_saved_says_so_and_can_be_deleted() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent.until_phase("u1", "Running").await;
    let folder = machine.folder.path().join("pods/u1");
    std::fs::create_dir_all(folder.join("record.tmp")).unwrap();
    machine.runtime.exit(&container_id("u1", "web", 0), 7);
    let ended = |report: &PodReport| state(report).terminated.is_some_and(|t| t.exit_code == 7);
    agent.until("u1", "told to have ended", ended).await;
    agent.assign(assigned(1, [ending(pod("u1", "Always"), 1)]));
    agent.until_gone("u1").await;
    assert!(machine.runtime.is_empty());
    assert!(agent.events.contains(&"RecordNotSaved".to_owned()));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ended_gives_back_its_network_and_keeps_its_status() {
    let machine = Machine::new();
    let desired = assigned(1, [pod("u1", "Never")]);
    let mut agent = machine.agent(desired.clone());
    agent.until_phase("u1", "Running").await;
    machine.runtime.exit(&container_id("u1", "web", 0), 0);
    agent.until_phase("u1", "Succeeded").await;
    let released = "release_sandbox u1".to_owned();
    really("the network is given back", || {
        machine.runtime.calls().contains(&released)
    })
    .await;
    assert!(machine.runtime.containers().is_empty());
    agent.end().await;
    // The next agent knows, too, and neither runs it again nor tries once more.
    let mut agent = machine.agent(desired);
    agent.until_phase("u1", "Succeeded").await;
    agent.assign(assigned(1, [ending(pod("u1", "Never"), 1)]));
    agent.until_gone("u1").await;
    let calls = machine.runtime.calls();
    let count = |call: &str| calls.iter().filter(|c| *c == call).count();
    assert_eq!(
        (count("start web/0"), count(&released)),
        (1, 1),
        "{calls:?}"
    );
    assert!(machine.runtime.is_empty());
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_not_there_ends_its_container() {
    let machine = Machine::new();
    machine.runtime.fail("start", "StartError");
    let mut agent = machine.agent(assigned(1, [pod("u1", "Never")]));
    agent.until_phase("u1", "Failed").await;
    let ended = state(&agent.reports["u1"]).terminated.unwrap();
    assert_eq!((ended.exit_code, &*ended.reason), (128, "StartError"));
    assert_eq!(ended.message, "start fails");
    agent.end().await;

    let machine = Machine::new();
    for _ in 0..3 {
        machine.runtime.fail("start", "StartError");
    }
    let mut agent = machine.agent(assigned(1, [pod("u2", "Always")]));
    let crash_loop = waits_for("CrashLoopBackOff");
    agent.until("u2", "in a crash loop", crash_loop).await;
    agent.until("u2", "started at last", restarts(3)).await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_takes_long_delays_no_other_container() {
    let machine = Machine::new();
    machine.runtime.stall_pulls_of("slow");
    let mut both = pod("u1", "Always");
    let containers = &mut both.spec.as_mut().unwrap().containers;
    containers.push(Container {
        name: "side".into(),
        image: "slow".into(),
        ..Default::default()
    });
    let mut agent = machine.agent(assigned(1, [both.clone()]));
    agent.until("u1", "running its first", restarts(0)).await;
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    agent.until("u1", "restarted", restarts(1)).await;
    // And neither its end.
    agent.assign(assigned(1, [ending(both, 1)]));
    agent.until_gone("u1").await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_concerns_its_pod_only_and_runs_nothing_twice() {
    let machine = Machine::new();
    for uid in ["u1", "u2"] {
        let folder = machine.folder.path().join("pods").join(uid);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("record"), b"\xff\xff\xff").unwrap();
    }
    // Both ran, as far as the managers know; of one something is left.
    let ran = |uid: &str| {
        let mut pod = pod(uid, "Never");
        pod.status = Some(PodStatus {
            phase: "Running".into(),
            container_statuses: vec![ContainerStatus {
                name: "web".into(),
                container_id: format!("containerd://{}", container_id(uid, "web", 0)),
                ..Default::default()
            }],
            ..Default::default()
        });
        pod
    };
    machine.runtime.put(stranger("u2", RUNNING));
    let mut agent = machine.agent(assigned(1, [ran("u1"), ran("u2"), pod("u3", "Always")]));
    agent.until_phase("u3", "Running").await;
    agent.until_phase("u1", "Failed").await;
    let ended = state(&agent.reports["u1"]).terminated.unwrap();
    assert_eq!(ended.reason, "ContainerStatusUnknown");
    agent.until_phase("u2", "Running").await;
    assert!(pids(&machine).contains(&77));
    assert!(agent.events.contains(&"RecordUnreadable".to_owned()));
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_notes_are_damaged_is_set_aside_with_its_address() {
    is_set_aside(|runtime| runtime.damage("u1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_notes_are_gone_is_set_aside_with_its_address() {
    is_set_aside(|runtime| runtime.lose("u1")).await;
}

async fn is_set_aside(spoil: impl Fn(&Scripted)) {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always"), pod("u2", "Always")]));
    agent.until_phase("u1", "Running").await;
    agent.until_phase("u2", "Running").await;
    let before = pids(&machine);
    let known = status(&agent.reports["u1"]);
    agent.end().await;
    spoil(&machine.runtime);
    let mut told = pod("u1", "Always");
    told.status = Some(known.clone());
    let mut agent = machine.agent(assigned(1, [told, pod("u2", "Always")]));
    agent.until_phase("u2", "Running").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    agent.until("u2", "there", |_| true).await;
    assert!(agent.events.contains(&"PodSetAside".to_owned()));
    assert_eq!(pids(&machine), before);
    let report = agent.reports.get("u1").map_or(known.clone(), status);
    assert_eq!(report.pod_ip, known.pod_ip, "it serves under that");
    agent.assign(assigned(
        1,
        [ending(pod("u1", "Always"), 1), pod("u2", "Always")],
    ));
    agent.until_gone("u1").await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_fails_is_started_again_after_a_pause() {
    let machine = Machine::new();
    machine.runtime.panic_in("create_sandbox", 3);
    let begin = tokio::time::Instant::now();
    let mut agent = machine.agent(assigned(1, [pod("u1", "Always")]));
    agent.until_phase("u1", "Running").await;
    // 1, 2 and 4 s.
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(7), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    agent.assign(assigned(1, [pod("u1", "Always"), pod("u2", "Always")]));
    agent.until_phase("u2", "Running").await;
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_grace_without_end_ends_nothing_but_waiting() {
    let machine = Machine::new();
    let mut endless = pod("u1", "Always");
    let spec = endless.spec.as_mut().unwrap();
    spec.termination_grace_period_seconds = Some(i64::MAX);
    spec.containers[0].lifecycle = Some(Lifecycle {
        pre_stop: Some(LifecycleHandler {
            exec: Some(ExecAction {
                command: vec!["bye".into()],
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let mut agent = machine.agent(assigned(1, [endless.clone()]));
    agent.until_phase("u1", "Running").await;
    agent.assign(assigned(1, [ending(endless, i64::MAX)]));
    agent.until_gone("u1").await;
    agent.end().await;
    let calls = machine.runtime.calls();
    let stops = calls.iter().filter(|it| it.starts_with("stop")).count();
    assert_eq!(stops, 1, "{calls:?}");
    assert_eq!(machine.runtime.violations(), [""; 0]);
}
