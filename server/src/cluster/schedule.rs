//! The schedule of backups: set by an administrator, run by [`crate::recovery::backup::schedule`].

use barge_client::backup::place;
use barge_proto::v1::{BackupSchedule, BackupStatus, SetBackupScheduleRequest};

use super::{Parts, record};
use crate::{error::ApiError, pki::Purpose};

/// A backup takes a moment, and stores ask money for each.
const SHORTEST: u64 = 60;
const MOST: u32 = 1000;
/// The longest name of a bucket and a prefix that stores take, and a little.
const LONGEST_PLACE: usize = 1024;

/// Sets the schedule; no place means none. How the last backup went is forgotten when the place changes, so that one is taken at once.
///
/// # Errors
/// INVALID for a place that is none, or numbers out of range.
pub async fn set(
    parts: &Parts,
    by: String,
    request: &SetBackupScheduleRequest,
) -> Result<(), ApiError> {
    let schedule = check(parts, request)?;
    record::change(&parts.store, &by, |cluster| {
        let place = |schedule: &Option<BackupSchedule>| {
            schedule.as_ref().map(|schedule| schedule.place.clone())
        };
        if place(&cluster.backup_schedule) != place(&schedule) {
            cluster.last_backup = None;
        }
        cluster.backup_schedule.clone_from(&schedule);
        Ok(())
    })
    .await
}

fn check(
    parts: &Parts,
    request: &SetBackupScheduleRequest,
) -> Result<Option<BackupSchedule>, ApiError> {
    if request.place.is_empty() {
        return Ok(None);
    }
    let absolute = request.place.starts_with('/');
    if request.place.len() > LONGEST_PLACE || !(absolute || place::is_bucket(&request.place)) {
        return Err(ApiError::invalid(
            "place",
            format!(
                "{:?}: the absolute path of a folder or s3://BUCKET/PREFIX is expected",
                request.place
            ),
        ));
    }
    if request.every_seconds < SHORTEST {
        return Err(ApiError::invalid(
            "every",
            format!(
                "{} s: at least {SHORTEST} s are expected",
                request.every_seconds
            ),
        ));
    }
    if !(1..=MOST).contains(&request.keep) {
        return Err(ApiError::invalid(
            "keep",
            format!("{}: between 1 and {MOST} are expected", request.keep),
        ));
    }
    let sealed = match request.passphrase.is_empty() {
        true => Vec::new(),
        false => parts
            .issuer
            .keyring()
            .key()?
            .seal(Purpose::BackupPassphrase, request.passphrase.as_bytes())?,
    };
    Ok(Some(BackupSchedule {
        place: request.place.clone(),
        every_seconds: request.every_seconds,
        keep: request.keep,
        sealed_passphrase: sealed,
    }))
}

/// What is scheduled, and how the last one went.
pub fn status(parts: &Parts) -> Option<BackupStatus> {
    parts.store.read(|state| {
        let cluster = state.cluster()?;
        let schedule = cluster.backup_schedule.clone()?;
        Some(BackupStatus {
            place: schedule.place,
            every_seconds: schedule.every_seconds,
            keep: schedule.keep,
            last: cluster.last_backup.clone(),
        })
    })
}
