//! `barge cluster backup`

use std::{
    env,
    fs::{self, File},
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use barge_client::{
    backup::{
        self, Summary,
        place::{self, Place},
    },
    files,
};
use clap::Args;

use crate::{context::Connection, duration, output};

#[derive(Debug, Args)]
pub struct Backup {
    /// The file to make, or s3://BUCKET/KEY; a file that exists is never overwritten
    #[arg(value_name = "FILE")]
    file: String,
    /// Take the cluster's sealing key along, under the passphrase in this file; without it a restore needs the key itself
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    passphrase_file: Option<PathBuf>,
    /// Make nothing: read FILE, and say whether it is good
    #[arg(long)]
    verify: bool,
}

pub async fn run(to: &Connection, command: Backup) -> Result<()> {
    if command.verify {
        let summary = verify(&command.file).await?;
        return Ok(writeln!(io::stdout(), "good: {}", describe(&summary))?);
    }
    let passphrase = match &command.passphrase_file {
        Some(path) => read_passphrase(path)?,
        None => String::new(),
    };
    let client = to.client()?;
    let summary = match place::split(&command.file)? {
        None => client.backup(Path::new(&command.file), &passphrase).await?,
        Some((place, name)) => {
            let place = Place::open(place)?;
            let mut file = files::temporary_in(&env::temp_dir())?;
            let summary = client.backup_into(&mut file, &passphrase).await?;
            place.put(name, file.reopen()?).await?;
            summary
        }
    };
    writeln!(io::stdout(), "{}: {}", command.file, describe(&summary))?;
    if passphrase.is_empty() {
        eprintln!(
            "It holds no sealing key: keep sealing.key of a manager's data folder in a safe place, a restore needs it \
             (--passphrase-file takes it along)."
        );
    }
    Ok(())
}

pub fn read_passphrase(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("read the passphrase in {}", path.display()))?;
    let passphrase = text.trim_end_matches(['\r', '\n']);
    if passphrase.is_empty() {
        bail!("{} holds no passphrase: write one into it", path.display());
    }
    Ok(passphrase.to_owned())
}

async fn verify(file: &str) -> Result<Summary> {
    let good = match place::split(file)? {
        None => backup::verify(BufReader::new(
            File::open(file).with_context(|| format!("open {file}"))?,
        )),
        Some((place, name)) => backup::verify(BufReader::new(place::fetch(place, name).await?)),
    };
    good.with_context(|| file.to_owned())
}

fn describe(summary: &Summary) -> String {
    let header = &summary.header;
    let age = header.time.map_or_else(String::new, |time| {
        let age = output::now().saturating_sub(time.seconds);
        format!(", taken {} ago", duration::human(age.max(0)))
    });
    format!(
        "cluster {}, revision {}, {} records, {}{age}, {}",
        header.cluster_id,
        header.revision,
        summary.records,
        output::size(summary.bytes),
        match header.sealing_key {
            Some(_) => "with the sealing key under a passphrase",
            None => "without the sealing key",
        }
    )
}
