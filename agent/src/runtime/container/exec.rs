//! Programs run in a container that runs, beside its own: bounded in time and in what is kept of their output.
//!
//! Both outputs go into one named pipe, which the agent reads to the end, so that a program that writes much does not stand still. The agent holds both
//! ends of it: an end of file would come before the first word.

use std::time::Duration;

use oci_spec::runtime::Process;
use tokio::{net::unix::pipe::Receiver, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Containers, RuntimeError,
    beside::{Beside, Pipes, Waits, failed},
    pipes,
    task::{KILL_PATIENCE, SIGKILL},
};
use crate::runtime::ExecOutcome;

/// Bytes of the output that are kept.
const KEPT: usize = 10 * 1024;
/// The name of the pipe.
const OUTPUT: &str = "output";

impl Containers {
    /// Runs a program in a running container, and kills it when its time is over. Once containerd was told to begin it, it is seen to its end, and tidied up
    /// after, also when nobody waits for the answer any more.
    pub async fn exec(
        &self,
        id: &str,
        command: &[String],
        within: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let (waits, _waits) = Waits::until(&CancellationToken::new());
        let run = Run {
            waits,
            beside: Beside::new(self, id),
            command: command.to_vec(),
            within,
        };
        let ended = tokio::spawn(async move { run.run().await }).await;
        ended.unwrap_or_else(|error| Err(failed(&format!("the run ended by itself: {error}"))))
    }
}

struct Run {
    waits: Waits,
    beside: Beside,
    command: Vec<String>,
    within: Duration,
}

impl Run {
    async fn run(self) -> Result<ExecOutcome, RuntimeError> {
        let mut process = self.waits.or_gone(self.beside.own()).await?.process;
        process.set_args(Some(self.command.clone()));
        process.set_terminal(Some(false));
        let made = self.beside.make_pipes(&[OUTPUT]).await;
        let outcome = match made {
            Ok(()) => self.run_with(&process).await,
            Err(error) => Err(error),
        };
        self.beside.remove_pipes().await;
        outcome
    }

    async fn run_with(&self, process: &Process) -> Result<ExecOutcome, RuntimeError> {
        let pipe = self.beside.folder.join(OUTPUT);
        let receiver = pipes::both(&pipe).await;
        let mut receiver = receiver.map_err(|error| failed(&error.to_string()))?;
        let pipe = pipe.display().to_string();
        let pipes = Pipes {
            stdin: String::new(),
            stdout: pipe.clone(),
            stderr: pipe,
        };
        self.waits.check()?;
        self.beside.prepare(process, pipes).await?;
        let waited_for = self.waits.check();
        let outcome = match &waited_for {
            Ok(()) => self.run_to_the_end(process, &mut receiver).await,
            Err(nobody) => Err(nobody.clone()),
        };
        if waited_for.is_ok() && outcome.is_err() && self.beside.signal(SIGKILL).await.is_ok() {
            // It may have begun.
            let _ = timeout(KILL_PATIENCE, self.beside.wait()).await;
        }
        if let Err(status) = self.beside.delete().await {
            tracing::debug!(%status, container = self.beside.id, "what is left of a program goes with its container");
        }
        outcome
    }

    async fn run_to_the_end(
        &self,
        process: &Process,
        receiver: &mut Receiver,
    ) -> Result<ExecOutcome, RuntimeError> {
        self.beside.start(process).await?;
        let mut output = Vec::new();
        let in_time = tokio::select! {
            ended = timeout(self.within, self.beside.wait()) => ended.ok(),
            never = read(receiver, &mut output) => match never {},
        };
        let error = |verb, status| self.beside.error(verb, process, &status);
        let exit_code = match in_time {
            Some(code) => Some(code.map_err(|status| error("wait for", status))?),
            None => {
                let killed = self.beside.signal(SIGKILL).await;
                killed.map_err(|status| error("kill", status))?;
                // Its exit comes, or it hangs in the kernel; what it left is killed with the container.
                tokio::select! {
                    _ = timeout(KILL_PATIENCE, self.beside.wait()) => {}
                    never = read(receiver, &mut output) => match never {},
                }
                None
            }
        };
        take(receiver, &mut output);
        Ok(ExecOutcome { exit_code, output })
    }
}

/// Takes what comes, for as long as it is polled.
async fn read(receiver: &Receiver, output: &mut Vec<u8>) -> std::convert::Infallible {
    loop {
        if receiver.readable().await.is_ok() {
            take(receiver, output);
        }
        // A program that writes without end must not keep others from this thread.
        tokio::task::yield_now().await;
    }
}

/// Takes what is there, and keeps the beginning.
fn take(receiver: &Receiver, output: &mut Vec<u8>) {
    /// Pieces at a time.
    const PIECES: usize = 16;
    let mut piece = [0; 4096];
    for _ in 0..PIECES {
        let Ok(bytes @ 1..) = receiver.try_read(&mut piece) else {
            return;
        };
        let room = KEPT.saturating_sub(output.len());
        output.extend_from_slice(&piece[..bytes.min(room)]);
    }
}
