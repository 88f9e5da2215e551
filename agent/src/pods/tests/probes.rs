//! What probes do to pods: readiness, restarts, and what a bad time of the node does not do.

use barge_proto::v1::{ContainerStatus, ExecAction, Probe};

use super::*;
use crate::probes::{self, Probed, Prober, remembered::File, state::Verdict};

/// Runs a program each second; two failures in a row count.
fn probe(program: &str) -> Option<Probe> {
    Some(Probe {
        exec: Some(ExecAction {
            command: vec![program.into()],
        }),
        period_seconds: 1,
        timeout_seconds: 1,
        success_threshold: 1,
        failure_threshold: 2,
        ..Default::default()
    })
}

fn probed(uid: &str, change: impl Fn(&mut Container)) -> Pod {
    let mut pod = pod(uid, "Always");
    change(&mut pod.spec.as_mut().unwrap().containers[0]);
    pod
}

fn container(report: &PodReport) -> ContainerStatus {
    let status = status(report);
    status
        .container_statuses
        .into_iter()
        .next()
        .unwrap_or_default()
}

fn is(ready: bool) -> impl Fn(&PodReport) -> bool {
    move |report| {
        let said = |kind: &str| {
            let status = status(report);
            let found = status.conditions.into_iter().find(|it| it.r#type == kind);
            found.is_some_and(|it| it.status == if ready { "True" } else { "False" })
        };
        let running = state(report).running.is_some();
        running && container(report).ready == ready && said("Ready") && said("ContainersReady")
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_probe_within_seconds() {
    let machine = Machine::new();
    machine.runtime.exec_exits("ready", 1);
    let pod = probed("u1", |it| it.readiness_probe = probe("ready"));
    let mut agent = machine.agent(assigned(1, [pod]));
    agent.until("u1", "unready", is(false)).await;
    assert_eq!(container(&agent.reports["u1"]).started, Some(true));
    for ready in [true, false, true] {
        machine.runtime.exec_exits("ready", i32::from(!ready));
        let begin = machine.clock.now_ms();
        agent.until("u1", "as the probe says", is(ready)).await;
        let took = machine.clock.now_ms() - begin;
        assert!(took <= 3000, "{took} ms");
    }
    let said = "Unhealthy: Readiness probe of web failed: exit code 1: ready says 1";
    assert!(
        agent.messages.iter().any(|it| it == said),
        "{:?}",
        agent.messages
    );
    assert_eq!(container(&agent.reports["u1"]).restart_count, 0);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_not_called_ready_before_its_first_success() {
    let machine = Machine::new();
    machine.runtime.exec_takes(Duration::from_millis(900));
    let pod = probed("u1", |it| it.readiness_probe = probe("ready"));
    let mut agent = machine.agent(assigned(1, [pod]));
    let begin = machine.clock.now_ms();
    let running = |report: &PodReport| state(report).running.is_some();
    agent.until("u1", "running", running).await;
    assert!(!container(&agent.reports["u1"]).ready);
    agent.until("u1", "ready", is(true)).await;
    assert!(machine.clock.now_ms() - begin >= 900);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_liveness_probe_that_fails_restarts_the_container_with_its_own_grace() {
    let machine = Machine::new();
    machine.runtime.ignore_term();
    let pod = probed("u1", |it| {
        it.liveness_probe = probe("alive").map(|probe| Probe {
            termination_grace_period_seconds: Some(2),
            ..probe
        });
    });
    let mut agent = machine.agent(assigned(1, [pod]));
    agent.until("u1", "ready", is(true)).await;
    machine.runtime.exec_exits("alive", 3);
    let ended = |report: &PodReport| state(report).running.is_none();
    agent.until("u1", "ended", ended).await;
    machine.runtime.exec_exits("alive", 0);
    agent.until("u1", "restarted", restarts(1)).await;
    let stop = format!("stop {} 2", container_id("u1", "web", 0));
    assert!(machine.runtime.calls().contains(&stop), "its own grace");
    for said in [
        "Unhealthy: Liveness probe of web failed: exit code 3: alive says 3",
        "Killing: Stopping container web, because its liveness probe failed",
    ] {
        assert!(
            agent.messages.iter().any(|it| it == said),
            "{said}: {:?}",
            agent.messages
        );
    }
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_holds_the_others_back_and_its_failure_restarts() {
    let machine = Machine::new();
    machine.runtime.exec_exits("started", 1);
    machine.runtime.exec_exits("alive", 1);
    let pod = probed("u1", |it| {
        it.startup_probe = probe("started");
        it.liveness_probe = probe("alive");
    });
    let mut agent = machine.agent(assigned(1, [pod]));
    let starting = |report: &PodReport| {
        let container = container(report);
        let running = container.state.is_some_and(|it| it.running.is_some());
        running && container.started == Some(false) && !container.ready
    };
    agent.until("u1", "starting", starting).await;
    agent.until("u1", "restarted", restarts(1)).await;
    let said = "Killing: Stopping container web, because its startup probe failed";
    assert!(
        agent.messages.iter().any(|it| it == said),
        "{:?}",
        agent.messages
    );
    let liveness = |it: &String| it.contains("Liveness");
    assert!(!agent.messages.iter().any(liveness), "held back until then");
    machine.runtime.exec_exits("alive", 0);
    machine.runtime.exec_exits("started", 0);
    agent.until("u1", "ready", is(true)).await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_replaced_takes_no_ready_pod_out() {
    let machine = Machine::new();
    let pod = probed("u1", |it| {
        it.startup_probe = probe("started");
        it.readiness_probe = probe("ready");
    });
    let desired = assigned(1, [pod]);
    let mut agent = machine.agent(desired.clone());
    agent.until("u1", "ready", is(true)).await;
    // What is known is written at most once a second.
    tokio::time::sleep(Duration::from_secs(5)).await;
    agent.kill();
    // The managers have of it what they had at the start, and no attempt ends for a while.
    machine.runtime.exec_takes(Duration::from_secs(3600));
    let mut agent = machine.agent(desired.clone());
    let running = |report: &PodReport| state(report).running.is_some();
    agent.until("u1", "running", running).await;
    assert!(is(true)(&agent.reports["u1"]), "{:?}", agent.reports["u1"]);
    // From then on its results count.
    agent.until("u1", "unready", is(false)).await;
    assert_eq!(container(&agent.reports["u1"]).started, Some(true));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_older_than_what_the_managers_know_takes_no_ready_pod_out() {
    let machine = Machine::new();
    let pod = probed("u1", |it| {
        it.readiness_probe = probe("ready").map(|probe| Probe {
            failure_threshold: 100,
            ..probe
        });
    });
    let mut agent = machine.agent(assigned(1, [pod.clone()]));
    agent.until("u1", "ready", is(true)).await;
    machine.runtime.exec_exits("ready", 1);
    agent.until("u1", "unready", is(false)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let file = machine.folder.path().join("probes");
    let older = std::fs::read(&file).unwrap();
    machine.runtime.exec_exits("ready", 0);
    agent.until("u1", "ready", is(true)).await;
    let told = agent.reports["u1"].status.clone();
    tokio::time::sleep(Duration::from_secs(5)).await;
    agent.kill();
    // The disk was full: the last write is missing.
    std::fs::write(&file, older).unwrap();
    machine.runtime.exec_takes(Duration::from_secs(3600));
    let pod = Pod {
        status: told,
        ..pod
    };
    let agent = machine.agent(assigned(1, [pod]));
    // A status is reported when it differs from what the managers have.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let reported = agent.outbox.take().map(|report| report.pods);
    let unready = reported.into_iter().flatten().find(is(false));
    assert_eq!(unready, None);
    agent.end().await;
}

/// The workers end first, and take their containers off the board.
#[tokio::test]
async fn an_agent_that_stops_keeps_what_it_knows() {
    let machine = Machine::new();
    let outbox = Arc::new(Outbox::default());
    let prober = Prober::new(probes::Options {
        runtime: machine.runtime.clone(),
        clock: machine.clock.clone(),
        recorder: Recorder::new(outbox, machine.clock.clone()),
        data_dir: Path::to_owned(machine.folder.path()),
        node: Box::new(|| None),
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn(prober.clone().run(stop.clone()));
    let pod = probed("u1", |it| it.readiness_probe = probe("ready"));
    let ready = Verdict {
        started: true,
        ready: true,
        failed: None,
    };
    let mut known = prober.register("u1", Arc::default());
    let containers = &pod.spec.as_ref().unwrap().containers;
    known.sync(
        &pod,
        &[Probed {
            id: "u1-web-0",
            started_ms: machine.clock.now_ms(),
            container: &containers[0],
            ip: None,
            reported: Some(ready),
        }],
    );
    // Another pod that goes has all of it written.
    drop(prober.register("u2", Arc::default()));
    let file = File::new(machine.folder.path());
    let kept = async || file.load().await.unwrap().contains_key("u1-web-0");
    timeout(Duration::from_secs(50), async {
        while !kept().await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    // Past the pause between two writes: the next one would come at once.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.cancel();
    drop(known);
    running.await.unwrap();
    for _ in 0..50 {
        assert!(kept().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stood_still_ends_no_container() {
    let machine = Machine::new();
    machine.runtime.exec_takes(Duration::from_millis(500));
    let pod = probed("u1", |it| {
        it.liveness_probe = probe("alive").map(|probe| Probe {
            failure_threshold: 1,
            ..probe
        });
    });
    let mut agent = machine.agent(assigned(1, [pod]));
    agent.until("u1", "ready", is(true)).await;
    for _ in 0..20 {
        // In the middle of an attempt, whose time is over when the process goes on.
        let before = execs(&machine);
        while execs(&machine) == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        machine.runtime.exec_exits("alive", 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        machine.runtime.exec_exits("alive", 0);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let report = &agent.reports["u1"];
    assert!(is(true)(report), "{report:?}");
    assert_eq!(pids(&machine).len(), 1);
    assert!(
        !machine
            .runtime
            .calls()
            .iter()
            .any(|it| it.starts_with("stop"))
    );
    agent.end().await;
}

fn execs(machine: &Machine) -> usize {
    let calls = machine.runtime.calls();
    calls.iter().filter(|it| it.starts_with("exec")).count()
}

#[tokio::test(start_paused = true)]
async fn ten_programs_run_at_a_time_and_late_ones_are_no_failures() {
    let machine = Machine::new();
    machine.runtime.exec_takes(Duration::from_millis(900));
    let pods = (0..40).map(|n| {
        probed(&format!("u{n}"), |it| {
            it.liveness_probe = probe("alive");
            it.readiness_probe = probe("ready");
        })
    });
    let mut desired = assigned(1, pods);
    desired.welcome = Some(Arc::new(Welcome {
        node: Some(Node::default()),
        ..Default::default()
    }));
    let mut agent = machine.agent(desired);
    for n in 0..40 {
        let uid = format!("u{n}");
        agent.until(&uid, "ready", is(true)).await;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(machine.runtime.most_execs(), 10);
    // A report more, and with it all events.
    machine.runtime.exit(&container_id("u0", "web", 0), 1);
    agent.until("u0", "restarted", restarts(1)).await;
    let late = |it: &String| it.starts_with("ProbesLate: ");
    assert!(agent.messages.iter().any(late), "{:?}", agent.messages);
    assert!(
        !machine
            .runtime
            .calls()
            .iter()
            .any(|it| it.starts_with("stop"))
    );
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_cannot_run_programs_ends_no_container() {
    let machine = Machine::new();
    let pod = probed("u1", |it| it.liveness_probe = probe("alive"));
    let mut agent = machine.agent(assigned(1, [pod]));
    agent.until("u1", "ready", is(true)).await;
    for _ in 0..30 {
        machine.runtime.fail("exec", "RuntimeUnavailable");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(execs(&machine) > 30);
    assert!(
        !machine
            .runtime
            .calls()
            .iter()
            .any(|it| it.starts_with("stop"))
    );
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_waits_for_its_turn_waits_once() {
    let machine = Machine::new();
    machine.runtime.exec_takes(Duration::from_millis(2000));
    let pods = (0..30).map(|n| {
        probed(&format!("u{n}"), |it| {
            let slow = || {
                probe("alive").map(|probe| Probe {
                    timeout_seconds: 10,
                    ..probe
                })
            };
            it.liveness_probe = slow();
            it.readiness_probe = slow();
        })
    });
    let mut agent = machine.agent(assigned(1, pods));
    for n in 0..30 {
        agent.until(&format!("u{n}"), "ready", is(true)).await;
    }
    let before = machine.runtime.calls();
    // Ten at a time, two seconds each: 60 probes have one turn in twelve seconds.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let calls = machine.runtime.calls().split_off(before.len());
    let first = format!("exec {}", container_id("u0", "web", 0));
    let turns = calls.iter().filter(|it| **it == first).count();
    assert!(
        (18..=22).contains(&turns),
        "{turns} turns of its two probes"
    );
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_called_ready_only_after_that_is_on_disk() {
    let machine = Machine::new();
    machine.runtime.exec_takes(Duration::from_millis(7));
    let uids: Vec<String> = (0..8).map(|number| format!("u{number}")).collect();
    // One after the other, closer together than writes that wait for a while.
    let mut pods = Vec::new();
    let mut agent = machine.agent(assigned(1, []));
    for uid in &uids {
        pods.push(probed(uid, |it| it.readiness_probe = probe("ready")));
        agent.assign(assigned(1, pods.clone()));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for uid in &uids {
        agent.until(uid, "ready", is(true)).await;
        let kept = std::fs::read(machine.folder.path().join("probes"));
        let kept = File::decode(&kept.unwrap_or_default()).unwrap();
        let id = container_id(uid, "web", 0);
        let ready = kept.get(&id).is_some_and(|verdict| verdict.ready);
        assert!(ready, "{id} was called ready, and on disk is {kept:?}");
    }
    agent.end().await;
}
