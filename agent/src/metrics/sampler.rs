//! Measures in four loops of their own: containers, the pods' networks, the containers' disk, the machine. One that hangs does not hold up the others.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    machine,
    shelf::Shelf,
    store::{Running, Store},
};
use crate::runtime::{Container, ContainerState, Runtime};

/// Between two samples of a container and of the machine.
const SECOND: Duration = Duration::from_secs(1);
/// Between two samples of the pods' networks.
const NETWORK: Duration = Duration::from_secs(5);
/// Between two looks at the disk that a container takes, unless it takes long to find out.
const STORAGE: Duration = Duration::from_secs(60);
/// Counting the files of a container rests for so many times as long as it took.
const REST: u32 = 9;

/// What sampling needs.
#[derive(Clone)]
pub struct Options {
    /// Has the counters.
    pub runtime: Arc<dyn Runtime>,
    /// Gets the samples, and knows what runs.
    pub store: Store,
    /// `/proc`, but in tests.
    pub proc: PathBuf,
    /// On the file system that images and logs fill.
    pub data_dir: PathBuf,
}

/// Measures until `stop` is cancelled.
pub async fn run(options: Options, stop: CancellationToken) {
    let all = async {
        tokio::join!(
            containers(&options, &stop),
            networks(&options),
            storage(&options),
            machines(&options),
        )
    };
    stop.clone().run_until_cancelled(all).await;
}

fn each(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    // After a pause there is nothing to catch up with.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn containers(options: &Options, stop: &CancellationToken) {
    let shelf = Shelf::new(options.runtime.clone(), options.store.clone(), stop.clone());
    let mut ticks = each(SECOND);
    loop {
        ticks.tick().await;
        if let Some(turn) = shelf.begin(options.store.running()) {
            let shelf = shelf.clone();
            // Not waited for: it may hang, and the next round goes on without it.
            drop(spawn_blocking(move || shelf.read(turn)));
        }
    }
}

async fn networks(options: &Options) {
    let mut ticks = each(NETWORK);
    loop {
        ticks.tick().await;
        let pods = options.store.running_pods();
        if pods.is_empty() {
            continue;
        }
        let runtime = options.runtime.clone();
        let read = spawn_blocking(move || runtime.traffic(&pods)).await;
        match read.map_err(std::io::Error::other).flatten() {
            Ok(all) => {
                for (uid, traffic) in all {
                    options.store.put_traffic(&uid, traffic);
                }
            }
            Err(error) => tracing::debug!(%error, "cannot read what the pods' interfaces carried"),
        }
    }
}

/// Counts what containers have on the disk, one after the other. Those of pods with a limit are counted by their pods' workers, too: that is not done twice.
async fn storage(options: &Options) {
    let store = &options.store;
    loop {
        let begin = Instant::now();
        store.sweep();
        for container in store.running() {
            let known = store.storage_age(&container);
            if known.is_some_and(|age| age < STORAGE) {
                continue;
            }
            let begin = Instant::now();
            match options.runtime.container_bytes(&listed(&container)).await {
                Ok(bytes) => store.put_storage(&container, bytes),
                Err(error) => {
                    tracing::debug!(container = container.id, %error, "cannot count what a container has on the disk");
                }
            }
            sleep(begin.elapsed() * REST).await;
        }
        sleep(SECOND.max(STORAGE.saturating_sub(begin.elapsed()))).await;
    }
}

/// The container as the runtime lists it, as far as is needed to count its files.
fn listed(of: &Running) -> Container {
    Container {
        id: of.id.clone(),
        pod_uid: of.pod_uid.clone(),
        name: of.name.clone(),
        attempt: of.attempt,
        image_id: String::new(),
        image: String::new(),
        state: ContainerState::Created,
    }
}

async fn machines(options: &Options) {
    let mut ticks = each(SECOND);
    let looking = Arc::new(Semaphore::new(1));
    let mut looked = None::<Instant>;
    loop {
        ticks.tick().await;
        let proc = options.proc.clone();
        let read = spawn_blocking(move || machine::read(&proc)).await;
        match read.map_err(std::io::Error::other).flatten() {
            Ok(usage) => options.store.put_machine(usage),
            Err(error) => tracing::debug!(%error, "cannot read what the machine takes"),
        }
        let due = looked.is_none_or(|at| at.elapsed() >= STORAGE);
        if let (true, Ok(turn)) = (due, looking.clone().try_acquire_owned()) {
            looked = Some(Instant::now());
            let (folder, store) = (options.data_dir.clone(), options.store.clone());
            // Not waited for: a disk that hangs holds one thread, and nothing else.
            drop(spawn_blocking(move || {
                match machine::disk(&folder) {
                    Ok(disk) => store.put_disk(disk),
                    Err(error) => tracing::debug!(%error, "cannot tell how full the disk is"),
                }
                drop(turn);
            }));
        }
    }
}

#[cfg(test)]
mod tests;
