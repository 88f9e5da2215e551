//! What the containers of the runtime in memory take: counters, and bytes on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Scripted;
use crate::runtime::{Meter, Usage};

/// What containers take, by id, and those whose counters cannot be read to the end.
#[derive(Debug, Default)]
pub struct Scales(Mutex<(BTreeMap<String, Usage>, BTreeSet<String>)>);

/// The counters of a container.
struct Scale {
    scales: Arc<Scales>,
    id: String,
}

impl Scripted {
    /// From now on each emptyDir takes so many bytes.
    pub fn fill_volumes(&self, bytes: u64) {
        self.world().volume_bytes = bytes;
    }

    /// From now on each container of this name takes so many bytes.
    pub fn fill_containers(&self, name: &str, bytes: u64) {
        self.world().container_bytes.insert(name.to_owned(), bytes);
    }

    /// From now on the files in `/etc` of each pod take so many bytes.
    pub fn fill_etc(&self, bytes: u64) {
        self.world().own_bytes = bytes;
    }

    /// From now on a container takes this.
    pub fn uses(&self, id: &str, usage: Usage) {
        self.scales.lock().0.insert(id.to_owned(), usage);
    }

    /// Reads of the counters of a container do not end from now on, or end again.
    pub fn hang_meter(&self, id: &str, hangs: bool) {
        let hanging = &mut self.scales.lock().1;
        match hangs {
            true => hanging.insert(id.to_owned()),
            false => hanging.remove(id),
        };
    }

    /// The counters of a container, which count nothing unless it was said what.
    pub(super) fn scale(&self, id: &str) -> Box<dyn Meter> {
        Box::new(Scale {
            scales: self.scales.clone(),
            id: id.to_owned(),
        })
    }
}

impl Scales {
    fn lock(&self) -> MutexGuard<'_, (BTreeMap<String, Usage>, BTreeSet<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter for Scale {
    fn read(&mut self) -> io::Result<Usage> {
        while self.scales.lock().1.contains(&self.id) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self
            .scales
            .lock()
            .0
            .get(&self.id)
            .copied()
            .unwrap_or_default())
    }
}
