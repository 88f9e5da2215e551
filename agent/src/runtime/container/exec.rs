//! Programs run in a container that runs, beside its own: bounded in time and in what is kept of their output.
//!
//! Both outputs go into one named pipe, which the agent reads to the end, so that a program that writes much does not stand still. The agent holds both
//! ends of it: an end of file would come before the first word.

use std::{io, path::PathBuf, time::Duration};

use containerd_client::{services::v1 as api, tonic::Status};
use nix::{sys::stat::Mode, unistd::mkfifo};
use oci_spec::runtime::{Process, Spec};
use prost_types::Any;
use tokio::{
    net::unix::pipe::{OpenOptions, Receiver},
    time::timeout,
};

use super::{Containers, RuntimeError, kill_error, reason, task::KILL_PATIENCE};
use crate::{files, runtime::ExecOutcome};

/// Bytes of the output that are kept.
const KEPT: usize = 10 * 1024;
/// What Go clients expect a process to be called.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The signal nobody survives.
const SIGKILL: u32 = 9;

impl Containers {
    /// Runs a program in a running container, and kills it when its time is over. It is seen to its end, and tidied up after, also when nobody
    /// waits for the answer any more.
    pub async fn exec(
        &self,
        id: &str,
        command: &[String],
        within: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let run = Run {
            containers: self.clone(),
            id: id.to_owned(),
            exec_id: format!("exec-{}", uuid::Uuid::new_v4()),
            command: command.to_vec(),
            within,
        };
        let ended = tokio::spawn(async move { run.run().await }).await;
        ended.unwrap_or_else(|error| Err(failed(&format!("the run ended by itself: {error}"))))
    }
}

struct Run {
    containers: Containers,
    id: String,
    exec_id: String,
    command: Vec<String>,
    within: Duration,
}

impl Run {
    async fn run(self) -> Result<ExecOutcome, RuntimeError> {
        let process = self.process().await?;
        let (pipe, path) = (self.pipe(), self.pipe());
        let made = files::blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(io::Error::from)
        });
        made.await.map_err(|error| failed(&error.to_string()))?;
        let outcome = self.run_with(process).await;
        let removed = files::blocking(move || files::remove_if_there(&pipe)).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove the pipe of a program that was run in a container");
        }
        outcome
    }

    /// The container's own process, with another program.
    async fn process(&self) -> Result<Process, RuntimeError> {
        let gone = || failed(&format!("{} is not there any more", self.id));
        let record = self.containers.record(&self.id).await?.ok_or_else(gone)?;
        let spec = record.spec.ok_or_else(gone)?;
        let spec: Spec = serde_json::from_slice(&spec.value)
            .map_err(|error| failed(&format!("its description cannot be read: {error}")))?;
        let mut process = spec.process().clone().ok_or_else(gone)?;
        process.set_args(Some(self.command.clone()));
        process.set_terminal(Some(false));
        Ok(process)
    }

    fn pipe(&self) -> PathBuf {
        let paths = &self.containers.options.paths;
        paths.execs().join(&self.exec_id)
    }

    async fn run_with(&self, process: Process) -> Result<ExecOutcome, RuntimeError> {
        let pipe = self.pipe();
        let receiver = OpenOptions::new().read_write(true).open_receiver(&pipe);
        let mut receiver = receiver.map_err(|error| failed(&error.to_string()))?;
        let value = serde_json::to_vec(&process).map_err(|error| failed(&error.to_string()))?;
        let pipe = pipe.display().to_string();
        let request = api::ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            stdout: pipe.clone(),
            stderr: pipe,
            spec: Some(Any {
                type_url: PROCESS_TYPE.to_owned(),
                value,
            }),
            ..api::ExecProcessRequest::default()
        };
        let client = &self.containers.client;
        let made = client
            .services()
            .tasks()
            .exec(client.request(request))
            .await;
        made.map_err(|status| self.error("prepare", &status))?;
        let outcome = self.run_to_the_end(&mut receiver).await;
        if outcome.is_err() && self.kill().await.is_ok() {
            // It may have begun.
            let _ = timeout(KILL_PATIENCE, self.wait()).await;
        }
        if let Err(status) = self.delete().await {
            tracing::debug!(%status, container = self.id, "what is left of a program goes with its container");
        }
        outcome
    }

    async fn run_to_the_end(&self, receiver: &mut Receiver) -> Result<ExecOutcome, RuntimeError> {
        let client = &self.containers.client;
        let request = api::StartRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let started = client
            .services()
            .tasks()
            .start(client.request(request))
            .await;
        started.map_err(|status| self.error("start", &status))?;
        let mut output = Vec::new();
        let in_time = tokio::select! {
            ended = timeout(self.within, self.wait()) => ended.ok(),
            never = read(receiver, &mut output) => match never {},
        };
        let exit_code = match in_time {
            Some(code) => Some(code.map_err(|status| self.error("wait for", &status))?),
            None => {
                self.kill()
                    .await
                    .map_err(|status| self.error("kill", &status))?;
                // Its exit comes, or it hangs in the kernel; what it left is killed with the container.
                tokio::select! {
                    _ = timeout(KILL_PATIENCE, self.wait()) => {}
                    never = read(receiver, &mut output) => match never {},
                }
                None
            }
        };
        take(receiver, &mut output);
        Ok(ExecOutcome { exit_code, output })
    }

    /// Its exit code, as the shell counts.
    async fn wait(&self) -> Result<i32, Status> {
        let client = &self.containers.client;
        let request = api::WaitRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let answer = client
            .services()
            .tasks()
            .wait(client.lasting(request))
            .await?;
        Ok(i32::try_from(answer.into_inner().exit_status).unwrap_or(i32::MAX))
    }

    async fn kill(&self) -> Result<(), Status> {
        let client = &self.containers.client;
        let request = api::KillRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            signal: SIGKILL,
            all: false,
        };
        let killed = client
            .services()
            .tasks()
            .kill(client.request(request))
            .await;
        crate::runtime::error::unless_missing(killed)?;
        Ok(())
    }

    async fn delete(&self) -> Result<(), Status> {
        let client = &self.containers.client;
        let request = api::DeleteProcessRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let deleted = client
            .services()
            .tasks()
            .delete_process(client.request(request))
            .await;
        crate::runtime::error::unless_missing(deleted)?;
        Ok(())
    }

    fn error(&self, verb: &str, status: &Status) -> RuntimeError {
        let program = self.command.first().map_or("", String::as_str);
        let what = format!("{verb} \"{program}\" in the container");
        kill_error(&what, &self.id, status)
    }
}

fn failed(why: &str) -> RuntimeError {
    let message = format!("cannot run a program in the container: {why}");
    RuntimeError::passing(reason::RUN_CONTAINER, message)
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
