//! The plan that made a record. With it `apply` refuses the second of two plans that would make the same records of one owner.
//!
//! A controller counts the plans of an owner that make records. The uid of each record begins with its plan:
//!
//! ```text
//! ff CCCCCC-CCCC-8SSS-RRRR-RRRRRRRRRRRR        C: the count, S: the plan's salt, R: random (a UUID of version 8)
//! ```
//!
//! The index of an owner's records is ordered by uid, so a record of the latest plan is at its end. The state needs neither a counter nor
//! a field for this. When all records of the latest plan are gone, the next plan gets the same count; the salt tells the two plans apart.
//! All other uids are random, of version 4; one in 256 of them sorts among these and is skipped.

use crate::{kept::Kept, kind::Kind, state::State, table::Table};

/// The largest count: 40 bits. A thousand plans a second take 34 years to get there.
const MAX: u64 = (1 << 40) - 1;
/// Bits of the salt, below the count.
const SALT: u32 = 12;
/// How these uids begin.
const PREFIX: &str = "ff";
/// Where the version of a UUID is in its text.
const VERSION: usize = 14;

/// The plan after the latest one that was seen (0 for none), with twelve bits of `salt`, which is random.
pub fn next_plan(latest: u64, salt: u16) -> u64 {
    let count = (latest >> SALT).saturating_add(1).min(MAX);
    count << SALT | u64::from(salt) & ((1 << SALT) - 1)
}

/// The uid of a record that this plan makes.
pub fn made_uid(plan: u64, mut random: [u8; 16]) -> String {
    let [.., salt, low] = plan.to_be_bytes();
    random[0] = 0xff;
    random[1..6].copy_from_slice(&(plan >> SALT).min(MAX).to_be_bytes()[3..]);
    (random[6], random[7]) = (0x80 | salt & 0x0f, low);
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

/// The plan that made the record with this uid; None for all other uids.
pub fn made_by(uid: &str) -> Option<u64> {
    let digits = uid.strip_prefix(PREFIX)?;
    if uid.as_bytes().get(VERSION) != Some(&b'8') {
        return None;
    }
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let count = number(digits.get(..6)?)? << 16 | number(digits.get(7..11)?)?;
    Some(count << SALT | number(digits.get(13..16)?)?)
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
        let plans = [
            0,
            1,
            0xfff,
            0x1000,
            65_535,
            65_536,
            1 << 51,
            MAX << SALT | 0xfff,
        ];
        let uids: Vec<_> = plans
            .iter()
            .map(|plan| made_uid(*plan, [u8::try_from(plan % 251).unwrap(); 16]))
            .collect();
        assert!(uids.is_sorted());
        let told: Vec<_> = uids.iter().filter_map(|uid| made_by(uid)).collect();
        assert_eq!(told, plans);
        assert_eq!(uids[1], "ff000000-0000-8001-8101-010101010101");
        assert_eq!(next_plan(0x1fff, 0xf002), 0x2002);
        assert_eq!(next_plan(MAX << SALT, 1), MAX << SALT | 1);
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
