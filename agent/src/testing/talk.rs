//! Programs in memory for somebody who talks with them: a few words of a shell.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Control, PROGRAM_NOT_FOUND, Program, Running, RuntimeError, TerminalSize};

/// Bytes that a pipe holds.
const PIPE: usize = 64 << 10;

/// For so long nobody copies the outputs of "stuck".
const STUCK: Duration = Duration::from_secs(3);

/// What runs, and what was done to it.
#[derive(Default)]
pub struct Programs(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    running: usize,
    /// "resize 80x24", "signal 2", "close", "end", "not begun"
    done: Vec<String>,
}

impl Programs {
    /// Programs that have begun and were not ended.
    pub fn running(&self) -> usize {
        self.0.lock().unwrap().running
    }

    pub fn done(&self) -> Vec<String> {
        self.0.lock().unwrap().done.clone()
    }

    /// "cat" says what it hears; "yes" never stops; "sleep" waits for a signal; "leave" ends with 3 and leaves somebody who holds on to its outputs; "late"
    /// is not begun as long as somebody waits for it; the outputs of "stuck" come some seconds after its end, when who copies them goes on.
    pub async fn begin(
        &self,
        program: &Program,
        gone: &CancellationToken,
    ) -> Result<Running, RuntimeError> {
        let name = program.command[0].clone();
        if name == "late" {
            gone.cancelled().await;
            self.0.lock().unwrap().done.push("not begun".to_owned());
            return Err(RuntimeError {
                reason: PROGRAM_NOT_FOUND,
                message: "nobody waits for it".to_owned(),
                retryable: false,
            });
        }
        if !["cat", "yes", "sleep", "leave", "stuck"].contains(&&*name) {
            return Err(RuntimeError {
                reason: PROGRAM_NOT_FOUND,
                message: format!("\"{name}\" was not found in the container"),
                retryable: false,
            });
        }
        let (stdin, input) = duplex(PIPE);
        let (output, stdout) = duplex(PIPE);
        let (error, stderr) = duplex(PIPE);
        let (code, ended) = watch::channel(None);
        let code = Arc::new(code);
        let (copies, copier) = watch::channel(name != "stuck");
        self.0.lock().unwrap().running += 1;
        tokio::spawn(run(name, input, output, error, code.clone(), copies));
        Ok(Running {
            stdin: program.stdin.then(|| Box::new(stdin) as _),
            stdout: Box::new(stdout),
            stderr: (!program.tty).then(|| Box::new(stderr) as _),
            control: Box::new(Told {
                seen: self.0.clone(),
                code,
                ended,
                copier,
            }),
        })
    }
}

async fn run(
    name: String,
    mut input: DuplexStream,
    mut output: DuplexStream,
    mut error: DuplexStream,
    code: Arc<watch::Sender<Option<i32>>>,
    copies: watch::Sender<bool>,
) {
    let own = match &*name {
        "cat" => {
            let _ = tokio::io::copy(&mut input, &mut output).await;
            0
        }
        "yes" => {
            while output.write_all(b"yes\n").await.is_ok() {}
            141
        }
        "leave" => {
            let _ = output.write_all(b"out\n").await;
            let _ = error.write_all(b"err\n").await;
            code.send_replace(Some(3));
            std::future::pending().await
        }
        "stuck" => {
            code.send_replace(Some(4));
            sleep(STUCK).await;
            copies.send_replace(true);
            let _ = output.write_all(b"out\n").await;
            sleep(STUCK / 6).await;
            let _ = output.write_all(b"more\n").await;
            return;
        }
        _ => {
            let mut nothing = Vec::new();
            let _ = input.read_to_end(&mut nothing).await;
            std::future::pending().await
        }
    };
    code.send_if_modified(|code| code.is_none() && code.replace(own).is_none());
}

struct Told {
    seen: Arc<Mutex<Seen>>,
    code: Arc<watch::Sender<Option<i32>>>,
    ended: watch::Receiver<Option<i32>>,
    /// Whether who copies the outputs does.
    copier: watch::Receiver<bool>,
}

impl Told {
    fn done(&self, what: String) {
        self.seen.lock().unwrap().done.push(what);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.seen.lock().unwrap().running -= 1;
    }
}

#[async_trait]
impl Control for Told {
    async fn wait(&self) -> Result<i32, RuntimeError> {
        let mut ended = self.ended.clone();
        let code = *ended.wait_for(Option::is_some).await.unwrap();
        Ok(code.unwrap())
    }

    async fn copier_answers(&self) -> Result<(), RuntimeError> {
        let mut copier = self.copier.clone();
        // Gone, it has copied all.
        let _ = copier.wait_for(|copies| *copies).await;
        Ok(())
    }

    async fn signal(&self, number: u32) -> Result<(), RuntimeError> {
        self.done(format!("signal {number}"));
        let code = 128 + i32::try_from(number).unwrap();
        self.code
            .send_if_modified(|it| it.is_none() && it.replace(code).is_none());
        Ok(())
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        self.done(format!("resize {}x{}", size.columns, size.rows));
        Ok(())
    }

    async fn close_stdin(&self) -> Result<(), RuntimeError> {
        self.done("close".to_owned());
        Ok(())
    }

    async fn end(&self) {
        self.done("end".to_owned());
    }
}
