//! The process namespace that a pod's containers share, and the process that holds it: see [`crate::pause`].

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::netns::{is_pinned, unpin};
use crate::runtime::Paths;

/// A pod's shared process namespace, whether it is there or not.
#[derive(Debug, Clone)]
pub struct Pause {
    /// Where it is pinned.
    pub pin: PathBuf,
    note: PathBuf,
    root: PathBuf,
}

impl Pause {
    /// That of a pod.
    pub fn of(paths: &Paths, pod_uid: &str) -> Self {
        Self {
            pin: paths.pid(pod_uid),
            note: paths.pause(pod_uid),
            root: paths.empty(),
        }
    }

    /// Makes it unless it is there and its first process lives. `command` starts a launcher. When that process has ended, the kernel has ended all others in the namespace. Blocks.
    pub fn ensure(&self, command: &[OsString], netns: &Path) -> io::Result<()> {
        if self.process()?.is_some() {
            return Ok(());
        }
        self.remove()?;
        fs::create_dir_all(&self.root)?;
        for file in [&self.pin, &self.note] {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
        }
        File::create(&self.pin)?;
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let launched = Command::new(program)
            .args(arguments)
            .args(["--pin".as_ref(), self.pin.as_os_str()])
            .args(["--note".as_ref(), self.note.as_os_str()])
            .args(["--netns".as_ref(), netns.as_os_str()])
            .args(["--root".as_ref(), self.root.as_os_str()])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()?;
        if launched.status.success() && self.process()?.is_some() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&launched.stderr);
        let said = said.trim().to_owned();
        self.remove()?;
        Err(io::Error::other(format!(
            "the process that holds the pod's process namespace does not start: {} {said}",
            launched.status
        )))
    }

    /// Ends the process and removes the pin. That there is nothing is success. Blocks.
    pub fn remove(&self) -> io::Result<()> {
        if let Some(process) = self.process()? {
            kill(process, Signal::SIGKILL)?;
        }
        unpin(&self.pin)?;
        crate::files::remove_if_there(&self.note)
    }

    /// The process, while it lives. A process that is in the pinned namespace shows that the first one lives, too.
    fn process(&self) -> io::Result<Option<Pid>> {
        if !is_pinned(&self.pin) {
            return Ok(None);
        }
        let pinned = fs::metadata(&self.pin)?;
        let Some(note) = crate::files::read_if_there(&self.note)? else {
            return Ok(None);
        };
        let Ok(id) = String::from_utf8_lossy(&note).trim().parse::<i32>() else {
            return Ok(None);
        };
        let found = fs::metadata(format!("/proc/{id}/ns/pid"));
        let is_there = found.is_ok_and(|it| (it.dev(), it.ino()) == (pinned.dev(), pinned.ino()));
        Ok((is_there && !has_ended(id)).then(|| Pid::from_raw(id)))
    }
}

/// Whether a process has ended and was not waited for yet: it still names its namespace, which nobody can join any more.
fn has_ended(id: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // Its name, in brackets, may hold anything.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}
