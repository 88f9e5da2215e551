//! `barge cluster rotate-ca`

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use barge_client::v1::{CaProgress, CaRotationPhase, CaStatus, RotateCaRequest};
use clap::Args;
use serde_json::{Value, json};

use super::status::time;
use crate::{context::Connection, duration, duration::Span, output, progress::Progress};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// Somebody whose command was interrupted runs it again, and means the same rotation, within so many seconds.
const SAME: i64 = 3600;
/// Names in one line.
const NAMED: usize = 5;

/// The cluster goes on with it by itself: this command may be interrupted, and run again to go on showing it.
#[derive(Debug, Args)]
pub struct RotateCa {
    /// Trust both CAs this long at least, after the new one began to sign [default: 1d]
    ///
    /// Credentials of people and programs that are used meanwhile learn the new CA by themselves; others are refused when the
    /// old one is gone.
    #[arg(long, value_name = "DURATION")]
    overlap: Option<Span>,
    /// Leave agents behind that are not ready for the next step after this time; they are named
    #[arg(long, value_name = "DURATION", conflicts_with = "force")]
    deadline: Option<Span>,
    /// Leave agents behind that are not ready for the next step now; they are named
    #[arg(long)]
    force: bool,
    /// Begin another rotation although the last one has just finished
    #[arg(long)]
    again: bool,
    /// Only begin: do not wait until all managers and agents have certificates of the new CA
    #[arg(long)]
    detach: bool,
    /// How long to wait ("90s", "2m", "1h")
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    timeout: Span,
}

pub async fn run(to: &Connection, command: RotateCa) -> Result<()> {
    let client = to.client()?;
    let Some(ca) = client.status().await?.ca else {
        bail!("the managers do not say what CA they trust: are they of an older version?");
    };
    if let (Some(ago), false) = (just_rotated(&ca, output::now()), command.again) {
        return say(&format!(
            "the CA was rotated {} ago, nothing is to be done; --again rotates it once more",
            duration::human(ago)
        ));
    }
    client
        .rotate_ca(RotateCaRequest {
            replaces_sha256: ca.roots_sha256.first().cloned().unwrap_or_default(),
            overlap_seconds: command.overlap.map(|span| span.0.as_secs()),
            leave_behind_seconds: match command.force {
                true => Some(0),
                false => command.deadline.map(|span| span.0.as_secs()),
            },
        })
        .await?;
    if command.detach {
        return say(
            "the CA is being rotated; `barge cluster status` and this command without --detach show how far that is",
        );
    }
    wait(to, &command, client).await
}

async fn wait(to: &Connection, command: &RotateCa, mut client: barge_client::Client) -> Result<()> {
    let (begun, limit) = (Instant::now(), command.timeout.0);
    let mut progress = Progress::new();
    loop {
        let ca = client.status().await?.ca.unwrap_or_default();
        // This credential follows, too: the old one is of no use in the end.
        if to.learn_roots().await {
            client = to.client()?;
        }
        let now = output::now();
        if let Some(done) = done(&ca, now) {
            progress.finish(None);
            return say(&done);
        }
        let waiting = describe(&ca, now);
        if begun.elapsed() >= limit {
            bail!(
                "not done within {}; {waiting}. The cluster goes on with it; running this again shows it",
                duration::human(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)),
            );
        }
        progress.say(&waiting);
        tokio::time::sleep(LOOK).await;
    }
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// How many seconds ago the last rotation was finished, when that is so recent that nobody means another one.
fn just_rotated(ca: &CaStatus, now: i64) -> Option<i64> {
    let finished = ca.last.as_ref()?.finished?.seconds;
    let ago = now.saturating_sub(finished);
    (ca.phase() == CaRotationPhase::Unspecified && ago < SAME).then_some(ago)
}

/// What to say when there is nothing to wait for, or only for the time of the old CA to pass.
fn done(ca: &CaStatus, now: i64) -> Option<String> {
    const BACKUP: &str =
        "take a backup: one from before brings the old CA back, which nobody trusts any more";
    if ca.phase() == CaRotationPhase::Unspecified {
        let left = ca.last.clone().unwrap_or_default();
        return Some(match left.left_behind_count {
            0 => format!("the CA was rotated; {BACKUP}"),
            count => format!(
                "the CA was rotated; {} left behind, which join again as new nodes: {}; {BACKUP}",
                nodes(count),
                named(&left.left_behind, count)
            ),
        });
    }
    let until = ca.both_until?.seconds;
    let missing = ca.progress.as_ref()?;
    let all = missing.missing_managers.is_empty() && missing.missing_node_count == 0;
    (all && until > now).then(|| {
        format!(
            "all managers and agents have certificates of the new CA; the old one goes in {}: credentials that are used before \
             learn the new one. Run this again to see the end, with --overlap 0s to have it now",
            duration::human(until - now)
        )
    })
}

/// The CA in a line.
pub fn describe(ca: &CaStatus, now: i64) -> String {
    let ends = ca.expires.map_or_else(
        || "-".to_owned(),
        |time| duration::human(time.seconds.saturating_sub(now)),
    );
    let phase = match ca.phase() {
        CaRotationPhase::Unspecified => {
            let last = ca.last.as_ref().and_then(|last| last.finished);
            return match last {
                None => format!("CA: ends in {ends}"),
                Some(time) => format!(
                    "CA: ends in {ends}; rotated {} ago",
                    duration::human(now.saturating_sub(time.seconds))
                ),
            };
        }
        CaRotationPhase::Spreading => "1 of 2: all learn the new CA, the old one signs",
        CaRotationPhase::Renewing => "2 of 2: all get certificates of the new CA",
    };
    let mut line = format!("CA: rotating, {phase}");
    match &ca.progress {
        None => line.push_str("; the leader does not say who is missing"),
        Some(progress) => line.push_str(&missing(progress)),
    }
    if let Some(until) = ca.both_until.filter(|until| until.seconds > now) {
        let left = duration::human(until.seconds - now);
        line.push_str(&format!("; both are trusted for another {left} at least"));
    }
    if let Some(after) = ca.leave_behind_after.filter(|after| after.seconds > now) {
        let left = duration::human(after.seconds - now);
        line.push_str(&format!("; agents are left behind in {left}"));
    }
    line
}

fn missing(progress: &CaProgress) -> String {
    let mut text = String::new();
    let managers = &progress.missing_managers;
    if !managers.is_empty() {
        let managers = managers.join(", ");
        text.push_str(&format!(
            "; missing managers: {managers} (bring them back, or `barge cluster remove` them)"
        ));
    }
    if progress.missing_node_count > 0 {
        let names = named(&progress.missing_nodes, progress.missing_node_count);
        text.push_str(&format!(
            "; missing {}: {names}",
            nodes(progress.missing_node_count)
        ));
    }
    text
}

fn nodes(count: u32) -> String {
    match count {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    }
}

fn named(names: &[String], count: u32) -> String {
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if usize::try_from(count).unwrap_or(usize::MAX) > NAMED {
        text.push_str(", …");
    }
    text
}

/// For programs.
pub fn to_json(ca: &CaStatus) -> Value {
    let hex = |digest: &Vec<u8>| barge_client::token::hex(digest);
    let phase = match ca.phase() {
        CaRotationPhase::Unspecified => Value::Null,
        CaRotationPhase::Spreading => json!("Spreading"),
        CaRotationPhase::Renewing => json!("Renewing"),
    };
    json!({
        "rootsSHA256": ca.roots_sha256.iter().map(hex).collect::<Vec<_>>(),
        "expires": time(ca.expires),
        "phase": phase,
        "begun": time(ca.begun),
        "bothUntil": time(ca.both_until),
        "leaveBehindAfter": time(ca.leave_behind_after),
        "missingManagers": ca.progress.as_ref().map(|progress| &progress.missing_managers),
        "missingNodes": ca.progress.as_ref().map(|progress| &progress.missing_nodes),
        "missingNodeCount": ca.progress.as_ref().map(|progress| progress.missing_node_count),
        "last": ca.last.as_ref().map(|last| json!({
            "finished": time(last.finished),
            "leftBehind": last.left_behind,
            "leftBehindCount": last.left_behind_count,
        })),
    })
}

#[cfg(test)]
mod tests {
    use barge_client::v1::{CaRotated, Time};

    use super::*;

    fn at(seconds: i64) -> Option<Time> {
        Some(Time { seconds, nanos: 0 })
    }

    fn renewing(missing: &[&str]) -> CaStatus {
        CaStatus {
            phase: CaRotationPhase::Renewing.into(),
            both_until: at(3 * 86_400),
            progress: Some(CaProgress {
                missing_nodes: missing.iter().map(|name| (*name).to_owned()).collect(),
                missing_node_count: u32::try_from(missing.len()).unwrap(),
                ..CaProgress::default()
            }),
            ..CaStatus::default()
        }
    }

    #[test]
    fn the_missing_are_named_and_counted() {
        let line = describe(&renewing(&["a", "b", "c", "d", "e", "f"]), 0);
        assert!(line.contains("missing 6 nodes: a, b, c, d, e, …"), "{line}");
        assert!(line.contains("another 3d at least"), "{line}");
        assert_eq!(done(&renewing(&["a"]), 0), None);
    }

    #[test]
    fn waiting_for_the_time_alone_is_an_end_for_who_waits() {
        let said = done(&renewing(&[]), 0).unwrap();
        assert!(said.contains("the old one goes in 3d"), "{said}");
        assert_eq!(done(&renewing(&[]), 3 * 86_400), None);
    }

    #[test]
    fn a_rotation_that_has_just_finished_is_not_begun_again() {
        let ca = CaStatus {
            last: Some(CaRotated {
                finished: at(100),
                left_behind: vec!["n1".to_owned()],
                left_behind_count: 1,
            }),
            ..CaStatus::default()
        };
        assert_eq!(just_rotated(&ca, 130), Some(30));
        assert_eq!(just_rotated(&ca, 100 + SAME), None);
        assert!(done(&ca, 0).unwrap().contains("1 node left behind"));
        let again = CaStatus {
            phase: CaRotationPhase::Spreading.into(),
            ..ca
        };
        assert_eq!(just_rotated(&again, 130), None);
    }
}
