//! `barge cluster backup-schedule`

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use barge_client::v1::{BackupRun, BackupStatus, SetBackupScheduleRequest};
use clap::Args;

use super::backup::read_passphrase;
use crate::{context::Connection, duration, duration::Span, output};

/// Without PLACE and --off: shows the schedule.
#[derive(Debug, Args)]
pub struct Schedule {
    /// Where the leader keeps backups: a folder on every manager (a shared file system) or s3://BUCKET/PREFIX
    #[arg(value_name = "PLACE", requires = "every")]
    place: Option<String>,
    /// How often ("6h", "1d"); at least a minute
    #[arg(long, requires = "place", value_name = "DURATION")]
    every: Option<Span>,
    /// How many to keep; the oldest beyond are deleted
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    keep: u32,
    /// Take the cluster's sealing key along, under the passphrase in this file
    #[arg(long, requires = "place", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// End the schedule; backups that were taken stay
    #[arg(long, conflicts_with = "place")]
    off: bool,
}

pub async fn run(to: &Connection, command: Schedule) -> Result<()> {
    let client = to.client()?;
    let request = match (command.place, command.off) {
        (None, false) => {
            let backup = client.status().await?.backup.unwrap_or_default();
            return Ok(writeln!(
                io::stdout(),
                "{}",
                describe(&backup, output::now())
            )?);
        }
        (None, true) => SetBackupScheduleRequest::default(),
        (Some(place), _) => SetBackupScheduleRequest {
            place,
            every_seconds: command.every.map_or(0, |every| every.0.as_secs()),
            keep: command.keep,
            passphrase: match &command.passphrase_file {
                Some(path) => read_passphrase(path)?,
                None => String::new(),
            },
        },
    };
    let off = request.place.is_empty();
    client.set_backup_schedule(request).await?;
    let said = match off {
        true => "no backups are taken any more",
        false => "scheduled; `barge cluster status` shows how the last one went",
    };
    Ok(writeln!(io::stdout(), "{said}")?)
}

/// What is scheduled, and how the last one went.
pub fn describe(backup: &BackupStatus, now: i64) -> String {
    if backup.place.is_empty() {
        return "backups: not scheduled".to_owned();
    }
    let every = duration::human(i64::try_from(backup.every_seconds).unwrap_or(i64::MAX));
    let last = backup
        .last
        .as_ref()
        .map_or_else(|| "none yet".to_owned(), |run| last(run, now));
    format!(
        "backups: every {every} to {}, {} kept; {last}",
        backup.place, backup.keep
    )
}

fn last(run: &BackupRun, now: i64) -> String {
    let ago = |time: Option<barge_client::v1::Time>| {
        time.map_or_else(
            || "never".to_owned(),
            |time| format!("{} ago", duration::human(now.saturating_sub(time.seconds))),
        )
    };
    match run.error.is_empty() {
        true => format!(
            "the last one {}: {} ({})",
            ago(run.begun),
            run.name,
            output::size(run.bytes)
        ),
        false => format!(
            "the last one failed {}: {}; the last good one: {}",
            ago(run.begun),
            run.error,
            ago(run.last_success)
        ),
    }
}
