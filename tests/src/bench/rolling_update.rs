//! `rolling-update`: requests that fail while a Deployment of two replicas rolls.

use super::report::Row;
use crate::{Cluster, rolling::Site};

const ROUNDS: usize = 3;
/// Replacements of both pods in a round.
const ROLLS: usize = 3;

/// Rolls two replicas of nginx on three nodes while three clients with a connection for each request and three with kept connections ask through all of them.
///
/// # Errors
/// None: it panics when the site does not come up.
pub fn run() -> anyhow::Result<Vec<Row>> {
    let cluster = Cluster::up("rolling-update", 3, 3);
    let site = Site::on(&cluster);
    let (mut fresh, mut kept, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (by_fresh, by_kept, took) = site.roll(ROLLS);
        fresh.push(by_fresh.failures.len() as f64);
        kept.push(by_kept.failures.len() as f64);
        seconds.push(took.as_secs_f64());
        println!(
            "[rolling-update] {} and {} requests",
            by_fresh.pages, by_kept.pages
        );
    }
    Ok(vec![
        Row::least("rolling-update, connections", "failed", &fresh),
        Row::least("rolling-update, keep-alive", "failed", &kept),
        Row::least("rolling-update, one roll", "s", &seconds),
    ])
}
