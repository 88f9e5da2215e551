//! What a container takes, by the counters of its control group.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{CgroupVersion, Cgroups};
use crate::runtime::{Meter, Usage};

/// More than any of the files that are read.
const LONGEST: usize = 16 * 1024;

/// Three files of a control group, kept open: each is read with one call. Open files do not keep a group from being removed; reads fail then.
#[derive(Debug)]
pub struct Counters {
    version: CgroupVersion,
    cpu: File,
    memory: File,
    stat: File,
}

impl Cgroups {
    /// Opens the counters of a group. Blocks.
    pub fn counters(&self, path: &str) -> io::Result<Counters> {
        let path = Path::new(path.trim_start_matches('/'));
        let (cpu, memory) = match self.version {
            CgroupVersion::V1 => {
                let of = |controller: &str| self.mount.join(controller).join(path);
                (of("cpuacct"), of("memory"))
            }
            CgroupVersion::V2 => (self.mount.join(path), self.mount.join(path)),
        };
        let (cpu_file, memory_file) = match self.version {
            CgroupVersion::V1 => ("cpuacct.usage", "memory.usage_in_bytes"),
            CgroupVersion::V2 => ("cpu.stat", "memory.current"),
        };
        let open = |path: PathBuf| File::open(path);
        Ok(Counters {
            version: self.version,
            cpu: open(cpu.join(cpu_file))?,
            memory: open(memory.join(memory_file))?,
            stat: open(memory.join("memory.stat"))?,
        })
    }
}

impl Meter for Counters {
    fn read(&mut self) -> io::Result<Usage> {
        let mut buffer = [0; LONGEST];
        let cpu_us = match self.version {
            // In nanoseconds.
            CgroupVersion::V1 => number(read(&self.cpu, &mut buffer)?)? / 1000,
            CgroupVersion::V2 => value(read(&self.cpu, &mut buffer)?, "usage_usec")?,
        };
        let all = number(read(&self.memory, &mut buffer)?)?;
        let inactive = match self.version {
            CgroupVersion::V1 => "total_inactive_file",
            CgroupVersion::V2 => "inactive_file",
        };
        let inactive = value(read(&self.stat, &mut buffer)?, inactive)?;
        Ok(Usage {
            cpu_us,
            memory: all.saturating_sub(inactive),
        })
    }
}

fn read<'a>(file: &File, buffer: &'a mut [u8]) -> io::Result<&'a str> {
    let length = file.read_at(buffer, 0)?;
    let text = buffer.get(..length).unwrap_or_default();
    std::str::from_utf8(text).map_err(|error| wrong(&error.to_string()))
}

fn number(text: &str) -> io::Result<u64> {
    let text = text.trim();
    text.parse()
        .map_err(|_| wrong(&format!("{text:?} is no number")))
}

/// The number behind a name at the beginning of a line.
fn value(text: &str, name: &str) -> io::Result<u64> {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
    let found = values.find_map(|rest| rest.strip_prefix(' '));
    number(found.ok_or_else(|| wrong(&format!("there is no {name}")))?)
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn version_1_counts_in_nanoseconds_and_by_controller() {
        let mount = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::new(mount.path(), "barge");
        let path = cgroups.path("u", "u-c-0");
        assert!(cgroups.counters(&path).is_err(), "there is no such group");
        let of = |controller: &str| mount.path().join(controller).join(&path[1..]);
        write(&of("cpuacct"), &[("cpuacct.usage", "1234567890\n")]);
        // Lines of a real one.
        let stat = "cache 8110080\nrss 67993600\ninactive_file 1\nactive_file 1892352\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 8110080\ntotal_inactive_anon 0\ntotal_active_anon 67993600\ntotal_inactive_file 6217728\ntotal_active_file 1892352\n";
        let memory = [
            ("memory.usage_in_bytes", "77004800\n"),
            ("memory.stat", stat),
        ];
        write(&of("memory"), &memory);
        let mut counters = cgroups.counters(&path).unwrap();
        let usage = Usage {
            cpu_us: 1_234_567,
            memory: 77_004_800 - 6_217_728,
        };
        assert_eq!(counters.read().unwrap(), usage);
        fs::write(of("cpuacct").join("cpuacct.usage"), "2000000000\n").unwrap();
        assert_eq!(counters.read().unwrap().cpu_us, 2_000_000, "read anew");
        fs::write(of("memory").join("memory.stat"), "cache 1\n").unwrap();
        let error = counters.read().unwrap_err().to_string();
        assert_eq!(error, "there is no total_inactive_file");
    }

    #[test]
    fn version_2_counts_in_microseconds_and_in_one_place() {
        let mount = tempfile::tempdir().unwrap();
        let mut cgroups = Cgroups::new(mount.path(), "barge");
        cgroups.version = CgroupVersion::V2;
        let path = cgroups.path("u", "u-c-0");
        let cpu = "usage_usec 4823946\nuser_usec 4010221\nsystem_usec 813725\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n";
        let stat = "anon 68157440\nfile 6291456\nkernel 1101824\ninactive_anon 68132864\nactive_anon 12288\ninactive_file 99999999999\nactive_file 0\nworkingset_refault_file 0\n";
        let files = [
            ("cpu.stat", cpu),
            ("memory.current", "75563008\n"),
            ("memory.stat", stat),
        ];
        write(&mount.path().join(&path[1..]), &files);
        let usage = Usage {
            cpu_us: 4_823_946,
            memory: 0,
        };
        let mut counters = cgroups.counters(&path).unwrap();
        assert_eq!(counters.read().unwrap(), usage, "read at different times");
    }
}
