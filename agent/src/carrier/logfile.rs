//! A container's log: whole lines, two files of bounded size.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::cri;

/// A log is rotated once, beyond this many bytes.
pub const LARGEST: u64 = 10 * 1024 * 1024;

/// A log open for writing.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    largest: u64,
}

/// Where the older part of a rotated log lies.
pub fn rotated(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
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
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines, all or none.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.largest {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(lines) {
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, rotated(&self.path))?;
        *self = Self::with_largest(&self.path, self.largest)?;
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
