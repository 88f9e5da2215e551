//! Free space on the disk that a manager's data is on, and the floor that it should not sink below.

use std::{fmt, io, path::Path};

use barge_proto::quantity::Amount;

/// The smallest default floor, in bytes: room for two snapshots' worth of log, which followers go on to receive.
const MIN: u64 = 128 << 20;
/// The largest default floor, in bytes.
const MAX: u64 = 4 << 30;
/// The default floor is the disk's size divided by this, within those two.
const SHARE: u64 = 20;
/// Below the floor is left behind when so much more than the floor is free, divided by this: a disk at the floor would
/// otherwise refuse and accept in turns.
const MARGIN: u64 = 4;

/// How much of a disk is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// In bytes, for a process without privileges.
    pub free: u64,
    /// In bytes.
    pub floor: u64,
    /// Whether it sank below the floor and has not risen well above it since.
    pub low: bool,
}

impl Space {
    /// Asks the file system. `floor` is in bytes; 5 % of the disk, but at least 128 MiB and at most 4 GiB, when it is not
    /// given.
    ///
    /// # Errors
    /// What the system says.
    pub fn measure(path: &Path, floor: Option<u64>, before: Self) -> io::Result<Self> {
        let disk = nix::sys::statvfs::statvfs(path)?;
        let unit = disk.fragment_size();
        let size = disk.blocks().saturating_mul(unit);
        let free = disk.blocks_available().saturating_mul(unit);
        Ok(before.then(free, floor.unwrap_or_else(|| default_floor(size))))
    }

    fn then(self, free: u64, floor: u64) -> Self {
        let enough = match self.low {
            true => floor.saturating_add(floor / MARGIN),
            false => floor,
        };
        Self {
            free,
            floor,
            low: free < enough,
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} free, {} needed", mib(self.free), mib(self.floor))
    }
}

fn mib(bytes: u64) -> Amount {
    let whole = i64::try_from(bytes >> 20 << 20).unwrap_or(i64::MAX);
    Amount::from_bytes(whole)
}

fn default_floor(size: u64) -> u64 {
    (size / SHARE).clamp(MIN, MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_sank_below_the_floor_has_to_rise_well_above_it() {
        let levels = [
            (500, false),
            (400, false),
            (399, true),
            (400, true),
            (499, true),
            (500, false),
            (400, false),
        ];
        let mut space = Space::default();
        for (free, low) in levels {
            space = space.then(free, 400);
            assert_eq!(space.low, low, "{free}");
        }
    }

    #[test]
    fn the_default_floor_suits_small_and_large_disks() {
        assert_eq!(default_floor(1 << 30), MIN);
        assert_eq!(default_floor(20 << 30), 1 << 30);
        assert_eq!(default_floor(10 << 40), MAX);
    }

    #[test]
    fn asks_a_real_disk() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::measure(dir.path(), Some(u64::MAX), Space::default()).unwrap();
        assert!(space.free > 0 && space.low);
        assert!(
            !Space::measure(dir.path(), Some(1), Space::default())
                .unwrap()
                .low
        );
    }

    #[test]
    fn says_it_in_units_that_people_use() {
        let space = Space::default().then((96 << 20) + 5, 128 << 20);
        assert_eq!(space.to_string(), "96Mi free, 128Mi needed");
    }
}
