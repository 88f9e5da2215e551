//! The file system of the data folder.

use std::{collections::BTreeMap, io, path::Path};

use barge_proto::v1::{Condition, NodeStatus, Quantity};
use nix::sys::statvfs::{Statvfs, statvfs};

use super::{DISK_PRESSURE, Sources, condition as with_reason, read_text};
use crate::files::{Reserve, is_full};

/// There is disk pressure with less than that free, in percent of all bytes, as in Kubernetes.
const FREE_BYTES: u64 = 10;
/// And of all inodes.
const FREE_INODES: u64 = 5;
/// Pressure ends only with so much more: or it would come and go with each image.
const MARGIN: u64 = 2;

/// The resource that a disk is for pods.
const STORAGE: &str = "ephemeral-storage";

/// Puts the disk among what the node has: `total` bytes, and for pods all of it but what has to be free. A disk that does not answer is as it was `before`.
pub fn put_resources(status: &mut NodeStatus, total: Option<u64>, before: Option<&NodeStatus>) {
    let amounts = match total {
        Some(total) => {
            let quantity = |bytes: u64| Quantity {
                value: format!("{}Ki", bytes / 1024),
            };
            let allocatable = total / 100 * (100 - FREE_BYTES);
            (total > 0).then(|| (quantity(total), quantity(allocatable)))
        }
        None => before.and_then(|before| {
            let amount = |of: &BTreeMap<String, Quantity>| of.get(STORAGE).cloned();
            Some((amount(&before.capacity)?, amount(&before.allocatable)?))
        }),
    };
    if let Some((capacity, allocatable)) = amounts {
        status.capacity.insert(STORAGE.to_owned(), capacity);
        status.allocatable.insert(STORAGE.to_owned(), allocatable);
    }
}

/// A look at the disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Of the machine.
    pub machine_id: String,
    /// Of the operating system.
    pub os_image: String,
    /// Bytes of the file system; 0 when that is not known.
    pub total: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Enough,
    /// Too little is free.
    Short,
    /// Not even the reserve has room.
    Full,
}

impl Disk {
    /// Looks, and makes the reserve when there is none and room for it. Blocks.
    pub fn look(sources: &Sources, was_short: bool) -> Self {
        let release = read_text(&sources.etc.join("os-release"));
        let os_image = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .map(|name| name.trim_matches('"').to_owned());
        Self {
            machine_id: read_text(&sources.etc.join("machine-id")).trim().to_owned(),
            os_image: os_image.unwrap_or_default(),
            total: statvfs(&sources.data_dir)
                .map_or(0, |disk| disk.blocks() * disk.fragment_size()),
            state: state(&sources.data_dir, was_short),
        }
    }
}

fn state(data_dir: &Path, was_short: bool) -> State {
    let has_reserve = match Reserve::of(data_dir).keep() {
        Ok(has) => has,
        Err(error) if is_full(&error) => false,
        Err(error) => {
            tracing::debug!(%error, "cannot make the reserve");
            true
        }
    };
    if !has_reserve {
        return State::Full;
    }
    let disk = statvfs(data_dir).map_err(io::Error::from);
    match disk.is_ok_and(|disk| is_short(&disk, was_short)) {
        true => State::Short,
        false => State::Enough,
    }
}

fn is_short(disk: &Statvfs, was_short: bool) -> bool {
    let margin = if was_short { MARGIN } else { 0 };
    let bytes = (disk.blocks_available(), disk.blocks());
    let inodes = (disk.files_available(), disk.files());
    below(bytes, FREE_BYTES + margin) || below(inodes, FREE_INODES + margin)
}

/// Whether less than so many percent are free. A file system without a count of inodes has none, and is short of none.
fn below((free, all): (u64, u64), percent: u64) -> bool {
    u128::from(free) * 100 < u128::from(all) * u128::from(percent)
}

/// The node's condition, without its time; `None` for a disk that did not answer.
pub fn condition(disk: Option<Disk>, sources: &Sources) -> Condition {
    let folder = sources.data_dir.display();
    let (reason, message) = match disk.map(|disk| disk.state) {
        Some(State::Enough) => ("", String::new()),
        Some(State::Short) => (
            "DiskIsShort",
            format!(
                "less than {FREE_BYTES} % of the file system of {folder}, or {FREE_INODES} % of its inodes, are free; \
                 remove images, logs or other files"
            ),
        ),
        Some(State::Full) => (
            "DiskIsFull",
            format!(
                "the file system of {folder} has no room for what the agent saves, and its reserve is in use or cannot be made; \
                 remove images, logs or other files"
            ),
        ),
        None => (
            "DiskHangs",
            format!(
                "the file system of {folder} did not answer in time; what the agent saves waits for it"
            ),
        ),
    };
    let condition = with_reason(
        DISK_PRESSURE,
        !reason.is_empty(),
        reason,
        "DiskIsSufficient",
    );
    Condition {
        message,
        ..condition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_ends_only_with_a_margin() {
        assert!(below((9, 100), FREE_BYTES));
        assert!(!below((10, 100), FREE_BYTES));
        assert!(below((11, 100), FREE_BYTES + MARGIN));
        assert!(!below((0, 0), FREE_INODES), "no count of inodes");
    }
}
