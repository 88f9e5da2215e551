//! Output that must arrive, whoever dies.

use barge_agent::{
    carrier::{
        keeper,
        logs::{self, LogOptions},
        protocol::Request,
    },
    runtime::Runtime,
};
use futures::StreamExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    machine::{eventually, on_a_machine},
    pods::{Pod, exited},
    traces::Traces,
};

const LINES: usize = 20_000;

/// Numbers in order; a batch may come twice, none may be missing.
fn complete(text: &str) {
    let mut expected = 1;
    for line in text.lines() {
        let number: usize = line
            .parse()
            .unwrap_or_else(|_| panic!("not a whole line: {line:?}"));
        assert!(number <= expected, "{expected} is missing before {number}");
        expected = expected.max(number + 1);
    }
    assert_eq!(expected, LINES + 1);
}

#[test]
fn nothing_is_lost_when_the_carrier_is_killed_in_mid_stream() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let script = format!(
            "for i in $(seq 20); do seq $(((i-1)*{0}+1)) $((i*{0})); sleep 0.05; done",
            LINES / 20
        );
        let spec = pod.spec("writer", 0, &script);
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let processes = machine.ctr(&["task", "ls"]);
        let log = pod.runtime.log_path(&spec.pod_uid, &spec.name, 0);
        let carrier = pod.runtime.carrier().clone();
        let watching = tokio::spawn(keeper::keep(carrier.clone(), |_, _| {}));
        let mut killed = 0;
        for kills in 1..=4_u64 {
            // Each time a good deal more has been written.
            eventually("the log has grown", || async {
                let size = tokio::fs::metadata(&log)
                    .await
                    .map_or(0, |metadata| metadata.len());
                (size > kills * 100_000).then_some(())
            })
            .await;
            // Nobody asks for a successor of the one that was killed before.
            killed = eventually("another carrier serves", || async {
                let reply = carrier.call(Request::Ping).await.ok()?;
                (reply.pid != killed).then_some(reply.pid)
            })
            .await;
            kill(
                Pid::from_raw(i32::try_from(killed).unwrap()),
                Signal::SIGKILL,
            )
            .unwrap();
        }
        assert_eq!(machine.ctr(&["task", "ls"]), processes);
        exited(&pod.runtime, &container.id).await;
        pod.runtime.remove_container(&container.id).await.unwrap();
        complete(&pod.output(&spec).await.0);
        watching.abort();
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn a_log_is_followed_across_control_and_carrier() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec(
            "slow",
            0,
            "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.02; done; printf end",
        );
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let finished = CancellationToken::new();
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let path = pod.runtime.log_path(&spec.pod_uid, &spec.name, 0);
        let mut followed = logs::read(path.clone(), options, finished.clone());
        let first = followed.next().await.unwrap().unwrap();
        assert_eq!(first.bytes, "line 1\n");
        exited(&pod.runtime, &container.id).await;
        pod.runtime.remove_container(&container.id).await.unwrap();
        finished.cancel();
        let rest: Vec<_> = followed.map(|entry| entry.unwrap().bytes).collect().await;
        assert_eq!(rest.len(), 40);
        assert_eq!(rest.last().unwrap(), "end");

        let tail = |tail, since| LogOptions {
            tail,
            since,
            ..LogOptions::default()
        };
        let read = async |options| -> Vec<String> {
            let stream = logs::read(path.clone(), options, CancellationToken::new());
            stream
                .map(|entry| String::from_utf8(entry.unwrap().bytes.to_vec()).unwrap())
                .collect()
                .await
        };
        assert_eq!(
            read(tail(Some(3), None)).await,
            ["line 39\n", "line 40\n", "end"]
        );
        assert_eq!(read(tail(Some(0), None)).await, Vec::<String>::new());
        assert_eq!(read(tail(Some(1000), None)).await.len(), 41);
        let now = jiff::Timestamp::now();
        assert_eq!(read(tail(None, Some(now))).await, Vec::<String>::new());
        assert_eq!(read(tail(None, Some(first.time))).await.len(), 41);
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn there_is_one_carrier_and_it_goes_when_it_carries_nothing() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let carrier = pod.runtime.carrier();
        let pid = carrier.ensure().await.unwrap().pid;
        let others = futures::future::join_all((0..5).map(|_| carrier.ensure())).await;
        assert!(
            others
                .iter()
                .all(|reply| reply.as_ref().unwrap().pid == pid)
        );
        pod.runtime
            .start_container(&pod.spec("c", 0, "sleep 1000"))
            .await
            .unwrap();
        let refused = carrier.shutdown().await.unwrap_err().to_string();
        assert!(refused.contains("1 containers"), "{refused}");
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        carrier.shutdown().await.unwrap();
        carrier.shutdown().await.unwrap();
        // Several at once start one.
        let new = futures::future::join_all((0..5).map(|_| carrier.ensure())).await;
        let pids: std::collections::BTreeSet<u32> = new
            .iter()
            .map(|reply| reply.as_ref().unwrap().pid)
            .collect();
        assert_eq!(pids.len(), 1);
        carrier.shutdown().await.unwrap();
    });
}

#[test]
fn the_last_words_of_a_program_show_when_it_ends() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec(
            "dies",
            0,
            "seq 3000; printf 'panic: at the disco' >&2; exit 2",
        );
        let container = pod.runtime.start_container(&spec).await.unwrap();
        exited(&pod.runtime, &container.id).await;
        pod.runtime.settle_log(&container.id).await.unwrap();
        // The container is there still, and so are its pipes.
        let (out, err) = pod.output(&spec).await;
        assert!(out.ends_with("\n3000\n"), "{out}");
        assert_eq!(err, "panic: at the disco");
        let log = pod.runtime.log_path(&spec.pod_uid, &spec.name, 0);
        let tail = LogOptions {
            tail: Some(1),
            ..LogOptions::default()
        };
        let last: Vec<_> = logs::read(log, tail, CancellationToken::new())
            .collect()
            .await;
        assert_eq!(last.len(), 1);
        assert!(machine.paths().container_io(&container.id).exists());
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}
