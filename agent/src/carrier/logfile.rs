//! A container's log: whole lines, two files of bounded size.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::cri;

/// A log is rotated once, beyond this many bytes.
pub const LARGEST: u64 = 10 * 1024 * 1024;

/// A log that cannot be rotated grows on, up to this many times [`LARGEST`]. What comes then cannot be written.
const OVERGROWN: u64 = 4;
/// Between two tries to rotate: doubled each time, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A log open for writing.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    largest: u64,
    /// After a rotation that failed: not before, and how long the next pause is.
    retry_at: Option<Instant>,
    pause: Duration,
}

/// Where the older part of a rotated log lies.
pub fn rotated(path: &Path) -> PathBuf {
    beside(path, ".1")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

impl LogFile {
    /// Opens a log to append to it, and cuts off a line that a death left unfinished: its bytes are still in the pipe.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_largest(path, LARGEST)
    }

    pub(super) fn with_largest(path: &Path, largest: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let size = end_of_last_line(&mut file)?;
        file.set_len(size)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            largest,
            retry_at: None,
            pause: SHORTEST_PAUSE,
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines, all or none. When the log cannot be rotated, it grows beyond its size meanwhile.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let is_full = |log: &Self, largest| log.size > 0 && log.size + lines.len() as u64 > largest;
        let may_try = self.retry_at.is_none_or(|at| Instant::now() >= at);
        if is_full(self, self.largest) && may_try {
            match self.rotate() {
                Ok(()) => (self.retry_at, self.pause) = (None, SHORTEST_PAUSE),
                Err(error) => {
                    tracing::warn!(log = %self.path.display(), %error, "cannot rotate: the log grows on");
                    self.retry_at = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        if is_full(self, self.largest.saturating_mul(OVERGROWN)) {
            let why = "it cannot be rotated, and is too large to grow on";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        if let Err(error) = self.file.write_all(lines) {
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    /// The next file is made before anything is moved. After an error at any point the open file is still the newest one, and
    /// trying again goes on from there.
    fn rotate(&mut self) -> io::Result<()> {
        let next = beside(&self.path, ".next");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&next)
            .and_then(|_| OpenOptions::new().read(true).append(true).open(&next))?;
        match fs::rename(&self.path, rotated(&self.path)) {
            // An earlier try came as far as this.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let _ = fs::remove_file(&next);
                return Err(error);
            }
            _ => {}
        }
        fs::rename(&next, &self.path)?;
        (self.file, self.size) = (file, 0);
        Ok(())
    }
}

fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    // A torn batch ends in a torn line, and no line is longer than this.
    let start = length.saturating_sub(cri::LONGEST_LINE as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::with_capacity(cri::LONGEST_LINE);
    file.take(cri::LONGEST_LINE as u64).read_to_end(&mut tail)?;
    let kept = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    Ok(start + kept as u64)
}

/// Removes the logs of all attempts before the one before `attempt`.
pub fn forget_older(path: &Path, attempt: u32) -> io::Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_string_lossy();
        let number = number.split('.').next().and_then(|n| n.parse::<u32>().ok());
        if number.is_some_and(|number| number.saturating_add(1) < attempt) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/0.log");
        LogFile::open(&path).unwrap().append(b"one\n").unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"tw")
            .unwrap();
        LogFile::open(&path).unwrap().append(b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\nthree\n");
    }

    #[test]
    fn two_files_of_bounded_size_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::with_largest(&path, 20).unwrap();
        for n in 0..10 {
            log.append(format!("line {n}\n").as_bytes()).unwrap();
        }
        assert_eq!(
            fs::read_to_string(rotated(&path)).unwrap(),
            "line 6\nline 7\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 8\nline 9\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// Appends numbered lines until `done`; answers how many.
    fn append_until(log: &mut LogFile, from: usize, done: impl Fn(&LogFile) -> bool) -> usize {
        let begun = Instant::now();
        let mut number = from;
        while !done(log) {
            assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain");
            log.append(format!("line {number}\n").as_bytes()).unwrap();
            number += 1;
            std::thread::yield_now();
        }
        number
    }

    #[test]
    fn a_rotation_that_fails_loses_nothing_and_is_tried_again() {
        // What stands in the way: of the older part, and of the next file.
        for obstacle in ["0.log.1", "0.log.next"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("0.log");
            let obstacle = folder.path().join(obstacle);
            fs::create_dir_all(obstacle.join("x")).unwrap();
            let mut log = LogFile::with_largest(&path, 1000).unwrap();
            log.pause = Duration::from_millis(1);
            let count = append_until(&mut log, 0, |log| log.size > 2000);
            let all: String = (0..count).map(|n| format!("line {n}\n")).collect();
            assert_eq!(fs::read_to_string(&path).unwrap(), all);
            fs::remove_dir_all(&obstacle).unwrap();
            // However long the pause has become by now.
            log.retry_at = log.retry_at.map(|_| Instant::now());
            log.append(b"last\n").unwrap();
            assert_eq!(fs::read_to_string(rotated(&path)).unwrap(), all);
            assert_eq!(fs::read_to_string(&path).unwrap(), "last\n");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_rotation_that_fails_has_a_pause_and_the_log_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::create_dir_all(rotated(&path).join("x")).unwrap();
        let mut log = LogFile::with_largest(&path, 100).unwrap();
        append_until(&mut log, 0, |log| log.size > 150);
        assert!(log.retry_at.is_some());
        assert_eq!(log.pause, SHORTEST_PAUSE * 2, "tried once");
        let error = loop {
            if let Err(error) = log.append(b"more\n") {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(fs::metadata(&path).unwrap().len() <= 400);
    }

    #[test]
    fn a_rotation_that_died_in_the_middle_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::with_largest(&path, 20).unwrap();
        log.append(b"line 0, the longest\n").unwrap();
        // The older part was moved, and the next file was not.
        fs::rename(&path, rotated(&path)).unwrap();
        log.append(b"line 1\n").unwrap();
        assert_eq!(
            fs::read_to_string(rotated(&path)).unwrap(),
            "line 0, the longest\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 1\n");
    }

    #[test]
    fn this_attempt_and_the_last_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for attempt in 0..4 {
            let path = folder.path().join(format!("{attempt}.log"));
            fs::write(&path, "x").unwrap();
            fs::write(rotated(&path), "x").unwrap();
            forget_older(&path, attempt).unwrap();
        }
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["2.log", "2.log.1", "3.log", "3.log.1"]);
    }
}
