//! A disk that hangs when it is told to: a file system on a loop device, frozen.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub struct Disk {
    at: PathBuf,
    _image: tempfile::NamedTempFile,
}

impl Disk {
    /// An empty one. Needs root.
    pub fn mount(at: &Path) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(64 << 20).unwrap();
        let path = image.path().to_str().unwrap().to_owned();
        run("mkfs.ext4", &["-q", &path]);
        fs::create_dir_all(at).unwrap();
        run("mount", &["-o", "loop", &path, at.to_str().unwrap()]);
        Self {
            at: at.to_owned(),
            _image: image,
        }
    }

    /// Whoever writes waits from now on.
    pub fn freeze(&self) {
        run("fsfreeze", &["--freeze", self.at.to_str().unwrap()]);
    }

    pub fn thaw(&self) {
        run("fsfreeze", &["--unfreeze", self.at.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Fails when it is not frozen.
        let _ = Command::new("fsfreeze")
            .arg("--unfreeze")
            .arg(&self.at)
            .output();
        run("umount", &["--lazy", self.at.to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} has to be installed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}
