//! Runs the benchmarks and prints a table.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};
use barge_tests::bench::{ALL, report};
use clap::Parser;

/// Measures Barge, beside its peers in the same run.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// Only these; all without a name.
    names: Vec<String>,
    /// Also write the figures to a file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Say which there are.
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.list {
        for benchmark in ALL {
            println!("{:<18} {}", benchmark.name, benchmark.about);
        }
        return Ok(());
    }
    for name in &options.names {
        if !ALL.iter().any(|benchmark| benchmark.name == name) {
            bail!("no benchmark is called {name}: see --list");
        }
    }
    report::print_machine()?;
    let mut rows = Vec::new();
    for benchmark in ALL {
        if options.names.is_empty() || options.names.iter().any(|name| name == benchmark.name) {
            eprintln!("{}: {}", benchmark.name, benchmark.about);
            rows.extend((benchmark.run)().with_context(|| benchmark.name.to_owned())?);
        }
    }
    report::print(&rows);
    if let Some(path) = options.json {
        fs::write(&path, serde_json::to_vec_pretty(&rows)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
