//! Programs of this machine, run through a manager and connected with buffers in place of a terminal.

use std::{
    io::Write,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use barge_client::v1::{AttachRequest, ExecStart};
use tokio::time::timeout;

use super::*;
use crate::testing::Fake;

/// Ten times what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

type Pieces = Vec<(To, Vec<u8>)>;

/// What was printed, in order, with the output that it went to.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Pieces>>);

struct Half(Printed, To);

impl Write for Half {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().push((self.1, data.to_vec()));
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printed {
    fn printer(&self) -> Printer {
        let half = |to| Half(self.clone(), to);
        Printer::new(half(To::Stdout), half(To::Stderr)).unwrap()
    }

    fn of(&self, to: To) -> Vec<u8> {
        let all = self.0.lock().unwrap();
        let pieces = all.iter().filter(|piece| piece.0 == to);
        pieces.flat_map(|piece| piece.1.clone()).collect()
    }

    async fn has(&self, data: &[u8]) {
        let wait = async {
            while self.of(To::Stdout) != data {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, wait).await.unwrap();
    }
}

async fn started(fake: &Fake, command: &[&str], stdin: bool) -> ExecStream {
    let start = ExecStart {
        pod: "web".into(),
        command: command.iter().map(|it| (*it).to_owned()).collect(),
        stdin,
        ..ExecStart::default()
    };
    fake.client.exec(start).await.unwrap()
}

/// Signals that never come.
fn quiet() -> (mpsc::Sender<Heard>, mpsc::Receiver<Heard>) {
    mpsc::channel(1)
}

async fn run_command(
    fake: &Fake,
    command: &[&str],
    stdin: Option<&'static [u8]>,
) -> (Result<Ended>, Printed) {
    let stream = started(fake, command, stdin.is_some()).await;
    let printed = Printed::default();
    let stdin = stdin.map(|text| input(text).unwrap());
    let (_signals, heard) = quiet();
    let running = run(stream, stdin, false, printed.printer(), heard);
    (timeout(DEADLINE, running).await.unwrap(), printed)
}

#[tokio::test]
async fn the_code_is_the_programs_and_outputs_are_kept_apart() {
    let fake = Fake::start().await;
    let command = ["sh", "-c", "echo out; echo err >&2; exit 7"];
    let (ended, printed) = run_command(&fake, &command, None).await;
    assert_eq!(ended.unwrap(), Ended::Program(7));
    assert_eq!(printed.of(To::Stdout), b"out\n");
    assert_eq!(printed.of(To::Stderr), b"err\n");
}

#[tokio::test]
async fn input_arrives_whole_and_ends() {
    let fake = Fake::start().await;
    let text: &'static [u8] = Box::leak(vec![b'x'; 3 << 20].into_boxed_slice());
    let (ended, printed) = run_command(&fake, &["cat"], Some(text)).await;
    assert_eq!(ended.unwrap(), Ended::Program(0));
    assert!(printed.of(To::Stdout) == text);
    let (ended, printed) = run_command(&fake, &["cat"], Some(b"")).await;
    assert_eq!(ended.unwrap(), Ended::Program(0));
    assert!(printed.of(To::Stdout).is_empty());
}

#[tokio::test]
async fn a_stream_that_breaks_is_an_error_and_nothing_runs_twice() {
    let fake = Fake::start().await;
    let (ended, printed) = run_command(&fake, &["broken"], None).await;
    let error = format!("{:#}", ended.unwrap_err());
    assert!(error.contains("gone"), "{error}");
    printed.has(b"half").await;
    let start = ExecStart {
        pod: "web".into(),
        command: vec!["silent".into()],
        ..ExecStart::default()
    };
    let error = crate::commands::exec::started(&fake.client, start)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not asked for again"), "{error}");
    assert_eq!(fake.pod.starts().len(), 2);
}

#[tokio::test]
async fn a_program_is_asked_for_again_only_when_it_was_not_started() {
    let fake = Fake::start().await;
    let (ended, _) = run_command(&fake, &["away"], None).await;
    assert_eq!(ended.unwrap(), Ended::Program(0));
    assert_eq!(fake.pod.starts().len(), 2);
}

#[tokio::test]
async fn a_program_that_takes_no_notice_of_a_hang_up_holds_nothing_up() {
    let fake = Fake::start().await;
    let stream = started(&fake, &["deaf"], false).await;
    let (signals, heard) = quiet();
    signals.send(Heard::End(SIGHUP)).await.unwrap();
    let running = run(stream, None, true, Printed::default().printer(), heard);
    let ended = timeout(DEADLINE, running).await.unwrap();
    assert_eq!(ended.unwrap(), Ended::Signal(SIGHUP));
    let told = async {
        while fake.pod.signals() != [SIGHUP.unsigned_abs()] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, told).await.unwrap();
}

#[tokio::test]
async fn a_signal_is_the_programs_and_a_second_one_ends_the_wait() {
    let fake = Fake::start().await;
    for (command, wanted) in [("signal", Ended::Program(143)), ("deaf", Ended::Signal(2))] {
        let stream = started(&fake, &[command], false).await;
        let printed = Printed::default();
        let (signals, heard) = quiet();
        let running = run(stream, None, false, printed.printer(), heard);
        let sending = async {
            printed.has(b"ready").await;
            signals.send(Heard::End(15)).await.unwrap();
            if command == "deaf" {
                let arrived = async {
                    while fake.pod.signals().len() < 2 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                timeout(DEADLINE, arrived).await.unwrap();
                signals.send(Heard::End(2)).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = timeout(DEADLINE, running) => ended.unwrap().unwrap(),
            () = sending => unreachable!(),
        };
        assert_eq!(ended, wanted);
    }
    assert_eq!(fake.pod.signals(), [15, 15]);
}

#[tokio::test]
async fn a_signal_overtakes_input_that_nobody_reads() {
    let fake = Fake::start().await;
    let stream = started(&fake, &["signal"], true).await;
    let printed = Printed::default();
    let (signals, heard) = quiet();
    let endless = input(std::io::repeat(b'x')).unwrap();
    let running = run(stream, Some(endless), false, printed.printer(), heard);
    let sending = async {
        printed.has(b"ready").await;
        signals.send(Heard::End(1)).await.unwrap();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = timeout(DEADLINE, running) => ended.unwrap().unwrap(),
        () = sending => unreachable!(),
    };
    assert_eq!(ended, Ended::Program(129));
}

#[tokio::test]
async fn a_terminal_gets_its_size_and_its_end_of_file() {
    let fake = Fake::start().await;
    let stream = started(&fake, &["head", "-c", "2"], true).await;
    stream.input.resize(barge_client::v1::TerminalSize {
        columns: 132,
        rows: 50,
    });
    let printed = Printed::default();
    let (_signals, heard) = quiet();
    let running = run(
        stream,
        Some(input(&b"x"[..]).unwrap()),
        true,
        printed.printer(),
        heard,
    );
    let ended = timeout(DEADLINE, running).await.unwrap();
    assert_eq!(ended.unwrap(), Ended::Program(0));
    assert_eq!(printed.of(To::Stdout), [b'x', END_OF_FILE]);
    assert_eq!(fake.pod.sizes(), [(132, 50)]);
}

#[tokio::test]
async fn an_output_that_nobody_takes_stops_the_program() {
    let fake = Fake::start().await;
    let stream = started(&fake, &["sh", "-c", "yes"], false).await;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let printer = Printer::new(std::fs::File::from(writer), std::io::sink()).unwrap();
    let (_signals, heard) = quiet();
    let running = tokio::spawn(run(stream, None, false, printer, heard));
    // What is read first was printed; then nobody reads for good.
    let mut some = [0; 4];
    let reader: OwnedFd = reader;
    let read = tokio::task::spawn_blocking(move || {
        nix::unistd::read(&reader, &mut some).unwrap();
        drop(reader);
    });
    timeout(DEADLINE, read).await.unwrap().unwrap();
    let ended = timeout(DEADLINE, running).await.unwrap().unwrap();
    assert_eq!(ended.unwrap(), Ended::Program(NOBODY_READS));
}

#[tokio::test]
async fn what_a_container_writes_is_printed_until_it_ends() {
    let fake = Fake::start().await;
    let output = fake.client.attach(AttachRequest::default()).await.unwrap();
    let printed = Printed::default();
    let code = timeout(DEADLINE, listen(output, printed.printer(), LOST))
        .await
        .unwrap();
    assert_eq!(code.unwrap(), 3);
    assert_eq!(printed.of(To::Stdout), b"out");
    assert_eq!(printed.of(To::Stderr), b"err");
}
