//! What the whole machine takes, by `/proc`.

use std::{fs, io, path::Path};

use nix::sys::statvfs::statvfs;

use super::store::Disk;
use crate::runtime::Usage;

/// Microseconds of a tick of `/proc/stat`: Linux shows 100 a second to programs, whatever it counts in itself.
const TICK_US: u64 = 10_000;

/// Reads what the machine has used. Blocks.
pub fn read(proc: &Path) -> io::Result<Usage> {
    let stat = fs::read_to_string(proc.join("stat"))?;
    let memory = fs::read_to_string(proc.join("meminfo"))?;
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    Ok(Usage {
        cpu_us: busy(&stat).ok_or_else(|| wrong("stat has no line for all processors"))?,
        memory: in_use(&memory).ok_or_else(|| wrong("meminfo has no MemTotal or MemFree"))?,
    })
}

/// All but idling and waiting for disks; guests are in the time of their users.
fn busy(stat: &str) -> Option<u64> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = all
        .split_ascii_whitespace()
        .take(8)
        .map_while(|it| it.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let counted = ticks.iter().enumerate();
    let counted = counted.filter(|(place, _)| !matches!(place, 3 | 4));
    let sum = counted.fold(0_u64, |sum, (_, ticks)| sum.saturating_add(*ticks));
    (ticks.len() >= 4).then_some(sum.saturating_mul(TICK_US))
}

/// What is not free, without the pages of files that nobody used lately: as the memory of a container is counted.
fn in_use(meminfo: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    let inactive = value("Inactive(file):").unwrap_or(0);
    let used = value("MemTotal:")?.saturating_sub(value("MemFree:")?);
    Some(used.saturating_sub(inactive))
}

/// How full the file system of a folder is. Blocks.
pub fn disk(folder: &Path) -> io::Result<Disk> {
    let found = statvfs(folder)?;
    let size = found.fragment_size();
    Ok(Disk {
        used: found.blocks().saturating_sub(found.blocks_free()) * size,
        total: found.blocks() * size,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_machine_is_read() {
        let proc = tempfile::tempdir().unwrap();
        assert!(read(proc.path()).is_err());
        let stat = "cpu  100 1 50 9000 300 2 3 4 77 5\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 3\n";
        fs::write(proc.path().join("stat"), stat).unwrap();
        let memory = "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 500 kB\nInactive: 200 kB\nInactive(file): 100 kB\n";
        fs::write(proc.path().join("meminfo"), memory).unwrap();
        let usage = Usage {
            cpu_us: 160 * TICK_US,
            memory: 600 * 1024,
        };
        assert_eq!(read(proc.path()).unwrap(), usage);
        assert!(disk(proc.path()).unwrap().total > 0);
    }
}
