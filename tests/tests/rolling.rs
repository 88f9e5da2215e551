//! A rolling update under load.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barge_tests::{Cluster, rolling::Site};

/// Rolls: each ends two pods.
const ROLLS: usize = 3;

#[test]
fn a_rolling_update_of_two_replicas_loses_no_request() {
    let cluster = Cluster::up("rolling", 1, 3);
    let site = Site::on(&cluster);
    let (fresh, kept, took) = site.roll(ROLLS);
    println!(
        "[rolling] {} pages with a connection for each, {} with kept ones; a roll took {took:?}",
        fresh.pages, kept.pages
    );
    assert!(fresh.pages > 100 && kept.pages > 100, "{fresh:?} {kept:?}");
    assert!(fresh.failures.is_empty(), "{:?}", fresh.failures);
    assert!(kept.failures.is_empty(), "{:?}", kept.failures);
}
