//! Removes images when the disk is nearly full: those that no pod of the node names, the longest unused first.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    desired::Desired,
    events::{Recorder, Severity, node_reference},
    pods::spec,
    runtime::{Runtime, RuntimeError, complete_name},
};

mod plan;

use plan::Uses;
pub use plan::{Thresholds, ThresholdsError};

/// Between two looks at the disk: a pull of a few hundred megabytes does not fill the last sixth of a disk in that time.
const PERIOD: Duration = Duration::from_secs(60);
/// Looks that say nothing of the same trouble: an hour of them.
const SILENT: u32 = 60;

/// What the collector needs.
pub struct Options {
    /// Has the images.
    pub runtime: Arc<dyn Runtime>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where events go.
    pub recorder: Recorder,
    /// What should run here.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// When to begin and when to stop.
    pub thresholds: Thresholds,
}

/// Looks at the disk of the images again and again.
pub struct Collector {
    options: Options,
    uses: Uses,
    /// Looks for which the trouble that was told last is not told again.
    silent: u32,
}

/// Why a look ended without enough room.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot collect images: {0}")]
    Failed(#[from] RuntimeError),
    #[error(
        "the file system of the images is {percent} % full, and no image is left that may be removed: those of the pods on this node stay; \
         remove what else is there, or make the disk larger"
    )]
    NothingLeft { percent: u64 },
}

impl Trouble {
    /// As the kubelet calls it.
    fn reason(&self) -> &'static str {
        match self {
            Self::Failed(_) => "ImageGCFailed",
            Self::NothingLeft { .. } => "FreeDiskSpaceFailed",
        }
    }
}

impl Collector {
    /// Nothing happens until `run`.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            uses: Uses::default(),
            silent: 0,
        }
    }

    /// Works until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let forever = async {
            loop {
                looks.tick().await;
                let looked = self.look().await;
                self.tell(looked);
            }
        };
        stop.run_until_cancelled(forever).await;
    }

    /// One look: notes which images are in use, and removes others until the disk has room.
    async fn look(&mut self) -> Result<(), Trouble> {
        let runtime = self.options.runtime.clone();
        let store = runtime.images().await?;
        let in_use = self.in_use().await?;
        let now = self.options.clock.now_ms();
        self.uses.note(&store.images, &in_use, now);
        let thresholds = self.options.thresholds;
        let Some(disk) = store.disk.filter(|disk| thresholds.is_reached(disk)) else {
            return Ok(());
        };
        let mut disk = disk;
        for name in self.uses.removable(&store.images, &in_use, now) {
            if thresholds.is_enough(&disk) {
                return Ok(());
            }
            // A pod may have come since.
            if self.named().contains(&name) {
                continue;
            }
            if !runtime.remove_image(&name).await? {
                continue;
            }
            tracing::info!(
                image = name,
                "removed an image that nothing here uses, to make room"
            );
            match runtime.images().await?.disk {
                Some(now) => disk = now,
                // Nobody says how full it is any more.
                None => return Ok(()),
            }
        }
        match thresholds.is_reached(&disk) {
            true => Err(Trouble::NothingLeft {
                percent: plan::percent(&disk),
            }),
            false => Ok(()),
        }
    }

    /// Complete names of the images that pods of the node name, or that containers here were made from, whether these run or not.
    async fn in_use(&self) -> Result<BTreeSet<String>, RuntimeError> {
        let inventory = self.options.runtime.list().await?;
        let mut names = self.named();
        let containers = inventory.containers.iter();
        names.extend(containers.filter_map(|container| complete_name(&container.image)));
        Ok(names)
    }

    fn named(&self) -> BTreeSet<String> {
        let desired = self.options.desired.borrow().clone();
        let images = desired.pods.values().flat_map(|pod| spec::images(pod));
        images.filter_map(complete_name).collect()
    }

    fn tell(&mut self, looked: Result<(), Trouble>) {
        let Err(trouble) = looked else {
            self.silent = 0;
            return;
        };
        if self.silent > 0 {
            self.silent -= 1;
            return;
        }
        self.silent = SILENT;
        tracing::warn!("{trouble}");
        let desired = self.options.desired.borrow().clone();
        if let Some(node) = desired.node() {
            let reason = trouble.reason();
            let recorder = &self.options.recorder;
            recorder.record(
                node_reference(node),
                Severity::Warning,
                reason,
                trouble.to_string(),
            );
        }
    }
}

#[cfg(test)]
mod tests;
