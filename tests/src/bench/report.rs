//! What a benchmark reports, as a table for people and as JSON for programs.

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

/// One figure, with its peer's where there is one.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub median: f64,
    /// The largest, or for rates the smallest.
    pub worst: f64,
    pub runs: usize,
    /// Who the peer is.
    pub peer: Option<String>,
    pub peer_median: Option<f64>,
    /// Ours over the peer's.
    pub ratio: Option<f64>,
}

impl Row {
    /// A figure of which less is better.
    #[must_use]
    pub fn least(name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        let worst = samples.iter().copied().fold(f64::NAN, f64::max);
        Self::new(name.into(), unit, samples, worst)
    }

    /// A figure of which more is better.
    #[must_use]
    pub fn most(name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        let worst = samples.iter().copied().fold(f64::NAN, f64::min);
        Self::new(name.into(), unit, samples, worst)
    }

    fn new(name: String, unit: &'static str, samples: &[f64], worst: f64) -> Self {
        let (median, runs) = (median(samples), samples.len());
        Self {
            name,
            unit,
            median,
            worst,
            runs,
            peer: None,
            peer_median: None,
            ratio: None,
        }
    }

    /// Sets the peer's samples beside ours.
    #[must_use]
    pub fn beside(mut self, peer: impl Into<String>, samples: &[f64]) -> Self {
        let theirs = median(samples);
        self.peer = Some(peer.into());
        self.peer_median = Some(theirs);
        self.ratio = Some(self.median / theirs);
        self
    }
}

/// The middle of the samples; of an even number the mean of the two in the middle; NaN of none.
#[must_use]
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Prints the rows as a table.
pub fn print(rows: &[Row]) {
    println!(
        "{:<34} {:>12} {:>12} {:<9} {:>4}  {:<34} {:>12} {:>7}",
        "benchmark", "median", "worst", "unit", "runs", "peer", "its median", "ratio"
    );
    for row in rows {
        let number =
            |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        println!(
            "{:<34} {:>12.2} {:>12.2} {:<9} {:>4}  {:<34} {:>12} {:>7}",
            row.name,
            row.median,
            row.worst,
            row.unit,
            row.runs,
            row.peer.as_deref().unwrap_or(""),
            number(row.peer_median),
            number(row.ratio)
        );
    }
}

/// Prints what the figures depend on: cores, memory, kernel, file system and the disk's own latency.
///
/// # Errors
/// When the temporary folder cannot be written to.
pub fn print_machine() -> anyhow::Result<()> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    let memory = read("/proc/meminfo");
    let memory = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or("0");
    let memory = memory.parse::<f64>().unwrap_or(0.0) / 1024.0 / 1024.0;
    let folder = std::env::temp_dir();
    let (median, p99) = fdatasync(&folder)?;
    println!(
        "{cores} cores, {memory:.0} GiB memory, Linux {}, {} on {}, fdatasync {median:.2} ms median, {p99:.2} ms p99",
        read("/proc/sys/kernel/osrelease").trim(),
        file_system(&folder),
        folder.display(),
    );
    Ok(())
}

fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            folder
                .starts_with(words.get(1)?)
                .then(|| (words[1].len(), words[2].to_owned()))
        })
        .max();
    mount.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

/// Latency in milliseconds of an fdatasync after an append of 4 KiB: median and 99th percentile of 500.
fn fdatasync(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [0_u8; 4096];
    let mut samples = Vec::with_capacity(500);
    for _ in 0..500 {
        file.write_all(&block)?;
        let start = Instant::now();
        file.sync_data()?;
        samples.push(milliseconds(start.elapsed()));
    }
    samples.sort_by(f64::total_cmp);
    Ok((samples[250], samples[495]))
}

/// A duration in milliseconds.
#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
