//! Which life of the agent's process this is: a number that rises with each start, so that managers can tell a status of an earlier
//! process from one of this.

use std::path::Path;

use super::SavedError;
use crate::files;

/// Raises the number in the file and makes it durable. It is at least the time in milliseconds, so that it also rises when the file is
/// lost; and one more than before, so that it also rises when the clock was put back.
///
/// # Errors
/// The file cannot be read or written.
pub fn raise(path: &Path, now_ms: i64) -> Result<u64, SavedError> {
    let failed = |source| SavedError::new(path, source);
    let kept = files::read_if_there(path).map_err(failed)?;
    let number = |bytes: Vec<u8>| str::from_utf8(&bytes).ok()?.parse::<u64>().ok();
    let before = kept.map_or(Some(0), number);
    if before.is_none() {
        let path = path.display();
        tracing::warn!(%path, "there is no number in it; beginning anew with the time");
    }
    let next = u64::try_from(now_ms)
        .unwrap_or(0)
        .max(before.unwrap_or(0).saturating_add(1));
    files::write_atomic(path, next.to_string().as_bytes()).map_err(failed)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_rises_whatever_the_clock_and_the_disk_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incarnation");
        assert_eq!(raise(&path, 1000).unwrap(), 1000);
        assert_eq!(raise(&path, 1000).unwrap(), 1001);
        assert_eq!(raise(&path, 5).unwrap(), 1002, "the clock was put back");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(raise(&path, 2000).unwrap(), 2000);
        std::fs::write(&path, "\u{0}\u{0}").unwrap();
        assert_eq!(raise(&path, 3000).unwrap(), 3000);
    }
}
