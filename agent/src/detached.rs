//! Processes that outlive the one that starts them: the carrier and the name server, where no supervisor runs them.

use std::{ffi::OsString, fs::OpenOptions, io, path::PathBuf, process::Stdio};

use barge_client::supervisor::Supervisor;
use tokio::process::{Child, Command};

use crate::files;

/// Beyond this many bytes a process's own messages are thrown away at its next start.
const LARGEST_LOG: u64 = 1024 * 1024;

/// Starts a program with its arguments and `--data-dir D`. Its messages go to the end of a file.
///
/// # Errors
/// What the disk or the kernel says.
pub async fn start(command: &[OsString], data_dir: PathBuf, log: PathBuf) -> io::Result<Child> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = data_dir.clone();
    let opened = files::blocking(move || {
        std::fs::create_dir_all(folder)?;
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        if log.metadata()?.len() > LARGEST_LOG {
            log.set_len(0)?;
        }
        Ok((log.try_clone()?, log))
    });
    let (output, errors) = opened.await?;
    let mut command = Command::new(program);
    for variable in Supervisor::VARIABLES {
        command.env_remove(variable);
    }
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .kill_on_drop(false)
        .spawn()
}
