//! Control's watch over the carrier: it holds a connection, whose end is the end of the carrier's process, and starts
//! another one at once.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::protocol::Reply;
use crate::carrier::Carrier;

/// Between two pings.
const PERIOD: Duration = Duration::from_secs(5);
/// Wait after a failure, doubled by each further one …
const RETRY: Duration = Duration::from_millis(50);
/// … up to this. Also how long a carrier has to live for its end not to count as a further failure.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// How a carrier's time ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Gone,
    Stuck,
}

/// Keeps a carrier running, for ever. What goes wrong is told: a reason, and a sentence.
pub async fn keep(carrier: Carrier, tell: impl Fn(&str, String)) {
    let mut retry = RETRY;
    let mut ended: Option<(End, u32, Instant)> = None;
    let mut told = String::new();
    loop {
        let reply = match carrier.ensure().await {
            Ok(reply) => reply,
            Err(error) => {
                let error = error.to_string();
                if told != error {
                    tracing::error!(error, "the containers' output stands still");
                    let message = format!(
                        "{error}; until then output waits in the containers' pipes, and containers that fill them wait too"
                    );
                    tell("CarrierFailed", message);
                    told = error;
                }
                sleep(retry).await;
                retry = (retry * 2).min(LONGEST_RETRY);
                continue;
            }
        };
        told.clear();
        if let Some((end, pid, at)) = ended.take().filter(|(_, pid, _)| *pid != reply.pid) {
            let (reason, what) = match end {
                End::Gone => ("CarrierGone", "ended"),
                End::Stuck => ("CarrierStuck", "did not answer and was killed"),
            };
            let message = format!(
                "the carrier of the containers' output (process {pid}) {what}; process {} took over after {} ms, no output is lost",
                reply.pid,
                at.elapsed().as_millis()
            );
            tracing::warn!(reason, message);
            tell(reason, message);
        }
        if let Some(difference) = reply.difference() {
            let message = format!(
                "{difference}, and so are those that follow it: install this agent's program where the carrier is started, and end process {}; containers run on",
                reply.pid
            );
            tracing::warn!(message);
            tell("CarrierDiffers", message);
        }
        let since = Instant::now();
        let end = watch(&carrier, &reply).await;
        ended = Some((end, reply.pid, Instant::now()));
        if since.elapsed() >= LONGEST_RETRY {
            retry = RETRY;
        } else {
            sleep(retry).await;
            retry = (retry * 2).min(LONGEST_RETRY);
        }
    }
}

/// Returns when the carrier is gone or stuck.
async fn watch(carrier: &Carrier, reply: &Reply) -> End {
    let Ok(mut connection) = carrier.connect().await else {
        return End::Gone;
    };
    loop {
        match connection.ping().await {
            Ok(Some(again)) if again.pid == reply.pid => {}
            Ok(None) => {
                connection.kill();
                return End::Stuck;
            }
            Ok(Some(_)) | Err(_) => return End::Gone,
        }
        if timeout(PERIOD, connection.ended()).await.is_ok() {
            return End::Gone;
        }
    }
}
