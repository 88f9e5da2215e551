//! Which plan made a record: what keeps two plans of one owner from making the same records twice.
//!
//! A controller counts the plans of an owner that make records. The count is in the uids of what a plan makes, at their beginning:
//!
//! ```text
//! ff PPPPPP-PPPP-8RRR-RRRR-RRRRRRRRRRRR        P: the plan, R: random (a UUID of version 8)
//! ```
//!
//! The index of what an owner owns is ordered by uid, so the record of the latest plan is at its end, and neither a counter nor
//! a field has to be kept. All other uids are random, of version 4; one in 256 of these sorts among them and is skipped.

use crate::{kept::Kept, kind::Kind, state::State, table::Table};

/// The largest number of a plan: 40 bits. A thousand plans a second take 34 years to get there.
const MAX: u64 = (1 << 40) - 1;
/// How these uids begin.
const PREFIX: &str = "ff";
/// Where the version of a UUID is in its text.
const VERSION: usize = 14;

/// The uid of a record that the plan with this number makes.
pub fn made_uid(plan: u64, mut random: [u8; 16]) -> String {
    random[0] = 0xff;
    random[1..6].copy_from_slice(&plan.min(MAX).to_be_bytes()[3..]);
    random[6] = 0x80 | random[6] & 0x0f;
    random[8] = 0x80 | random[8] & 0x3f;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// The number of the plan that made the record with this uid; None for all other uids.
pub fn made_by(uid: &str) -> Option<u64> {
    let digits = uid.strip_prefix(PREFIX)?;
    if uid.as_bytes().get(VERSION) != Some(&b'8') {
        return None;
    }
    let (high, low) = (digits.get(..6)?, digits.get(7..11)?);
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some(number(high)? << 16 | number(low)?)
}

/// The latest plan that made a record of those that an owner has; 0 for none.
pub(crate) fn latest<K: Kept>(table: &Table<K>, owner: &str) -> u64 {
    let uids = table.owned(owner).rev().map(|record| record.uid());
    let mut last = uids.take_while(|uid| uid.starts_with(PREFIX));
    last.find_map(made_by).unwrap_or(0)
}

impl State {
    /// The latest plan that made a record of this kind of those that an owner has; 0 for none.
    pub fn latest_plan<K: Kind>(&self, owner: &str) -> u64 {
        latest(K::table(&self.tables), owner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_uid_says_which_plan_made_it_and_sorts_by_it() {
        let plans = [0, 1, 255, 256, 65_535, 65_536, 1 << 39, MAX];
        let uids: Vec<_> = plans
            .iter()
            .map(|plan| made_uid(*plan, [u8::try_from(plan % 251).unwrap(); 16]))
            .collect();
        assert!(uids.is_sorted());
        let told: Vec<_> = uids.iter().filter_map(|uid| made_by(uid)).collect();
        assert_eq!(told, plans);
        assert_eq!(uids[1], "ff000000-0001-8101-8101-010101010101");
    }

    #[test]
    fn other_uids_say_nothing() {
        for uid in [
            "",
            "ff",
            "pod",
            "ff000000-0001-4101-8101-010101010101",
            "ffzzzzzz-0001-8101-8101-010101010101",
        ] {
            assert_eq!(made_by(uid), None, "{uid}");
        }
    }
}
