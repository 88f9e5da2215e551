//! Starting a carrier.

use std::{fs, io, process::Stdio};

use barge_client::supervisor::Supervisor;
use tokio::process::{Child, Command};

use super::{Carrier, CarrierError};

/// Beyond this many bytes the carrier's own messages are thrown away at its next start.
const LARGEST_OWN_LOG: u64 = 1024 * 1024;

impl Carrier {
    /// Starts a process that outlives this one. It ends at once when another carrier has the lock.
    pub(super) fn start(&self) -> Result<Child, CarrierError> {
        let (program, arguments) =
            self.command
                .split_first()
                .ok_or_else(|| CarrierError::Spawn {
                    program: String::new(),
                    source: io::ErrorKind::InvalidInput.into(),
                })?;
        let start = || {
            fs::create_dir_all(self.paths.data_dir())?;
            let log = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.paths.carrier_log())?;
            if log.metadata()?.len() > LARGEST_OWN_LOG {
                log.set_len(0)?;
            }
            let mut command = Command::new(program);
            for variable in Supervisor::VARIABLES {
                command.env_remove(variable);
            }
            command
                .args(arguments)
                .arg("--data-dir")
                .arg(self.paths.data_dir())
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .kill_on_drop(false)
                .spawn()
        };
        start().map_err(|source| CarrierError::Spawn {
            program: program.to_string_lossy().into_owned(),
            source,
        })
    }
}
