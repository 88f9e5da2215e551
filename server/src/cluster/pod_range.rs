//! Giving each node a range of the pods' addresses.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

/// The length of a node's range: 254 pods.
pub const NODE_PREFIX: u8 = 24;

/// The lowest range that no node has; absent when all are given away.
#[must_use]
pub fn next_free(all: Ipv4Net, taken: &BTreeSet<Ipv4Net>) -> Option<Ipv4Net> {
    all.subnets(NODE_PREFIX)
        .ok()?
        .find(|range| !taken.contains(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_range_is_given() {
        let all = net("10.244.0.0/22");
        let mut taken = BTreeSet::new();
        for expected in [
            "10.244.0.0/24",
            "10.244.1.0/24",
            "10.244.2.0/24",
            "10.244.3.0/24",
        ] {
            let range = next_free(all, &taken).unwrap();
            assert_eq!(range, net(expected));
            taken.insert(range);
        }
        assert_eq!(next_free(all, &taken), None);
        taken.remove(&net("10.244.1.0/24"));
        assert_eq!(next_free(all, &taken), Some(net("10.244.1.0/24")));
    }
}
