//! The schedule of backups: set by an administrator, run by [`crate::backup::schedule`].

use barge_client::backup::place;
use barge_proto::v1::{BackupSchedule, BackupStatus, ClusterRecord, SetBackupScheduleRequest};

use super::Parts;
use crate::{
    error::ApiError,
    pki::{PkiError, Purpose},
    transaction::Draft,
};

/// A backup takes a moment, and stores ask money for each.
const SHORTEST: u64 = 60;
const MOST: u32 = 1000;
/// The longest name of a bucket and a prefix that stores take, and a little.
const LONGEST_PLACE: usize = 1024;
/// Somebody else may change the cluster's record at the same time.
const TRIES: usize = 8;

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
    let mut tries = 0;
    loop {
        let cluster = parts
            .store
            .read(|state| state.cluster().map(|cluster| ClusterRecord::clone(cluster)))
            .ok_or_else(|| ApiError::NoQuorum("this manager has not caught up yet".to_owned()))?;
        let place = |schedule: &Option<BackupSchedule>| {
            schedule.as_ref().map(|schedule| schedule.place.clone())
        };
        let moved = place(&cluster.backup_schedule) != place(&schedule);
        let mut draft = Draft::new();
        draft.unchanged(&cluster);
        draft.put(ClusterRecord {
            backup_schedule: schedule.clone(),
            last_backup: cluster.last_backup.clone().filter(|_| !moved),
            ..cluster
        });
        let transaction = draft.build(by.clone(), None);
        match ApiError::check(parts.store.propose(transaction).await?) {
            Err(ApiError::Conflict(_)) if tries + 1 < TRIES => tries += 1,
            done => return done.map(drop),
        }
    }
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
        true => Ok(Vec::new()),
        false => parts
            .issuer
            .sealing_key()
            .seal(Purpose::BackupPassphrase, request.passphrase.as_bytes()),
    };
    Ok(Some(BackupSchedule {
        place: request.place.clone(),
        every_seconds: request.every_seconds,
        keep: request.keep,
        sealed_passphrase: sealed
            .map_err(|error: PkiError| ApiError::Internal(error.to_string()))?,
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
