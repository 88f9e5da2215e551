//! Programs that somebody talks with, and connections into pods.

use std::{
    fs,
    time::{Duration, Instant},
};

use barge_agent::runtime::{
    Container, PROGRAM_NOT_EXECUTABLE, PROGRAM_NOT_FOUND, Program, Running, Runtime, TerminalSize,
    containerd::Containerd,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    machine::{DEADLINE, Machine, eventually, on_a_machine, run},
    pods::Pod,
};

fn script(text: &str) -> Program {
    Program {
        command: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        ..Program::default()
    }
}

/// Somebody waits for it.
fn somebody() -> CancellationToken {
    CancellationToken::new()
}

async fn text(mut output: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let read = timeout(DEADLINE, output.read_to_end(&mut bytes)).await;
    read.expect("the output ends").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn code(running: &Running) -> i32 {
    let ended = timeout(DEADLINE, running.control.wait()).await;
    ended.expect("the program ends").unwrap()
}

/// Reads until this has come.
async fn hear(output: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let mut heard = String::new();
    let reading = async {
        let mut piece = [0; 1024];
        while !heard.contains(wanted) {
            let bytes = output.read(&mut piece).await.unwrap();
            assert!(bytes > 0, "the output ended after {heard:?}");
            heard.push_str(&String::from_utf8_lossy(&piece[..bytes]));
        }
    };
    let read = timeout(DEADLINE, reading).await;
    assert!(read.is_ok(), "no {wanted:?} in time");
    heard
}

/// Nothing of programs is left: no pipes, and the container's process alone.
async fn tidy(machine: &Machine, container: &Container) {
    let execs = machine.paths().programs();
    eventually("all pipes are gone", || async {
        let left = fs::read_dir(&execs).map_or(0, |folder| folder.count());
        (left == 0).then_some(())
    })
    .await;
    eventually("the container is alone", || async {
        let tasks = machine.ctr(&["task", "ps", &container.id]);
        (tasks.lines().count() == 2).then_some(())
    })
    .await;
}

async fn remove(pod: &Pod, container: &Container) {
    let stopped = pod.runtime.stop_container(&container.id, Duration::ZERO);
    stopped.await.unwrap();
    pod.runtime.remove_container(&container.id).await.unwrap();
    let uid = &pod.sandbox.pod_uid;
    pod.runtime.remove_sandbox(uid).await.unwrap();
}

#[test]
fn a_program_is_talked_with() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("main", 0, "exec sleep 1000000");
        let container = pod.runtime.start_container(&spec).await.unwrap();
        streams(&pod.runtime, &container.id).await;
        signals(&pod.runtime, &container.id).await;
        terminals(&pod.runtime, &container.id).await;
        refusals(&pod.runtime, &container.id).await;
        gone_clients(&pod.runtime, &container.id).await;
        tidy(&machine, &container).await;
        remove(&pod, &container).await;
    });
}

async fn streams(runtime: &Containerd, id: &str) {
    // Both outputs by themselves, an input that is empty, an exit code.
    let program = script("cat; echo out; echo err >&2; exit 3");
    let mut running = runtime.attend(id, &program, &somebody()).await.unwrap();
    assert!(running.stdin.is_none());
    let (out, err) = (&mut running.stdout, running.stderr.take().unwrap());
    let (out, err) = tokio::join!(text(out), text(err));
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    assert_eq!(code(&running).await, 3);
    running.control.end().await;

    // More than pipes hold, there and back, and the end of the input.
    let program = Program {
        stdin: true,
        ..script("busybox wc -c; seq 1000000")
    };
    let mut running = runtime.attend(id, &program, &somebody()).await.unwrap();
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 3 << 20]).await.unwrap();
    drop(stdin);
    running.control.close_stdin().await.unwrap();
    let out = text(&mut running.stdout).await;
    let mut lines = out.lines();
    assert_eq!(lines.next().map(str::trim), Some("3145728"));
    assert_eq!(
        (lines.clone().count(), lines.last()),
        (1_000_000, Some("1000000"))
    );
    assert_eq!(code(&running).await, 0);
    running.control.end().await;

    // An input that the program closes.
    let program = Program {
        stdin: true,
        ..script("exec 0<&-; sleep 1; exit 5")
    };
    let mut running = runtime.attend(id, &program, &somebody()).await.unwrap();
    let mut stdin = running.stdin.take().unwrap();
    let writing = async { while stdin.write_all(&[b'x'; 4096]).await.is_ok() {} };
    let code = tokio::select! {
        code = code(&running) => code,
        () = async { writing.await; std::future::pending().await } => unreachable!(),
    };
    assert_eq!(code, 5);
    running.control.end().await;

    // What somebody holds on to has no end, and the program has one.
    let program = script("sleep 5 & echo begun; exit 6");
    let mut running = runtime.attend(id, &program, &somebody()).await.unwrap();
    hear(&mut running.stdout, "begun\n").await;
    assert_eq!(self::code(&running).await, 6);
    running.control.end().await;
}

async fn signals(runtime: &Containerd, id: &str) {
    let mut running = runtime
        .attend(
            id,
            &script("trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.1; done"),
            &somebody(),
        )
        .await
        .unwrap();
    hear(&mut running.stdout, "ready\n").await;
    running.control.signal(2).await.unwrap();
    hear(&mut running.stdout, "int\n").await;
    assert_eq!(code(&running).await, 7);
    running.control.end().await;
    let sleep = Program {
        command: vec!["sleep".to_owned(), "1000000".to_owned()],
        ..Program::default()
    };
    let running = runtime.attend(id, &sleep, &somebody()).await.unwrap();
    running.control.signal(9).await.unwrap();
    assert_eq!(code(&running).await, 137);
    // One that has ended takes no signal, and that is no error.
    running.control.signal(15).await.unwrap();
    running.control.end().await;
}

async fn terminals(runtime: &Containerd, id: &str) {
    let program = Program {
        stdin: true,
        tty: true,
        size: Some(TerminalSize {
            columns: 91,
            rows: 17,
        }),
        command: vec!["/bin/sh".to_owned()],
    };
    let mut running = runtime.attend(id, &program, &somebody()).await.unwrap();
    assert!(running.stderr.is_none());
    let mut stdin = running.stdin.take().unwrap();
    stdin
        .write_all(b"busybox stty size; echo $TERM >&2\n")
        .await
        .unwrap();
    let heard = hear(&mut running.stdout, "xterm\r\n").await;
    assert!(heard.contains("17 91\r\n"), "{heard:?}");
    let size = TerminalSize {
        columns: 120,
        rows: 40,
    };
    running.control.resize(size).await.unwrap();
    stdin.write_all(b"busybox stty size\n").await.unwrap();
    hear(&mut running.stdout, "40 120\r\n").await;
    // Ctrl-C ends what runs in the foreground, and Ctrl-D the shell.
    let sleeps = b"sh -c 'echo begun; exec sleep 1000000'\n";
    stdin.write_all(sleeps).await.unwrap();
    hear(&mut running.stdout, "begun\r\n").await;
    stdin.write_all(b"\x03").await.unwrap();
    stdin.write_all(b"echo $?.\n").await.unwrap();
    hear(&mut running.stdout, "130.\r\n").await;
    stdin.write_all(b"\x04").await.unwrap();
    text(&mut running.stdout).await;
    assert_eq!(code(&running).await, 0);
    running.control.end().await;
}

async fn refusals(runtime: &Containerd, id: &str) {
    for (program, reason) in [
        ("nope", PROGRAM_NOT_FOUND),
        ("/bin/nope", PROGRAM_NOT_FOUND),
        ("/etc", PROGRAM_NOT_EXECUTABLE),
    ] {
        let wanted = Program {
            command: vec![program.to_owned()],
            ..Program::default()
        };
        let Err(error) = runtime.attend(id, &wanted, &somebody()).await else {
            panic!("{program} runs");
        };
        assert_eq!(error.reason, reason, "{error}");
        assert!(error.message.contains(program), "{error}");
    }
    let Err(error) = runtime
        .attend("nothing-0", &script("true"), &somebody())
        .await
    else {
        panic!("it runs in nothing");
    };
    assert!(error.message.contains("not there"), "{error}");
}

/// Programs whose clients go end soon, whatever they do, with what they have begun.
async fn gone_clients(runtime: &Containerd, id: &str) {
    let stubborn = "trap '' TERM HUP; sleep 1000000 & echo ready; while :; do sleep 0.1; done";
    for tty in [false, true] {
        let program = Program {
            tty,
            stdin: true,
            ..script(stubborn)
        };
        let mut running = runtime.attend(id, &program, &somebody()).await.unwrap();
        hear(&mut running.stdout, "ready").await;
        let begun = Instant::now();
        running.control.end().await;
        assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
    }
    // One that nobody reads stands still, and ends all the same; here in the background.
    let mut running = runtime
        .attend(id, &script("echo ready; busybox yes"), &somebody())
        .await
        .unwrap();
    hear(&mut running.stdout, "ready").await;
    drop(running);
    // And one for which nobody waits any more before it runs.
    let sleep = script("sleep 1000000");
    let gone = somebody();
    let nobody = runtime.attend(id, &sleep, &gone);
    let _ = timeout(Duration::from_millis(10), nobody).await;
}

#[test]
fn programs_of_an_agent_that_was_killed_are_ended_by_the_next_one() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("main", 0, "exec sleep 1000000");
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let program = script("trap '' TERM HUP; sleep 1000000 & echo ready; sleep 1000000");
        let mut running = pod
            .runtime
            .attend(&container.id, &program, &somebody())
            .await
            .unwrap();
        hear(&mut running.stdout, "ready").await;
        let probe = pod
            .runtime
            .exec(&container.id, &program.command, DEADLINE * 10);
        // Both are left by an agent that can do nothing about them.
        std::mem::forget(running);
        let _ = timeout(Duration::from_secs(1), probe).await;
        let tasks = machine.ctr(&["task", "ps", &container.id]);
        assert!(tasks.lines().count() > 4, "{tasks}");
        // One of an agent that had its pipes on disk: the names are the same.
        let earlier = machine.paths().earlier_programs();
        let mut places = fs::read_dir(machine.paths().programs()).unwrap();
        let place = places.next().unwrap().unwrap();
        fs::create_dir_all(&earlier).unwrap();
        run(
            "mv",
            &[place.path().to_str().unwrap(), earlier.to_str().unwrap()],
        );
        machine.runtime().recover().await.unwrap();
        tidy(&machine, &container).await;
        eventually("all pipes on disk are gone", || async {
            (!earlier.exists()).then_some(())
        })
        .await;
        let found = pod.runtime.list().await.unwrap();
        assert_eq!(found.containers[0].state, container.state);
        remove(&pod, &container).await;
    });
}

#[test]
fn a_program_is_not_begun_when_its_client_went_while_containerd_hung() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("main", 0, "exec sleep 1000000");
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let begins = script("echo > /dev/shm/begun; sleep 1000000");
        let probe = begins.command.clone();
        let stopped = machine.stop_containerd();
        let soon = Duration::from_millis(500);
        let nobody = somebody();
        let (attended, cancelled, probed) = tokio::join!(
            timeout(soon, pod.runtime.attend(&container.id, &begins, &nobody)),
            async {
                let gone = somebody();
                let begun = pod.runtime.attend(&container.id, &begins, &gone);
                let leave = async {
                    tokio::time::sleep(soon).await;
                    gone.cancel();
                };
                tokio::join!(begun, leave).0
            },
            timeout(soon, pod.runtime.exec(&container.id, &probe, DEADLINE)),
        );
        assert!(attended.is_err() && cancelled.is_err() && probed.is_err());
        drop(stopped);
        // Those that come later run, one after the other, and find that the others did not.
        for _ in 0..3 {
            let look = script("busybox ls /dev/shm");
            let look = pod.runtime.exec(&container.id, &look.command, DEADLINE);
            let found = look.await.unwrap();
            assert_eq!((found.exit_code, found.output), (Some(0), Vec::new()));
        }
        tidy(&machine, &container).await;
        remove(&pod, &container).await;
    });
}

/// A disk at the data folder that takes no writes, as one that hangs, until this is dropped.
struct Hung(String);

impl Hung {
    fn new(disk: &str) -> Self {
        run("fsfreeze", &["--freeze", disk]);
        Self(disk.to_owned())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze", &self.0]);
    }
}

#[test]
fn programs_run_while_the_disk_of_the_data_folder_hangs() {
    on_a_machine(|machine| async move {
        let at = |name: &str| machine.path(name).display().to_string();
        let (image, data) = (at("disk"), at("data"));
        run("truncate", &["-s", "64M", &image]);
        run("mkfs.ext4", &["-q", &image]);
        fs::create_dir(&data).unwrap();
        run("mount", &["-o", "loop", &image, &data]);
        machine.runtime().recover().await.unwrap();
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("main", 0, "exec sleep 1000000");
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let id = &container.id;

        let hung = Hung::new(&data);
        let programs = async {
            let program = Program {
                stdin: true,
                ..script("cat; echo out; exit 3")
            };
            let mut running = pod.runtime.attend(id, &program, &somebody()).await.unwrap();
            let mut stdin = running.stdin.take().unwrap();
            stdin.write_all(b"in\n").await.unwrap();
            drop(stdin);
            running.control.close_stdin().await.unwrap();
            assert_eq!(text(&mut running.stdout).await, "in\nout\n");
            assert_eq!(code(&running).await, 3);
            running.control.end().await;
            let probe = ["echo", "probed"].map(str::to_owned);
            let probed = pod.runtime.exec(id, &probe, DEADLINE).await.unwrap();
            assert_eq!(probed.exit_code, Some(0));
            assert_eq!(probed.output, b"probed\n");
            // Another agent ends what this one leaves, while the disk hangs.
            let program = script("trap '' TERM HUP; echo ready; sleep 1000000");
            let mut left = pod.runtime.attend(id, &program, &somebody()).await.unwrap();
            hear(&mut left.stdout, "ready").await;
            std::mem::forget(left);
            machine.runtime().recover().await.unwrap();
            tidy(&machine, &container).await;
        };
        let ran = timeout(DEADLINE, programs).await;
        drop(hung);
        ran.expect("nothing of it waits for the disk");
        remove(&pod, &container).await;
    });
}

#[test]
fn connections_are_made_on_the_pods_own_loopback() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("main", 0, "exec nc -l -p 8080 -e cat");
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let uid = pod.sandbox.pod_uid.clone();
        let mut stream = eventually("a connection", || async {
            pod.runtime.connect(&uid, 8080).await.ok()
        })
        .await;
        stream.write_all(b"question").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(text(&mut stream).await, "question");
        let refused = pod.runtime.connect(&uid, 8081).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let nowhere = pod.runtime.connect("nothing", 8080).await.unwrap_err();
        assert_eq!(nowhere.kind(), std::io::ErrorKind::NotFound);
        remove(&pod, &container).await;
    });
}
