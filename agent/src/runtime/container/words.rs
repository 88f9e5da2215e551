//! The last words of containers: each has a file of its own for them, and what is in it when the container has ended becomes part of
//! the pod's status.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::fcntl::OFlag;

use super::{Container, Containers, RuntimeError, reason};
use crate::{carrier::cri, files, runtime::LastWords};

/// Whoever the container's processes are, they may write.
const MODE: u32 = 0o666;
/// Of a log that stands in: bytes, and lines (Kubernetes' MaxContainerTerminationMessageLogLength and -Lines).
const LOG: (usize, usize) = (2048, 80);
/// Bytes from the end of a log in which its last lines are looked for. Entries have their time and channel before the words.
const LOG_READ: u64 = 64 * 1024;

/// Makes the empty file of a container that is about to be made. Blocks.
pub fn make(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // One that an earlier try left is emptied.
    File::create(path)?.set_permissions(Permissions::from_mode(MODE))
}

impl Containers {
    /// What a container that ended left behind as its last words.
    pub async fn last_words(
        &self,
        container: &Container,
        wanted: LastWords,
    ) -> Result<String, RuntimeError> {
        let paths = &self.options.paths;
        let (uid, name, attempt) = (&container.pod_uid, &container.name, container.attempt);
        let (file, log) = (
            paths.last_words(uid, name, attempt),
            paths.log(uid, name, attempt),
        );
        let unread = |error: io::Error| {
            let message = format!("cannot read the last words of {}: {error}", container.id);
            RuntimeError::passing(reason::UNAVAILABLE, message)
        };
        let read = files::reading(move || beginning(&file, wanted.most));
        let words = read.await.map_err(unread)?;
        if !words.is_empty() || !wanted.or_log {
            return Ok(words);
        }
        // What is in the pipe still is in no log; an error only shortens what is read.
        if let Err(error) = self.carrier.settle(&container.id).await {
            tracing::debug!(container = container.id, %error, "the log may lack its end");
        }
        let read = files::reading(move || end_of_log(&log, wanted.most.min(LOG.0)));
        read.await.map_err(unread)
    }
}

/// The beginning of the file, as text. That there is none is nothing.
fn beginning(path: &Path, most: usize) -> io::Result<String> {
    // The container may have put anything in its place that it has a right to.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes)?;
    Ok(text(&bytes))
}

/// The last lines of a log, as the container wrote them.
fn end_of_log(path: &Path, most: usize) -> io::Result<String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let from = file.metadata()?.len().saturating_sub(LOG_READ);
    file.seek(SeekFrom::Start(from))?;
    let mut read = Vec::new();
    file.take(LOG_READ).read_to_end(&mut read)?;
    let mut entries = read.split_inclusive(|byte| *byte == b'\n');
    if from > 0 {
        // It begins in the middle of an entry.
        entries.next();
    }
    let mut said = Vec::new();
    for entry in entries.filter_map(cri::decode) {
        cri::write_raw(&entry, &mut said);
    }
    let from = said.len().saturating_sub(most);
    let mut said = &said[from..];
    let lines = said.split_inclusive(|byte| *byte == b'\n').count();
    for _ in LOG.1..lines {
        let end = said.iter().position(|byte| *byte == b'\n');
        said = end.map_or(&[], |end| &said[end + 1..]);
    }
    Ok(text(said))
}

/// As text, without the halves of characters that a cut left at the ends.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_matches(char::REPLACEMENT_CHARACTER).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_read_to_its_bound_and_what_is_none_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words/web.0");
        assert_eq!(beginning(&path, 10).unwrap(), "");
        make(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(beginning(&path, 10).unwrap(), "");
        fs::write(&path, "no room for ä").unwrap();
        assert_eq!(beginning(&path, 100).unwrap(), "no room for ä");
        // Half of the last character.
        assert_eq!(beginning(&path, 13).unwrap(), "no room for ");
        make(&path).unwrap();
        assert_eq!(beginning(&path, 100).unwrap(), "");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(beginning(&path, 100).unwrap(), "");
    }

    #[test]
    fn a_log_gives_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        assert_eq!(end_of_log(&path, 100).unwrap(), "");
        let time = "2026-01-02T03:04:05.000000000Z";
        let mut log: String = (0..500)
            .map(|n| format!("{time} stdout F line {n}\n"))
            .collect();
        log += &format!("{time} stderr P panic: \n{time} stderr F no memory\n");
        fs::write(&path, &log).unwrap();
        let end = end_of_log(&path, 2048).unwrap();
        assert!(end.ends_with("line 499\npanic: no memory\n"), "{end}");
        assert_eq!(end.lines().count(), 80);
        assert_eq!(end_of_log(&path, 10).unwrap(), "no memory\n");
    }
}
