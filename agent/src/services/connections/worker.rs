//! Drops connections beside the loop that writes the rules: the kernel may remember hundreds of thousands, and looks through all of them.

use std::{collections::BTreeSet, io, net::Ipv4Addr, time::Duration};

use nix::ifaddrs::getifaddrs;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::{
    Moved,
    kernel::{MOST, forget},
};

/// Between two looks through all connections; doubled after each that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest of these.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Takes what moved, from the loop that writes the rules. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Forgetter(watch::Sender<Moved>);

impl Forgetter {
    /// The rules lead elsewhere now.
    pub fn moved(&self, moved: Moved) {
        if !moved.is_empty() {
            self.0.send_modify(|waiting| waiting.add(moved));
        }
    }

    /// Drops connections for as long as it is polled, once a second at most. `tell` gets why that failed, once until it works again.
    pub async fn run(self, tell: impl Fn(&io::Error)) {
        let waiting = self.0;
        let mut changed = waiting.subscribe();
        let (mut pause, mut told) = (PAUSE, false);
        while changed
            .wait_for(|moved| !moved.is_empty())
            .await
            .map(drop)
            .is_ok()
        {
            let mut moved = Moved::default();
            waiting.send_if_modified(|waiting| {
                moved = std::mem::take(waiting);
                false
            });
            match drop_stale(moved.clone()).await {
                Ok(dropped) => {
                    if dropped > 0 {
                        tracing::debug!(dropped, "UDP connections to endpoints that went");
                    }
                    if dropped == MOST {
                        again(&waiting, moved);
                    }
                    (pause, told) = (PAUSE, false);
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tell(&error);
                    }
                    again(&waiting, moved);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(pause).await;
        }
    }
}

/// Puts back what is not done; what moved later counts.
fn again(waiting: &watch::Sender<Moved>, mut moved: Moved) {
    waiting.send_modify(|waiting| {
        moved.add(std::mem::take(waiting));
        *waiting = moved;
    });
}

async fn drop_stale(moved: Moved) -> io::Result<usize> {
    let work = move || {
        let local: BTreeSet<Ipv4Addr> = getifaddrs()?
            .filter_map(|it| Some(it.address?.as_sockaddr_in()?.ip()))
            .collect();
        forget(|connection| moved.is_stale(connection, |ip| local.contains(&ip)))
    };
    spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
