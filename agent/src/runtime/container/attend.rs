//! Programs run in a container for somebody who talks with them.
//!
//! Each stream is a named pipe between the agent and the container's shim. The agent holds both ends of an output until the shim has opened it: an end
//! of file would come before the first word. From then on it holds the end that reads, and the end of file is the program's. For the input the
//! shim holds an end that writes as well, which it closes when it is told to (`CloseIO`).

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use containerd_client::tonic::Status;
use futures::StreamExt;
use nix::errno::Errno;
use oci_spec::runtime::{BoxBuilder, Process};
use tokio::{
    net::unix::pipe::Sender,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Containers, RuntimeError,
    beside::{Beside, Pipes, Waits, failed},
    kill_error, pipes,
    task::{KILL_PATIENCE, SIGKILL},
};
use crate::{
    files,
    runtime::{
        error::{is_unreachable, reason},
        program::{Control, Program, Running, TerminalSize},
    },
};

const STDIN: &str = "stdin";
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";
/// Between the first signal and KILL, for a program whose client has gone.
const GRACE: Duration = Duration::from_secs(2);
/// For the shim to open the input.
const OPEN: Duration = Duration::from_secs(10);
/// Between two attempts to open it.
const OPEN_AGAIN: Duration = Duration::from_millis(2);
/// Between two looks at a program that containerd does not tell of.
const LOOK: Duration = Duration::from_millis(200);
/// How often a program of an earlier agent is asked for, and the time in between.
const ATTEMPTS: u32 = 60;
/// See [`ATTEMPTS`].
const AGAIN: Duration = Duration::from_secs(5);
/// Programs of an earlier agent that are ended at a time.
const AT_A_TIME: usize = 8;
const SIGHUP: u32 = 1;
const SIGTERM: u32 = 15;

impl Containers {
    /// Begins to run a program, as long as somebody waits for it: until `gone` is cancelled or this is dropped.
    pub async fn attend(
        &self,
        id: &str,
        program: &Program,
        gone: &CancellationToken,
    ) -> Result<Running, RuntimeError> {
        let (containers, id, program) = (self.clone(), id.to_owned(), program.clone());
        let (waits, _waits) = Waits::until(gone);
        let begun = async move { containers.begin(&id, &program, &waits).await };
        let begun = tokio::spawn(begun).await;
        begun.unwrap_or_else(|error| Err(failed(&format!("the start ended by itself: {error}"))))
    }

    async fn begin(
        &self,
        id: &str,
        program: &Program,
        waits: &Waits,
    ) -> Result<Running, RuntimeError> {
        let beside = Beside::new(self, id);
        let own = waits.or_gone(beside.own()).await?;
        let process = process(own.process, program);
        let attended = Arc::new(Attended {
            pod_uid: own.pod_uid,
            beside,
            tty: program.tty,
            pid: AtomicU32::new(0),
            may_run: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let begun = attended.begin(&process, program, waits).await;
        if begun.is_err() {
            attended.end().await;
        }
        begun
    }

    /// Ends, in the background, what an earlier agent ran in containers and did not see to its end, and removes its pipes.
    pub async fn end_left_execs(&self) -> std::io::Result<()> {
        let left = pipes::left(&self.options.paths).await?;
        let containers = self.clone();
        tokio::spawn(async move { containers.end_all_left(left).await });
        let containers = self.clone();
        tokio::spawn(async move {
            let paths = &containers.options.paths;
            match pipes::left_on_disk(paths).await {
                Ok(left) => containers.end_all_left(left).await,
                Err(error) => tracing::warn!(%error, "cannot list pipes of an earlier agent"),
            }
            if let Err(error) = pipes::leave_disk(paths).await {
                // The next agent finds again what is there.
                tracing::debug!(%error, "pipes of an earlier agent stay on disk");
            }
        });
        Ok(())
    }

    async fn end_all_left(&self, folders: Vec<PathBuf>) {
        let earlier = folders.into_iter();
        let earlier = earlier.filter(|folder| !Beside::is_own(self, folder));
        let ended = futures::stream::iter(earlier.collect::<Vec<_>>());
        ended
            .for_each_concurrent(AT_A_TIME, |folder| self.end_left(folder))
            .await;
    }

    async fn end_left(&self, folder: PathBuf) {
        let Some(beside) = Beside::of_folder(self, &folder) else {
            if let Err(error) = pipes::remove(&self.options.paths, &folder).await {
                tracing::warn!(%error, "cannot remove pipes of an earlier agent");
            }
            return;
        };
        let Some((pid, has_ended)) = found(&beside).await else {
            // The next agent finds it again.
            return;
        };
        let own = beside.own().await;
        let pod_uid = own.map_or_else(|_| String::new(), |own| own.pod_uid);
        let attended = Attended {
            pod_uid,
            beside,
            tty: false,
            pid: AtomicU32::new(pid),
            may_run: AtomicBool::new(true),
            has_ended: AtomicBool::new(has_ended),
            is_over: AtomicBool::new(false),
        };
        attended.finish().await;
    }
}

/// The process id of what an earlier agent ran, and whether it has ended. Asks for some minutes: containerd may just be starting.
async fn found(beside: &Beside) -> Option<(u32, bool)> {
    for _ in 0..ATTEMPTS {
        match beside.look().await {
            Ok(Some((pid, code))) => return Some((pid, code.is_some())),
            Ok(None) => return Some((0, true)),
            Err(status) => {
                tracing::debug!(%status, container = beside.id, "cannot look at a program of an earlier agent");
            }
        }
        sleep(AGAIN).await;
    }
    tracing::warn!(
        container = beside.id,
        "a program of an earlier agent may still run"
    );
    None
}

/// The container's own process, with another program.
fn process(own: Process, program: &Program) -> Process {
    let mut process = own;
    process.set_args(Some(program.command.clone()));
    process.set_terminal(Some(program.tty));
    let size = program.size.filter(|_| program.tty);
    let console = size.and_then(|size| {
        let size = BoxBuilder::default()
            .width(u64::from(size.columns))
            .height(u64::from(size.rows));
        size.build().ok()
    });
    process.set_console_size(console);
    if program.tty {
        let mut env = process.env().clone().unwrap_or_default();
        if !env.iter().any(|it| it.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        process.set_env(Some(env));
    }
    process
}

/// A program that somebody talks with.
struct Attended {
    beside: Beside,
    pod_uid: String,
    tty: bool,
    /// On the machine; 0 until it runs.
    pid: AtomicU32,
    /// containerd was told to begin it.
    may_run: AtomicBool,
    /// Its end has been seen.
    has_ended: AtomicBool,
    /// It is being ended and tidied up, or that has been done.
    is_over: AtomicBool,
}

impl Attended {
    async fn begin(
        self: &Arc<Self>,
        process: &Process,
        program: &Program,
        waits: &Waits,
    ) -> Result<Running, RuntimeError> {
        self.beside.make_pipes(&[STDIN, STDOUT, STDERR]).await?;
        let folder = &self.beside.folder;
        let path = |name: &str| folder.join(name).display().to_string();
        let pipes = Pipes {
            stdin: if program.stdin {
                path(STDIN)
            } else {
                String::new()
            },
            stdout: path(STDOUT),
            stderr: if program.tty {
                String::new()
            } else {
                path(STDERR)
            },
        };
        let unopened = |error: std::io::Error| failed(&error.to_string());
        let (stdout, held_stdout) = pipes::output(&folder.join(STDOUT))
            .await
            .map_err(unopened)?;
        let (stderr, held_stderr) = pipes::output(&folder.join(STDERR))
            .await
            .map_err(unopened)?;
        waits.check()?;
        self.beside.prepare(process, pipes).await?;
        waits.check()?;
        self.may_run.store(true, Relaxed);
        let pid = self.beside.start(process).await?;
        self.pid.store(pid, Relaxed);
        drop((held_stdout, held_stderr));
        let stdin = match program.stdin {
            true => self.input(&folder.join(STDIN)).await?,
            false => None,
        };
        Ok(Running {
            stdin: stdin.map(|stdin| Box::new(stdin) as _),
            stdout: Box::new(stdout),
            stderr: (!program.tty).then(|| Box::new(stderr) as _),
            control: Box::new(Handle(self.clone())),
        })
    }

    /// The end of the input that writes, once the shim has opened the one that reads; none when the program has ended before.
    async fn input(&self, path: &Path) -> Result<Option<Sender>, RuntimeError> {
        let opened = async {
            loop {
                match pipes::input(path).await {
                    Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                        sleep(OPEN_AGAIN).await;
                    }
                    opened => return opened,
                }
            }
        };
        let opened = tokio::select! {
            opened = timeout(OPEN, opened) => opened,
            ended = self.beside.wait() => {
                let ended = ended.map_err(|status| self.error("wait for", &status));
                return ended.map(|_| None);
            }
        };
        match opened {
            Ok(Ok(sender)) => Ok(Some(sender)),
            Ok(Err(error)) => Err(failed(&format!("its input cannot be opened: {error}"))),
            Err(_) => Err(failed("its input is not taken")),
        }
    }

    /// Its exit code. That containerd went away meanwhile is no end.
    async fn until_ended(&self) -> Result<i32, RuntimeError> {
        let code = loop {
            let status = match self.beside.wait().await {
                Ok(code) => break code,
                Err(status) => status,
            };
            match self.beside.look().await {
                Ok(Some((_, Some(code)))) => break code,
                Ok(Some((_, None))) => {}
                Ok(None) => return Err(self.vanished()),
                Err(look) if !is_unreachable(&look) && !is_unreachable(&status) => {
                    return Err(self.error("wait for", &status));
                }
                Err(_) => {}
            }
            sleep(LOOK).await;
        };
        self.has_ended.store(true, Relaxed);
        Ok(code)
    }

    fn vanished(&self) -> RuntimeError {
        self.has_ended.store(true, Relaxed);
        let message = "the container ended, and the program with it".to_owned();
        RuntimeError::lasting(reason::KILL_CONTAINER, message)
    }

    /// Ends it, once. See [`Control::end`].
    async fn finish(&self) {
        if self.is_over.swap(true, Relaxed) {
            return;
        }
        let pid = self.pid.load(Relaxed);
        if self.may_run.load(Relaxed) && !self.has_ended.load(Relaxed) {
            let first = if self.tty { SIGHUP } else { SIGTERM };
            let gently = async {
                self.beside.signal(first).await.ok()?;
                self.until_ended().await.ok()
            };
            if pid != 0 {
                let _ = timeout(GRACE, gently).await;
            }
            // It may have begun though nobody said so.
            if !self.has_ended.load(Relaxed) && self.beside.signal(SIGKILL).await.is_ok() {
                let _ = timeout(KILL_PATIENCE, self.until_ended()).await;
            }
            self.kill_session(pid).await;
        }
        if let Err(status) = self.beside.delete().await {
            tracing::debug!(%status, container = self.beside.id, "what is left of a program goes with its container");
        }
        self.beside.remove_pipes().await;
    }

    /// Kills what the program has begun and left. A program in a container leads a session of its own.
    async fn kill_session(&self, pid: u32) {
        let Ok(session @ 2..) = i32::try_from(pid) else {
            return;
        };
        let cgroups = self.beside.containers.cgroups.clone();
        let (pod_uid, id) = (self.pod_uid.clone(), self.beside.id.clone());
        let killed = files::among_processes(move || {
            let cgroup = cgroups.path(&pod_uid, &id);
            cgroups.kill_session(&cgroup, session)
        });
        let killed = killed.await;
        if let Err(error) = killed {
            tracing::warn!(%error, container = self.beside.id, "cannot kill what a program has begun");
        }
    }

    async fn end(self: &Arc<Self>) {
        let attended = self.clone();
        // It goes on when nobody waits any more; a panic in it is told by the runtime.
        let _ = tokio::spawn(async move { attended.finish().await }).await;
    }

    fn error(&self, verb: &str, status: &Status) -> RuntimeError {
        kill_error(&format!("{verb} a program in"), &self.beside.id, status)
    }
}

/// Ends the program when it is dropped.
struct Handle(Arc<Attended>);

impl Drop for Handle {
    fn drop(&mut self) {
        let attended = self.0.clone();
        if !attended.is_over.load(Relaxed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { attended.finish().await });
        }
    }
}

#[async_trait]
impl Control for Handle {
    async fn wait(&self) -> Result<i32, RuntimeError> {
        self.0.until_ended().await
    }

    async fn copier_answers(&self) -> Result<(), RuntimeError> {
        // containerd keeps no state of processes: it asks the shim.
        let answered = self.0.beside.look().await;
        answered.map_err(|status| self.0.error("look at", &status))?;
        Ok(())
    }

    async fn signal(&self, number: u32) -> Result<(), RuntimeError> {
        let sent = self.0.beside.signal(number).await;
        sent.map_err(|status| self.0.error("signal", &status))
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), RuntimeError> {
        if !self.0.tty || self.0.has_ended.load(Relaxed) {
            return Ok(());
        }
        let resized = self.0.beside.resize(size.columns, size.rows).await;
        resized.map_err(|status| self.0.error("resize the terminal of", &status))
    }

    async fn close_stdin(&self) -> Result<(), RuntimeError> {
        let closed = self.0.beside.close_stdin().await;
        closed.map_err(|status| self.0.error("end the input of", &status))
    }

    async fn end(&self) {
        self.0.end().await;
    }
}
