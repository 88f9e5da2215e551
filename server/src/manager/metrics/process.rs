//! This process, as the kernel sees it.

use std::fs;

/// Resident memory, in bytes; 0 when the kernel does not say.
pub fn resident_bytes() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}

/// Open files; 0 when the kernel does not say.
pub fn open_files() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_says() {
        assert!(super::resident_bytes() > 1 << 20);
        assert!(super::open_files() > 2);
    }
}
