//! Which images go, and in which order: a function of what there is and when it was used.

use std::collections::{BTreeMap, BTreeSet};

use crate::runtime::{Filled, StoredImage};

/// An image stays for so long after it was pulled or used, in milliseconds: its pod may be on its way.
const LEAST_AGE_MS: i64 = 120_000;

/// See [`Thresholds::given`].
const HIGH: u8 = 85;
/// See [`Thresholds::given`].
const LOW: u8 = 80;

/// How full the disk of the images may be, in percent. A disk has no more than 100, so 100 as the high one means that nothing is collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    high: u64,
    low: u64,
}

/// Thresholds that make no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "image_gc_high_threshold {high} and image_gc_low_threshold {low} must be percentages, the low one below the high one; with 100 as the high one no image is removed"
)]
pub struct ThresholdsError {
    high: u8,
    low: u8,
}

impl Default for Thresholds {
    /// As in Kubernetes.
    fn default() -> Self {
        Self {
            high: HIGH.into(),
            low: LOW.into(),
        }
    }
}

impl Thresholds {
    /// Collects from `high` percent on (default 85), down to `low` percent (default 80, or 5 below a `high` for which that is too much).
    ///
    /// # Errors
    /// When `high` is above 100, or `low` not below `high`.
    pub fn given(high: Option<u8>, low: Option<u8>) -> Result<Self, ThresholdsError> {
        let high = high.unwrap_or(HIGH);
        let low = low.unwrap_or_else(|| LOW.min(high.saturating_sub(HIGH - LOW)));
        match high <= 100 && low < high {
            true => Ok(Self {
                high: high.into(),
                low: low.into(),
            }),
            false => Err(ThresholdsError { high, low }),
        }
    }

    /// Whether images are to be removed.
    pub fn is_reached(&self, disk: &Filled) -> bool {
        self.high < 100 && percent(disk) >= self.high
    }

    /// Whether enough of them are removed.
    pub fn is_enough(&self, disk: &Filled) -> bool {
        percent(disk) <= self.low
    }
}

/// How full a disk is, in whole percent. A disk without a size is not full.
pub fn percent(disk: &Filled) -> u64 {
    let hundredfold = u128::from(disk.used) * 100;
    let percent = hundredfold.checked_div(u128::from(disk.total));
    u64::try_from(percent.unwrap_or(0)).unwrap_or(100)
}

/// When images were seen in use. It is in memory: after a start the times of the last pulls decide until images are seen again.
#[derive(Debug, Default)]
pub struct Uses(BTreeMap<String, i64>);

impl Uses {
    /// Notes which images are in use now, and forgets those that are not there any more.
    pub fn note(&mut self, images: &[StoredImage], in_use: &BTreeSet<String>, now_ms: i64) {
        let there: BTreeSet<_> = images.iter().map(|image| &image.name).collect();
        self.0.retain(|name, _| there.contains(name));
        for name in there.into_iter().filter(|name| in_use.contains(*name)) {
            self.0.insert(name.clone(), now_ms);
        }
    }

    /// The images that may be removed, the longest unused first.
    pub fn removable(
        &self,
        images: &[StoredImage],
        in_use: &BTreeSet<String>,
        now_ms: i64,
    ) -> Vec<String> {
        let unused = images.iter().filter(|image| !in_use.contains(&image.name));
        let mut aged: Vec<_> = unused
            .map(|image| (self.last_used_ms(image), &image.name))
            // A time that is still to come is that of a clock which was put back.
            .filter(|(used, _)| !(0..LEAST_AGE_MS).contains(&now_ms.saturating_sub(*used)))
            .collect();
        aged.sort_unstable();
        aged.into_iter().map(|(_, name)| name.clone()).collect()
    }

    fn last_used_ms(&self, image: &StoredImage) -> i64 {
        let seen = self.0.get(&image.name).copied();
        seen.unwrap_or(image.pulled_at_ms).max(image.pulled_at_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MINUTE: i64 = 60_000;

    fn image(name: &str, pulled_at_ms: i64) -> StoredImage {
        StoredImage {
            name: name.to_owned(),
            pulled_at_ms,
        }
    }

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_in_use_never() {
        let images = [
            image("old", 1),
            image("used", 2),
            image("new", 3),
            image("now", 0),
        ];
        let mut uses = Uses::default();
        uses.note(&images, &names(&["used", "now"]), 10 * MINUTE);
        let removable = uses.removable(&images, &names(&["now"]), 60 * MINUTE);
        assert_eq!(removable, ["old", "new", "used"]);
    }

    #[test]
    fn what_was_pulled_or_used_just_now_stays() {
        let images = [
            image("pulled", 59 * MINUTE),
            image("used", 0),
            image("old", 0),
        ];
        let mut uses = Uses::default();
        uses.note(&images, &names(&["used"]), 59 * MINUTE);
        assert_eq!(uses.removable(&images, &names(&[]), 60 * MINUTE), ["old"]);
    }

    #[test]
    fn a_clock_that_was_put_back_keeps_nothing_for_ever() {
        let images = [image("tomorrow", 24 * 60 * MINUTE)];
        let removable = Uses::default().removable(&images, &names(&[]), 0);
        assert_eq!(removable, ["tomorrow"]);
    }

    #[test]
    fn images_that_went_are_forgotten() {
        let mut uses = Uses::default();
        uses.note(&[image("a", 0), image("b", 0)], &names(&["a", "b"]), 1);
        uses.note(&[image("b", 0)], &names(&["a", "b"]), 2);
        assert_eq!(uses.0.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn thresholds_are_percentages_of_the_disk() {
        let disk = |used| Filled { used, total: 1000 };
        let usual = Thresholds::default();
        assert!(!usual.is_reached(&disk(849)));
        assert!(usual.is_reached(&disk(850)));
        assert!(!usual.is_enough(&disk(810)));
        assert!(usual.is_enough(&disk(800)));
        assert!(!usual.is_reached(&Filled { used: 0, total: 0 }));
        assert!(
            !Thresholds::given(Some(100), None)
                .unwrap()
                .is_reached(&disk(1000))
        );
        assert!(
            Thresholds::given(Some(70), None)
                .unwrap()
                .is_enough(&disk(650))
        );
        assert!(Thresholds::given(Some(101), None).is_err());
        assert!(Thresholds::given(Some(80), Some(80)).is_err());
        assert!(Thresholds::given(Some(0), None).is_err());
    }
}
