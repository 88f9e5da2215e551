//! A file of whole lines that begins anew when it is large, and of which some older ones are kept.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const NAME: &str = "audit.log";

/// How large, and how many.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Bytes of a file, above which the next one begins. Default 16 MiB.
    pub bytes: u64,
    /// Older files that are kept: `audit.log.1` is the youngest. Default 9.
    pub kept: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            kept: 9,
        }
    }
}

/// The file, opened with the first line and again after an error.
#[derive(Debug)]
pub struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    /// The file and the length of what is whole in it.
    open: Option<(File, u64)>,
}

impl Rotated {
    /// `audit.log` in `folder`.
    pub fn new(folder: &Path, rotation: Rotation) -> Self {
        Self {
            path: folder.join(NAME),
            rotation,
            open: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends whole lines: all of them, or none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let (mut file, length) = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        if let Err(error) = file.write_all(lines) {
            // The disk is full, most likely: half a line would spoil the next one. Shrinking needs no space.
            file.set_len(length)?;
            return Err(error);
        }
        let length = length + lines.len() as u64;
        if length >= self.rotation.bytes {
            file.sync_all()?;
            drop(file);
            return self.rotate();
        }
        self.open = Some((file, length));
        Ok(())
    }

    fn reopen(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Makes room for a new file; the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        for number in (0..self.rotation.kept).rev() {
            match fs::rename(self.older(number), self.older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn older(&self, number: u32) -> PathBuf {
        match number {
            0 => self.path.clone(),
            number => self.path.with_file_name(format!("{NAME}.{number}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn large_files_make_room_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { bytes: 10, kept: 2 };
        let mut log = Rotated::new(dir.path(), rotation);
        for number in 0..8 {
            log.append(format!("line {number}\n").as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        // Two lines a file; the last file is full, so that the next line begins another.
        assert_eq!(read("audit.log"), "");
        assert_eq!(read("audit.log.1"), "line 6\nline 7\n");
        assert_eq!(read("audit.log.2"), "line 4\nline 5\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn it_is_private_and_goes_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for line in ["one\n", "two\n"] {
            let mut log = Rotated::new(dir.path(), Rotation::default());
            log.append(line.as_bytes()).unwrap();
        }
        let path = dir.path().join("audit.log");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
