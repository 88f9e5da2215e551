//! Who changed our table: an account of the kernel's transactions, made from its notices.
//!
//! The kernel numbers the transactions of a network namespace, of all tables, one by one: its *generation*. It sends a notice of each object that
//! a transaction changed, with the object's table, and in the end one with the new generation. So an account in which no generation is missing
//! knows all that was done to our table, and a missing one means that anything may have been done.

/// What the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The transaction changed something in our table.
    Touched,
    /// The transaction's notices end.
    Ended {
        /// The generation that it made.
        generation: u32,
        /// The name of the process that made it.
        by: String,
    },
}

/// What others did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// They changed our table; the process that did so last.
    Changed(String),
    /// Notices are missing: they may have changed it.
    Unknown,
}

/// The transactions since the account was begun.
#[derive(Debug, Default)]
pub struct Account {
    /// The last one that is accounted for; `None` when one before it is missing.
    last: Option<u32>,
    /// The one whose notices are coming has changed our table.
    touched: bool,
    /// How many changed our table; which was the last of them, and who made it.
    touching: usize,
    touched_at: u32,
    by: String,
}

impl Account {
    /// Begins after this generation. A transaction whose notices are half read stays known.
    pub fn begin(&mut self, generation: u32) {
        *self = Self {
            last: Some(generation),
            touched: self.touched,
            ..Self::default()
        };
    }

    /// Takes what the kernel said next.
    pub fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Touched => self.touched = true,
            // From before the account was begun.
            Notice::Ended { generation, .. }
                if self.last.is_some_and(|last| !is_after(generation, last)) =>
            {
                self.touched = false;
            }
            Notice::Ended { generation, by } => {
                if std::mem::take(&mut self.touched) {
                    self.touching = self.touching.saturating_add(1);
                    self.touched_at = generation;
                    self.by = by;
                }
                let is_next = |last: &u32| next(*last) == generation;
                self.last = self.last.filter(is_next).map(|_| generation);
            }
        }
    }

    /// Notices were lost.
    pub fn lost(&mut self) {
        self.last = None;
        self.touched = false;
    }

    /// What others did, when the kernel was at the generation `now` before the last notices were taken, and nothing was written since the
    /// account was begun.
    pub fn found(&self, now: u32) -> Option<Found> {
        match self.last {
            _ if self.touching > 0 => Some(Found::Changed(self.by.clone())),
            Some(last) if !is_after(now, last) => None,
            _ => Some(Found::Unknown),
        }
    }

    /// What others did beside one transaction of ours. The account was begun at the generation `before`; `after` was read when ours was done,
    /// and then the last notices were taken.
    pub fn found_beside_ours(&self, before: u32, after: u32) -> Option<Found> {
        let later = self.touching > 0 && is_after(self.touched_at, after);
        match self.last {
            _ if later || self.touching > 1 => Some(Found::Changed(self.by.clone())),
            // No other one was made, whatever notices are missing.
            _ if after == before || after == next(before) => None,
            Some(last) if !is_after(after, last) => None,
            _ => Some(Found::Unknown),
        }
    }

    /// The last generation that is accounted for.
    pub fn last(&self) -> Option<u32> {
        self.last
    }
}

/// The kernel leaves out 0.
fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

/// Whether a generation is later than another one. They begin anew after 2^32.
fn is_after(generation: u32, other: u32) -> bool {
    let ahead = generation.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(generation: u32) -> Notice {
        Notice::Ended {
            generation,
            by: format!("p{generation}"),
        }
    }

    fn account(begin: u32, notices: impl IntoIterator<Item = Notice>) -> Account {
        let mut account = Account::default();
        account.begin(begin);
        notices.into_iter().for_each(|one| account.take(one));
        account
    }

    #[test]
    fn a_change_of_our_table_is_found_and_one_of_another_is_not() {
        let others = account(5, [ended(6), ended(7)]);
        assert_eq!(others.found(7), None);
        let ours = account(5, [ended(6), Notice::Touched, Notice::Touched, ended(7)]);
        let by = Some(Found::Changed("p7".into()));
        assert_eq!(ours.found(7), by);
        // From before it was begun.
        let stale = account(5, [Notice::Touched, ended(5), ended(6)]);
        assert_eq!(stale.found(6), None);
    }

    #[test]
    fn a_missing_notice_means_that_nothing_is_known() {
        assert_eq!(account(5, [ended(7)]).found(7), Some(Found::Unknown));
        assert_eq!(account(5, [ended(6)]).found(7), Some(Found::Unknown));
        let mut lost = account(5, [ended(6)]);
        lost.lost();
        lost.take(ended(7));
        assert_eq!(lost.found(7), Some(Found::Unknown));
        assert_eq!(Account::default().found(0), Some(Found::Unknown));
    }

    #[test]
    fn a_transaction_of_ours_is_told_from_those_beside_it() {
        // A large one fills the buffer of notices.
        let mut alone = account(5, []);
        alone.lost();
        assert_eq!(alone.found_beside_ours(5, 6), None);
        assert_eq!(alone.found_beside_ours(5, 7), Some(Found::Unknown));
        let beside = account(5, [ended(6), Notice::Touched, ended(7)]);
        assert_eq!(beside.found_beside_ours(5, 7), None);
        let again = account(5, [Notice::Touched, ended(6), Notice::Touched, ended(7)]);
        let by = Some(Found::Changed("p7".into()));
        assert_eq!(again.found_beside_ours(5, 7), by);
        let later = account(5, [Notice::Touched, ended(6), Notice::Touched, ended(7)]);
        assert_eq!(later.found_beside_ours(5, 6), by);
    }

    #[test]
    fn a_transaction_whose_notices_are_half_read_is_not_forgotten() {
        let mut account = account(5, [Notice::Touched]);
        account.begin(5);
        account.take(ended(6));
        assert_eq!(account.found(6), Some(Found::Changed("p6".into())));
    }

    #[test]
    fn generations_begin_anew() {
        let over = account(u32::MAX, [ended(1), Notice::Touched, ended(2)]);
        assert!(matches!(over.found(2), Some(Found::Changed(_))));
        assert_eq!(account(u32::MAX, [ended(1)]).found(1), None);
        assert_eq!(
            account(1, []).found_beside_ours(u32::MAX, 1),
            None,
            "the next one"
        );
    }
}
