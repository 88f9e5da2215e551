//! Log messages about a collector that is away: one when spans begin to be lost, and one when they no longer are.

/// How it went so far.
#[derive(Debug, Default)]
pub struct Health {
    losing: bool,
    /// Spans lost, as of the last batch, and as of when all was well.
    seen: u64,
    since: u64,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Spans are being lost.
    Losing,
    /// They are not any more.
    Again {
        /// As many were, meanwhile.
        lost: u64,
    },
}

impl Health {
    /// After a batch that did or did not arrive, with as many spans lost as ever.
    pub fn after(&mut self, failed: bool, dropped: u64) -> Option<Said> {
        let losing = failed || dropped > self.seen;
        let before = std::mem::replace(&mut self.seen, dropped);
        match (std::mem::replace(&mut self.losing, losing), losing) {
            (false, true) => {
                self.since = before;
                Some(Said::Losing)
            }
            (true, false) => Some(Said::Again {
                lost: dropped - self.since,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let mut health = Health::default();
        assert_eq!(health.after(false, 0), None);
        assert_eq!(health.after(true, 10), Some(Said::Losing));
        assert_eq!(health.after(true, 30), None);
        assert_eq!(health.after(false, 30), Some(Said::Again { lost: 30 }));
        assert_eq!(health.after(false, 30), None);
    }

    #[test]
    fn a_queue_that_overflows_counts_as_well() {
        let mut health = Health::default();
        assert_eq!(health.after(false, 5), Some(Said::Losing));
        assert_eq!(health.after(false, 9), None);
        assert_eq!(health.after(false, 9), Some(Said::Again { lost: 9 }));
    }
}
