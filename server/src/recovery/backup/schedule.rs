//! Scheduled backups: the leader takes them, stores them, and deletes its oldest ones.
//!
//! What is due follows from the state alone, so a new leader goes on where the last one stopped.

use std::{io, path::PathBuf, time::Duration};

use barge_client::backup::{
    self,
    place::{Place, PlaceError, beginning_of, name_of},
};
use barge_proto::v1::{
    BackupRun, BackupSchedule, ClusterRecord, ObjectReference, Time, change::Change,
};
use barge_state::{Kind, RecordKind, State};
use tokio_util::sync::CancellationToken;

use super::{TakeError, take};
use crate::{
    controllers::{
        plan::{Severity, event, object_reference},
        stamp::{Stamp, Stamps, SystemStamps},
    },
    error::ApiError,
    pki::{Keyring, PkiError, Purpose},
    runtime::clock,
    store::{Scope, Store, StoreError, transaction::Draft},
};

/// After a backup that failed.
const RETRY_SECONDS: i64 = 300;
/// Another request may change the cluster's record at the same time.
const TRIES: usize = 8;
/// Who says so in events.
const COMPONENT: &str = "backup";

/// Takes backups when they are due.
#[derive(Clone)]
pub struct Backups {
    /// The state.
    pub store: Store,
    /// Opens the passphrase.
    pub keyring: Keyring,
    /// Where a backup is made before it is put where it is kept.
    pub data_dir: PathBuf,
}

/// Why a backup was not taken or kept.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error("the backup that was just taken is not good: {0}")]
    Bad(#[from] backup::BackupError),
    #[error("keep it in {place}: {source}")]
    Place { place: String, source: PlaceError },
    #[error("the passphrase: {0}")]
    Passphrase(#[from] PkiError),
    #[error("make a temporary file: {0}")]
    File(#[from] io::Error),
}

impl Backups {
    /// Runs while this manager leads in `term`.
    pub async fn run(self, term: u64, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow(term)).await;
    }

    async fn follow(&self, term: u64) {
        loop {
            let revision = self.store.read(State::revision);
            let Ok(mut changes) = self
                .store
                .watch(revision, Scope::kinds([RecordKind::Cluster]))
            else {
                continue;
            };
            let due = self.store.read(|state| {
                let cluster = state.cluster()?;
                due(cluster, clock::now().seconds)
            });
            let wait = async {
                match due {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                // Whatever it is, it is read anew; one that fell behind, too.
                _ = changes.next() => continue,
            }
            let begun = clock::now();
            let run = match self.once(begun).await {
                Ok(run) => run,
                Err(error) => {
                    tracing::warn!(%error, "a scheduled backup failed");
                    BackupRun {
                        begun: Some(begun),
                        error: error.to_string(),
                        ..BackupRun::default()
                    }
                }
            };
            if let Err(error) = self.note(run, term).await {
                tracing::warn!(%error, "the outcome of a backup was not noted");
                // Another one leads, or will; if not, the next try must not follow at once.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn once(&self, begun: Time) -> Result<BackupRun, RunError> {
        let pinned = self.store.pin().await?;
        let (schedule, cluster_id) = self.store.read(|state| {
            let cluster = state.cluster();
            let schedule = cluster.and_then(|cluster| cluster.backup_schedule.clone());
            let id = cluster.map(|cluster| cluster.uid().to_owned());
            (schedule.unwrap_or_default(), id.unwrap_or_default())
        });
        let failed = |source| RunError::Place {
            place: schedule.place.clone(),
            source,
        };
        let passphrase = self.passphrase(&schedule)?;
        let place = Place::open(&schedule.place).map_err(failed)?;
        let (keyring, folder) = (self.keyring.clone(), self.data_dir.clone());
        let taken = move || {
            let file = barge_client::files::temporary_in(&folder)?;
            take(
                &pinned,
                &keyring,
                passphrase.as_deref(),
                io::BufWriter::new(&file),
            )?;
            let summary = backup::verify(io::BufReader::new(file.reopen()?))?;
            Ok::<_, RunError>((file.reopen()?, summary.bytes))
        };
        let (file, bytes) = tokio::task::spawn_blocking(taken)
            .await
            .map_err(io::Error::other)??;
        let name = name_of(&cluster_id, &stamp(begun));
        place.put(&name, file).await.map_err(failed)?;
        tracing::info!(place = schedule.place, name, bytes, "kept a backup");
        retain(&place, &cluster_id, schedule.keep)
            .await
            .map_err(failed)?;
        Ok(BackupRun {
            begun: Some(begun),
            name,
            bytes,
            error: String::new(),
            last_success: Some(begun),
        })
    }

    fn passphrase(&self, schedule: &BackupSchedule) -> Result<Option<String>, PkiError> {
        if schedule.sealed_passphrase.is_empty() {
            return Ok(None);
        }
        let plain = self
            .keyring
            .key()?
            .open(Purpose::BackupPassphrase, &schedule.sealed_passphrase)?;
        String::from_utf8(plain)
            .map(Some)
            .map_err(|error| PkiError::Malformed(error.to_string()))
    }

    /// Keeps the outcome in the state, with an event.
    async fn note(&self, run: BackupRun, term: u64) -> Result<(), ApiError> {
        let mut tries = 0;
        loop {
            let Some(cluster) = self
                .store
                .read(|state| state.cluster().map(|cluster| ClusterRecord::clone(cluster)))
            else {
                return Ok(());
            };
            let stamps = SystemStamps;
            let mut stamp = Stamp::new(stamps.now(), stamps.seed());
            let about = object_reference("v1", "Cluster", cluster.meta());
            let mut draft = Draft::new();
            draft.unchanged(&cluster);
            draft.change(Change::RecordEvent(self::outcome(&mut stamp, about, &run)));
            let before = cluster.last_backup.clone().unwrap_or_default();
            draft.put(ClusterRecord {
                last_backup: Some(BackupRun {
                    last_success: run.last_success.or(before.last_success),
                    ..run.clone()
                }),
                ..cluster
            });
            let mut transaction = draft.build(format!("controller/{COMPONENT}"), None);
            transaction.term = term;
            match ApiError::check(self.store.propose(transaction).await?) {
                Err(ApiError::Conflict(_)) if tries + 1 < TRIES => tries += 1,
                done => return done.map(drop),
            }
        }
    }
}

fn outcome(stamp: &mut Stamp, about: ObjectReference, run: &BackupRun) -> barge_proto::v1::Event {
    let (severity, reason, message) = match run.error.is_empty() {
        true => (
            Severity::Normal,
            "BackupTaken",
            format!("Backup {} has {} bytes", run.name, run.bytes),
        ),
        false => (
            Severity::Warning,
            "BackupFailed",
            format!("No backup was taken: {}", run.error),
        ),
    };
    event(stamp, COMPONENT, about, severity, reason, message)
}

/// How long until a backup is due; absent without a schedule.
fn due(cluster: &ClusterRecord, now: i64) -> Option<Duration> {
    let schedule = cluster.backup_schedule.as_ref()?;
    let every = i64::try_from(schedule.every_seconds).unwrap_or(i64::MAX);
    let Some(last) = cluster.last_backup.as_ref() else {
        return Some(Duration::ZERO);
    };
    let begun = last.begun.map_or(0, |time| time.seconds);
    let pause = match last.error.is_empty() {
        true => every,
        false => every.min(RETRY_SECONDS),
    };
    // A clock that went back must not put it off for longer than usual.
    let left = begun.saturating_add(pause).saturating_sub(now).min(pause);
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// Deletes the oldest beyond those that are kept.
async fn retain(place: &Place, cluster_id: &str, keep: u32) -> Result<(), PlaceError> {
    let all = place.list(&beginning_of(cluster_id)).await?;
    let excess = all.len().saturating_sub(keep.max(1) as usize);
    for old in all.iter().take(excess) {
        place.delete(&old.name).await?;
        tracing::info!(name = old.name, "deleted an old backup");
    }
    Ok(())
}

/// As names have it: "20260105T071244Z".
fn stamp(time: Time) -> String {
    jiff::Timestamp::from_second(time.seconds)
        .unwrap_or_default()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(last: Option<BackupRun>) -> ClusterRecord {
        ClusterRecord {
            backup_schedule: Some(BackupSchedule {
                every_seconds: 3600,
                ..BackupSchedule::default()
            }),
            last_backup: last,
            ..ClusterRecord::default()
        }
    }

    fn at(seconds: i64, error: &str) -> Option<BackupRun> {
        Some(BackupRun {
            begun: Some(Time { seconds, nanos: 0 }),
            error: error.to_owned(),
            ..BackupRun::default()
        })
    }

    #[test]
    fn is_due_when_the_state_says_so() {
        let seconds = |last, now| due(&cluster(last), now).unwrap().as_secs();
        assert_eq!(due(&ClusterRecord::default(), 0), None);
        assert_eq!(seconds(None, 1_000), 0);
        assert_eq!(seconds(at(1_000, ""), 1_600), 3_000);
        assert_eq!(seconds(at(1_000, ""), 9_000), 0);
        assert_eq!(
            seconds(at(1_000, "no"), 1_100),
            200,
            "sooner after a failure"
        );
        assert_eq!(
            seconds(at(90_000, ""), 1_000),
            3_600,
            "a clock that went back"
        );
    }

    #[tokio::test]
    async fn keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path().to_str().unwrap()).unwrap();
        for second in 0..5 {
            let name = name_of(
                "0123456789",
                &stamp(Time {
                    seconds: second,
                    nanos: 0,
                }),
            );
            let file = tempfile::tempfile().unwrap();
            place.put(&name, file).await.unwrap();
        }
        let other = name_of("another-cluster", "20000101T000000Z");
        place
            .put(&other, tempfile::tempfile().unwrap())
            .await
            .unwrap();
        retain(&place, "0123456789", 2).await.unwrap();
        let left: Vec<_> = place.list("barge-").await.unwrap();
        let left: Vec<_> = left.iter().map(|kept| kept.name.as_str()).collect();
        assert_eq!(
            left,
            [
                "barge-01234567-19700101T000003Z.backup",
                "barge-01234567-19700101T000004Z.backup",
                other.as_str(),
            ]
        );
    }
}
