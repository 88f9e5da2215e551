//! For how long the leader has accepted no signs, so that the manager logs it once and not twice a second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Longer than an election takes.
const LONG: Duration = Duration::from_secs(5);

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing was answered for a while.
    Silent,
    /// The first answer after [`News::Silent`].
    Answered,
}

/// Remembers since when nothing was answered. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Silence(Arc<Mutex<Since>>);

#[derive(Debug, Default)]
struct Since {
    begun: Option<Instant>,
    told: bool,
}

impl Silence {
    /// Notes that signs were answered, or not, and says what there is to tell about it.
    pub fn note(&self, answered: bool, now: Instant) -> Option<News> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            let was_told = std::mem::take(&mut *since).told;
            return was_told.then_some(News::Answered);
        }
        let begun = *since.begun.get_or_insert(now);
        let long = now.saturating_duration_since(begun) >= LONG;
        let news = (long && !since.told).then_some(News::Silent);
        since.told |= long;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_silence_is_told_once_and_so_is_its_end() {
        let silence = Silence::default();
        let begin = Instant::now();
        let after = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(silence.note(false, after(0)), None);
        assert_eq!(silence.note(true, after(4)), None, "an election");
        assert_eq!(silence.note(false, after(10)), None);
        assert_eq!(silence.note(false, after(14)), None);
        assert_eq!(silence.note(false, after(15)), Some(News::Silent));
        assert_eq!(silence.note(false, after(60)), None);
        assert_eq!(silence.note(true, after(61)), Some(News::Answered));
        assert_eq!(silence.note(true, after(62)), None);
    }
}
