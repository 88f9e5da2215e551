//! Which life of the agent's process this is: a number that rises with each start, so that managers can tell a status of an earlier
//! process from one of this.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

use crate::files::{self, Reserve};

/// Until a number that the disk did not take is written again; doubled with each try.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The number of this process.
#[derive(Debug)]
pub struct Incarnation {
    path: PathBuf,
    reserve: Reserve,
    number: u64,
    durable: bool,
}

impl Incarnation {
    /// Raises the number in the file and makes it durable. The new one is at least the time in milliseconds, so that it also rises when
    /// the file is lost; and one more than before, so that it also rises when the clock was put back.
    ///
    /// A file that cannot be read or written (the disk is full) keeps no agent from starting: its node would count as lost. See
    /// [`Incarnation::keep`].
    pub async fn raise(data_dir: &Path, now_ms: i64) -> Self {
        let (path, reserve) = (data_dir.join("incarnation"), Reserve::of(data_dir));
        let time = u64::try_from(now_ms).unwrap_or(0).max(1);
        let (file, room) = (path.clone(), reserve.clone());
        let raised = files::blocking(move || Ok(raise(&file, &room, time))).await;
        let (number, written) = raised.unwrap_or_else(|error| (time, Err(error)));
        if let Err(error) = &written {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot keep the agent's incarnation; going on, and trying again");
        }
        Self {
            path,
            reserve,
            number,
            durable: written.is_ok(),
        }
    }

    /// The number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns when the number is durable: tries again, with pauses, while the disk does not take it. Until then only the clock makes
    /// the next process' number a higher one.
    pub async fn keep(self) {
        let mut pause = FIRST_PAUSE;
        let mut durable = self.durable;
        while !durable {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let (path, reserve, number) = (self.path.clone(), self.reserve.clone(), self.number);
            // One that could not be read may be higher.
            let write = move || write(&path, &reserve, number.max(read(&path)?));
            match files::blocking(write).await {
                Ok(()) => durable = true,
                Err(error) => tracing::debug!(%error, "cannot keep the agent's incarnation yet"),
            }
        }
    }
}

fn raise(path: &Path, reserve: &Reserve, time: u64) -> (u64, io::Result<()>) {
    match read(path) {
        Ok(before) => {
            let number = time.max(before.saturating_add(1));
            (number, write(path, reserve, number))
        }
        Err(error) => (time, Err(error)),
    }
}

/// The number in the file; 0 when there is none.
fn read(path: &Path) -> io::Result<u64> {
    let Some(bytes) = files::read_if_there(path)? else {
        return Ok(0);
    };
    let text = str::from_utf8(&bytes).ok();
    let number = text.and_then(|text| text.parse().ok());
    Ok(number.unwrap_or_else(|| {
        let path = path.display();
        tracing::warn!(%path, "there is no number in it; beginning anew with the time");
        0
    }))
}

fn write(path: &Path, reserve: &Reserve, number: u64) -> io::Result<()> {
    reserve.write_atomic(path, number.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::time::timeout;

    use super::*;

    async fn raised(folder: &Path, now_ms: i64) -> u64 {
        let incarnation = Incarnation::raise(folder, now_ms).await;
        assert!(incarnation.durable);
        incarnation.number()
    }

    #[tokio::test]
    async fn it_rises_whatever_the_clock_and_the_disk_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incarnation");
        assert_eq!(raised(folder.path(), 1000).await, 1000);
        assert_eq!(raised(folder.path(), 1000).await, 1001);
        assert_eq!(
            raised(folder.path(), 5).await,
            1002,
            "the clock was put back"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(raised(folder.path(), 2000).await, 2000);
        std::fs::write(&path, "\u{0}\u{0}").unwrap();
        assert_eq!(raised(folder.path(), 3000).await, 3000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_takes_nothing_keeps_no_agent_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incarnation");
        std::fs::write(&path, "7000").unwrap();
        // Where the new number would be written first.
        let occupied = folder.path().join("incarnation.tmp");
        std::fs::create_dir(&occupied).unwrap();
        let incarnation = Incarnation::raise(folder.path(), 1000).await;
        assert_eq!(incarnation.number(), 7001);
        let mut keep = std::pin::pin!(incarnation.keep());
        let kept = timeout(Duration::from_secs(3600), keep.as_mut()).await;
        assert!(kept.is_err(), "nothing was written");
        std::fs::remove_dir(&occupied).unwrap();
        timeout(LONGEST_PAUSE, keep).await.unwrap();
        assert_eq!(raised(folder.path(), 1000).await, 7002);
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_that_could_not_be_read_is_not_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incarnation");
        std::fs::create_dir(&path).unwrap();
        let incarnation = Incarnation::raise(folder.path(), 1000).await;
        assert_eq!(incarnation.number(), 1000);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "7000").unwrap();
        incarnation.keep().await;
        assert_eq!(raised(folder.path(), 1000).await, 7001);
    }
}
