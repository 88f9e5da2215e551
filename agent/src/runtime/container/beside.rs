//! A process in a container beside its own: the steps that containerd has for it, and its pipes.

use std::path::{Path, PathBuf};

use containerd_client::{
    services::v1 as api,
    tonic::{Code, Status},
};
use oci_spec::runtime::{Process, Spec};
use prost_types::Any;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Containers, RuntimeError, kill_error, pipes, reason};
use crate::runtime::{error::unless_missing, names::label};

/// What Go clients expect a process to be called.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Between the container's id and the process's own in the name of a folder of pipes.
const AT: char = '@';

/// A process beside a container's own, which need not be there yet or any more. Cheap to clone.
#[derive(Clone)]
pub struct Beside {
    pub containers: Containers,
    /// The container's.
    pub id: String,
    pub exec_id: String,
    /// Where its pipes are. The name says whose they are: when the agent has been killed, the next one ends the process.
    pub folder: PathBuf,
}

/// Somebody waits for a process to begin. containerd may take minutes for each step, and a program that nobody waits for any more is not begun.
pub struct Waits(CancellationToken);

impl Waits {
    /// Until `gone` is cancelled, or what comes beside it is dropped.
    pub fn until(gone: &CancellationToken) -> (Self, DropGuard) {
        let gone = gone.child_token();
        (Self(gone.clone()), gone.drop_guard())
    }

    /// Does a step that may be given up anywhere.
    pub async fn or_gone<T>(
        &self,
        step: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        let done = self.0.run_until_cancelled(step).await;
        done.unwrap_or_else(|| Err(nobody_waits()))
    }

    /// The error when nobody waits any more: before a step that may not be given up.
    pub fn check(&self) -> Result<(), RuntimeError> {
        match self.0.is_cancelled() {
            true => Err(nobody_waits()),
            false => Ok(()),
        }
    }
}

fn nobody_waits() -> RuntimeError {
    failed("nobody waits for it any more")
}

/// Which pipes a process gets; empty: none.
#[derive(Default)]
pub struct Pipes {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

/// What a container's own process is, and whose.
pub struct Own {
    pub process: Process,
    pub pod_uid: String,
}

/// containerd takes names of at most 76 characters.
fn own_prefix(containers: &Containers) -> String {
    format!("exec-{}-", containers.run)
}

/// Of the container and of the process, as the name of a folder says.
fn ids(folder: &Path) -> Option<(&str, &str)> {
    folder.file_name()?.to_str()?.rsplit_once(AT)
}

impl Beside {
    /// A new one.
    pub fn new(containers: &Containers, id: &str) -> Self {
        let exec_id = format!("{}{}", own_prefix(containers), uuid::Uuid::new_v4());
        let programs = containers.options.paths.programs();
        Self {
            folder: programs.join(format!("{id}{AT}{exec_id}")),
            containers: containers.clone(),
            id: id.to_owned(),
            exec_id,
        }
    }

    /// Whether this folder is of one that this agent began.
    pub fn is_own(containers: &Containers, folder: &Path) -> bool {
        let exec_id = ids(folder).map_or("", |(_, exec_id)| exec_id);
        exec_id.starts_with(&own_prefix(containers))
    }

    /// The one whose folder this is.
    pub fn of_folder(containers: &Containers, folder: &Path) -> Option<Self> {
        let (id, exec_id) = ids(folder)?;
        Some(Self {
            containers: containers.clone(),
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            folder: folder.to_owned(),
        })
    }

    /// Makes pipes with these names.
    pub async fn make_pipes(&self, names: &'static [&'static str]) -> Result<(), RuntimeError> {
        let made = pipes::make(&self.containers.options.paths, &self.folder, names).await;
        made.map_err(|error| failed(&error.to_string()))
    }

    /// Removes its pipes. That there are none is success.
    pub async fn remove_pipes(&self) {
        let removed = pipes::remove(&self.containers.options.paths, &self.folder).await;
        if let Err(error) = removed {
            tracing::warn!(%error, container = self.id, "cannot remove the pipes of a program that was run in a container");
        }
    }

    /// The container's own process.
    pub async fn own(&self) -> Result<Own, RuntimeError> {
        let gone = || failed(&format!("{} is not there any more", self.id));
        let record = self.containers.record(&self.id).await?.ok_or_else(gone)?;
        let spec = record.spec.ok_or_else(gone)?;
        let spec: Spec = serde_json::from_slice(&spec.value)
            .map_err(|error| failed(&format!("its description cannot be read: {error}")))?;
        let pod_uid = record.labels.get(label::POD_UID).cloned();
        Ok(Own {
            process: spec.process().clone().ok_or_else(gone)?,
            pod_uid: pod_uid.unwrap_or_default(),
        })
    }

    /// Makes the process known to its shim.
    pub async fn prepare(&self, process: &Process, pipes: Pipes) -> Result<(), RuntimeError> {
        let value = serde_json::to_vec(process).map_err(|error| failed(&error.to_string()))?;
        let request = api::ExecProcessRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            stdin: pipes.stdin,
            stdout: pipes.stdout,
            stderr: pipes.stderr,
            terminal: process.terminal().unwrap_or_default(),
            spec: Some(Any {
                type_url: PROCESS_TYPE.to_owned(),
                value,
            }),
        };
        let client = &self.containers.client;
        let mut tasks = client.services().tasks();
        let made = tasks.exec(client.request(request)).await;
        made.map_err(|status| self.error("prepare", process, &status))?;
        Ok(())
    }

    /// Lets it run; answers its process id on the machine.
    pub async fn start(&self, process: &Process) -> Result<u32, RuntimeError> {
        let client = &self.containers.client;
        let request = api::StartRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let mut tasks = client.services().tasks();
        let started = tasks.start(client.request(request)).await;
        let started = started.map_err(|status| self.error("start", process, &status))?;
        Ok(started.into_inner().pid)
    }

    /// Its exit code, as the shell counts.
    pub async fn wait(&self) -> Result<i32, Status> {
        let client = &self.containers.client;
        let request = api::WaitRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let mut tasks = client.services().tasks();
        let answer = tasks.wait(client.lasting(request)).await?;
        Ok(code(answer.into_inner().exit_status))
    }

    /// How it is: its process id, and its exit code once it has one.
    pub async fn look(&self) -> Result<Option<(u32, Option<i32>)>, Status> {
        use containerd_client::types::v1::Status as TaskStatus;
        let client = &self.containers.client;
        let request = api::GetRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let answer = client.services().tasks().get(client.look(request)).await;
        let process = unless_missing(answer)?.and_then(|answer| answer.into_inner().process);
        Ok(process.map(|it| {
            let ended = it.status() == TaskStatus::Stopped;
            (it.pid, ended.then(|| code(it.exit_status)))
        }))
    }

    /// That it has ended is success.
    pub async fn signal(&self, signal: u32) -> Result<(), Status> {
        let client = &self.containers.client;
        let request = api::KillRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            signal,
            all: false,
        };
        let mut tasks = client.services().tasks();
        unless_gone(tasks.kill(client.request(request)).await.map(drop))
    }

    /// That it has ended is success.
    pub async fn close_stdin(&self) -> Result<(), Status> {
        let client = &self.containers.client;
        let request = api::CloseIoRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            stdin: true,
        };
        let mut tasks = client.services().tasks();
        unless_gone(tasks.close_io(client.request(request)).await.map(drop))
    }

    /// That it has ended is success.
    pub async fn resize(&self, columns: u32, rows: u32) -> Result<(), Status> {
        let client = &self.containers.client;
        let request = api::ResizePtyRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
            width: columns,
            height: rows,
        };
        let mut tasks = client.services().tasks();
        unless_gone(tasks.resize_pty(client.request(request)).await.map(drop))
    }

    /// Has its shim forget it, once it has ended. That it is not known is success.
    pub async fn delete(&self) -> Result<(), Status> {
        let client = &self.containers.client;
        let request = api::DeleteProcessRequest {
            container_id: self.id.clone(),
            exec_id: self.exec_id.clone(),
        };
        let mut tasks = client.services().tasks();
        unless_gone(
            tasks
                .delete_process(client.request(request))
                .await
                .map(drop),
        )
    }

    /// What containerd answered, in words: a program that the container does not have is told apart.
    pub fn error(&self, verb: &str, process: &Process, status: &Status) -> RuntimeError {
        let program = process.args().as_ref().and_then(|args| args.first());
        let program = program.map_or("", String::as_str);
        match why_not_run(status.message()) {
            Some(why @ reason::PROGRAM_NOT_FOUND) => {
                let message = format!("\"{program}\" was not found in the container");
                RuntimeError::lasting(why, message)
            }
            Some(why) => {
                let message = format!(
                    "\"{program}\" in the container cannot be run: it is no executable file, or one that the container's user may not run"
                );
                RuntimeError::lasting(why, message)
            }
            None => {
                let what = format!("{verb} \"{program}\" in the container");
                kill_error(&what, &self.id, status)
            }
        }
    }
}

fn code(exit_status: u32) -> i32 {
    i32::try_from(exit_status).unwrap_or(i32::MAX)
}

/// Success for what has ended, of which shims speak in words.
fn unless_gone(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) if status.message().contains("process already finished") => Ok(()),
        result => result,
    }
}

/// Whether a program was not run because of what it is. runc and crun have words for it, and no codes.
fn why_not_run(words: &str) -> Option<&'static str> {
    // Without these, what is missing is the runtime's own.
    if !words.contains("unable to start container process") && !words.contains("crun: ") {
        return None;
    }
    let about_it = words.contains("exec: \"") || words.contains("executable file");
    let missing = words.contains("not found") || words.to_lowercase().contains("no such file");
    if about_it && missing {
        return Some(reason::PROGRAM_NOT_FOUND);
    }
    let refused = words.to_lowercase();
    let refused = refused.contains("permission denied") || refused.contains("is a directory");
    let unfit = words.contains("exec format error") || (about_it && refused);
    unfit.then_some(reason::PROGRAM_NOT_EXECUTABLE)
}

/// Why no program could be run.
pub fn failed(why: &str) -> RuntimeError {
    let message = format!("cannot run a program in the container: {why}");
    RuntimeError::passing(reason::RUN_CONTAINER, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_no_program_are_told_apart() {
        let runc = "OCI runtime exec failed: exec failed: unable to start container process: ";
        for (words, why) in [
            (
                "exec: \"nope\": executable file not found in $PATH: unknown",
                Some(reason::PROGRAM_NOT_FOUND),
            ),
            (
                "exec: \"/bin/nope\": stat /bin/nope: no such file or directory: unknown",
                Some(reason::PROGRAM_NOT_FOUND),
            ),
            (
                "exec: \"/etc/passwd\": permission denied: unknown",
                Some(reason::PROGRAM_NOT_EXECUTABLE),
            ),
            (
                "exec: \"/etc\": is a directory: unknown",
                Some(reason::PROGRAM_NOT_EXECUTABLE),
            ),
            (
                "exec /x: exec format error: unknown",
                Some(reason::PROGRAM_NOT_EXECUTABLE),
            ),
            ("unable to apply cgroup configuration: disk full", None),
        ] {
            assert_eq!(why_not_run(&format!("{runc}{words}")), why, "{words}");
        }
        let ours = "exec: \"runc\": executable file not found in $PATH";
        assert_eq!(why_not_run(ours), None);
    }
}
