//! Giving Services their addresses and ports: any that is free, from somewhere in the range on, so that what was just given
//! back is not given out next.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Ports that every node answers on for Services.
pub const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;
/// The first addresses of a range are left to Services that choose their own, such as a name server.
const LEFT_FREE: u32 = 16;

/// An address of the range that is free; absent when none is.
pub fn free_address(
    range: Ipv4Net,
    from: u64,
    is_free: impl Fn(Ipv4Addr) -> bool,
) -> Option<Ipv4Addr> {
    let first = u32::from(range.network()).checked_add(LEFT_FREE)?;
    let last = u32::from(range.broadcast()).checked_sub(1)?;
    let count = last.checked_sub(first)? + 1;
    let start = u32::try_from(from % u64::from(count)).ok()?;
    (0..count)
        .map(|step| Ipv4Addr::from(first + (start + step) % count))
        .find(|address| is_free(*address))
}

/// A node port that is free; absent when none is.
pub fn free_port(from: u64, is_free: impl Fn(i32) -> bool) -> Option<i32> {
    let count = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let start = i32::try_from(from % u64::from(count.unsigned_abs())).ok()?;
    (0..count)
        .map(|step| NODE_PORTS.start() + (start + step) % count)
        .find(|port| is_free(*port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn gives_every_address_once_and_then_none() {
        let range: Ipv4Net = "10.96.0.0/27".parse().unwrap();
        let mut taken = BTreeSet::new();
        while let Some(address) = free_address(range, 7, |a| !taken.contains(&a)) {
            assert!(range.contains(&address));
            assert!(taken.insert(address));
        }
        assert_eq!(taken.len(), 15);
        assert!(!taken.contains(&range.network()) && !taken.contains(&range.broadcast()));
    }

    proptest! {
        #[test]
        fn what_is_given_is_free_and_in_range(from: u64, taken in proptest::collection::btree_set(30_000..=32_767, 0..200)) {
            let port = free_port(from, |p| !taken.contains(&p)).unwrap();
            prop_assert!(NODE_PORTS.contains(&port) && !taken.contains(&port));
        }
    }
}
