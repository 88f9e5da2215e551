//! Processes that outlive `barge`: started detached, known by id and start time, ended by signal.

use std::{
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// How long a process may take to end after TERM.
const GRACE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(10);

/// A process, told from a later one with the same id by its start time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: i32,
    /// In clock ticks since boot (proc(5), field 22 of stat).
    pub start: u64,
}

impl Process {
    /// Starts a command in a process group of its own, with its output at the end of a file.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let pid = i32::try_from(child.id()).context("read a process id")?;
        let start = stat(pid)
            .with_context(|| format!("{program} ended at once; see {}", log.display()))?
            .start;
        Ok(Self {
            name: name.to_owned(),
            pid,
            start,
        })
    }

    /// Whether any of its threads runs: it is not gone, and no other process has its id.
    pub fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && !stat.ended())
    }

    /// Asks it to end.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Ends it with KILL, as a crash would; it is not waited for.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// TERM, then after a grace KILL; returns when it is gone.
    pub fn end(&self) -> Result<()> {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let begin = Instant::now();
            self.signal(signal)?;
            while self.alive() && begin.elapsed() < GRACE {
                thread::sleep(POLL);
            }
            if !self.alive() {
                return Ok(());
            }
        }
        bail!("{} (process {}) does not end", self.name, self.pid)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("end {}", self.name)),
        }
    }
}

/// The processes of a program (or of those whose name begins like it) with a text in their arguments; how to find what
/// our own children started, and what was started but not written down.
pub fn of_program(program: &str, argument: &str) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let entry = entry.context("list processes")?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // It may have ended meanwhile.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if !is_of(&String::from_utf8_lossy(&line), program, argument) {
            continue;
        }
        if let Some(stat) = stat(pid) {
            found.push(Process {
                name: program.to_owned(),
                pid,
                start: stat.start,
            });
        }
    }
    Ok(found)
}

/// Whether a command line is the program's and has the argument. Somebody who reads a log of the cluster is not meant.
fn is_of(line: &str, program: &str, argument: &str) -> bool {
    let mut words = line.split('\0');
    let name = words.next().unwrap_or_default().rsplit('/').next();
    name.is_some_and(|name| name.starts_with(program)) && words.any(|word| word.contains(argument))
}

/// Kills every process of a cgroup, and returns when the list is empty.
pub fn end_all(list: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        let text = fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?;
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if pids.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > GRACE {
            bail!("processes {pids:?} do not end");
        }
        for pid in pids {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("end process {pid}")),
            }
        }
        thread::sleep(POLL);
    }
}

/// A program of Barge: beside this one, or on the PATH.
pub fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name(name));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// Runs a command that has to succeed; answers what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}: is it installed?"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

struct Stat {
    state: char,
    threads: u64,
    start: u64,
}

impl Stat {
    /// A zombie whose other threads still run has its ports and files.
    fn ended(&self) -> bool {
        self.state == 'Z' && self.threads <= 1
    }
}

/// proc(5): the name is in parentheses and may hold anything; state is the word behind it, the number of threads the 18th,
/// the start time the 20th.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some(Stat {
        state: words.next()?.chars().next()?,
        threads: words.nth(16)?.parse().ok()?,
        start: words.nth(1)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_itself_is_meant() {
        let is = |line: &str| is_of(line, "containerd", "/tmp/dev/");
        assert!(is(
            "/usr/bin/containerd\0--config\0/tmp/dev/agents/1/containerd.toml\0"
        ));
        assert!(is(
            "/usr/bin/containerd-shim-runc-v2\0-address\0/tmp/dev/agents/1/x.sock\0"
        ));
        assert!(!is(
            "containerd\0--config\0/tmp/dev2/agents/1/containerd.toml\0"
        ));
        assert!(!is("tail\0-f\0/tmp/dev/logs/containerd-1.log\0"));
        assert!(!is(""));
    }

    #[test]
    fn a_process_is_known_by_its_start_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("300");
        let process = Process::spawn("sleeper", command, &dir.path().join("log")).unwrap();
        assert!(process.alive());
        let other = Process {
            start: process.start + 1,
            ..process.clone()
        };
        assert!(!other.alive());
        other.end().unwrap();
        assert!(
            process.alive(),
            "another process with that id is left alone"
        );
        process.end().unwrap();
        assert!(!process.alive());
    }
}
