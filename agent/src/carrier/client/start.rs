//! Starting a carrier.

use tokio::process::Child;

use super::{Carrier, CarrierError};
use crate::detached;

impl Carrier {
    /// Starts a process that outlives this one. It ends at once when another carrier has the lock.
    pub(super) async fn start(&self) -> Result<Child, CarrierError> {
        let folder = self.paths.data_dir().to_owned();
        let started = detached::start(&self.command, folder, self.paths.carrier_log()).await;
        started.map_err(|source| {
            let program = self.command.first();
            CarrierError::Spawn {
                program: program.map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
                source,
            }
        })
    }
}
