//! `barge cluster status`

use std::io::{self, Write};

use anyhow::Result;
use barge_client::v1::{GetStatusResponse, MemberStatus, Time};
use serde_json::{Value, json};

use super::{role, rotate_ca, schedule};
use crate::{
    duration,
    output::{self, Table},
};

/// For people.
pub fn print(status: &GetStatusResponse, now: i64) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "cluster {}, term {}, revision {}\n",
        status.cluster_id, status.term, status.revision
    )?;
    members(&status.members, now).print(&mut out)?;
    for member in &status.members {
        if member.status.is_none() {
            let address = member.member.as_ref().map_or("", |member| &member.address);
            writeln!(out, "\n{address} does not answer: {}", member.error)?;
        }
    }
    let backup = status.backup.clone().unwrap_or_default();
    writeln!(out, "\n{}", schedule::describe(&backup, now))?;
    if let Some(ca) = &status.ca {
        writeln!(out, "{}", rotate_ca::describe(ca, now))?;
    }
    for warning in &status.warnings {
        writeln!(out, "\nwarning: {warning}")?;
    }
    Ok(())
}

fn members(all: &[MemberStatus], now: i64) -> Table {
    let mut table = Table::new(vec![
        "ADDRESS",
        "STATE",
        "ROLE",
        "TERM",
        "APPLIED",
        "LAG",
        "AGENTS",
        "DISK FREE",
        "LOG",
        "SNAPSHOT",
        "CERTIFICATE",
        "VERSION",
    ]);
    let last = all.iter().filter_map(|one| one.status.as_ref());
    let last = last.map(|status| status.last_log_index).max().unwrap_or(0);
    for one in all {
        let member = one.member.clone().unwrap_or_default();
        let mut row = vec![
            member.address.clone(),
            member.state.clone(),
            role(&member).to_owned(),
        ];
        match &one.status {
            Some(status) => row.extend([
                status.term.to_string(),
                status.applied_index.to_string(),
                last.saturating_sub(status.applied_index).to_string(),
                status.sessions.to_string(),
                output::size(status.disk_free_bytes),
                output::size(status.log_bytes),
                status.snapshot_taken.map_or_else(
                    || "-".to_owned(),
                    |time| format!("{} ago", duration::human(now.saturating_sub(time.seconds))),
                ),
                status.certificate_expires.map_or_else(
                    || "-".to_owned(),
                    |time| duration::human(time.seconds.saturating_sub(now)),
                ),
                status.version.clone(),
            ]),
            None => row
                .extend(["-", "-", "-", "-", "-", "-", "-", "-", "unreachable"].map(str::to_owned)),
        }
        table.push(row);
    }
    table
}

/// For programs.
pub fn print_json(status: &GetStatusResponse) -> Result<()> {
    let value = json!({
        "clusterID": status.cluster_id,
        "term": status.term,
        "revision": status.revision,
        "managers": status.members.iter().map(member_json).collect::<Vec<_>>(),
        "warnings": status.warnings,
        "ca": status.ca.as_ref().map(rotate_ca::to_json),
        "backup": status.backup.as_ref().map(|backup| json!({
            "place": backup.place,
            "everySeconds": backup.every_seconds,
            "keep": backup.keep,
            "last": backup.last.as_ref().map(|run| json!({
                "begun": time(run.begun),
                "name": run.name,
                "bytes": run.bytes,
                "error": run.error,
                "lastSuccess": time(run.last_success),
            })),
        })),
    });
    Ok(writeln!(
        io::stdout(),
        "{}",
        serde_json::to_string_pretty(&value)?
    )?)
}

fn member_json(one: &MemberStatus) -> Value {
    let member = one.member.clone().unwrap_or_default();
    json!({
        "uid": member.uid,
        "raftID": member.raft_id,
        "address": member.address,
        "state": member.state,
        "leader": member.leader,
        "waiting": member.waiting,
        "error": one.error,
        "status": one.status.as_ref().map(|status| json!({
            "version": status.version,
            "term": status.term,
            "lastLogIndex": status.last_log_index,
            "appliedIndex": status.applied_index,
            "revision": status.revision,
            "sessions": status.sessions,
            "diskFreeBytes": status.disk_free_bytes,
            "diskFloorBytes": status.disk_floor_bytes,
            "logBytes": status.log_bytes,
            "locked": status.locked,
            "keyUnderPassphrase": status.key_under_passphrase,
            "snapshotTaken": time(status.snapshot_taken),
            "certificateExpires": time(status.certificate_expires),
        })),
    })
}

/// As objects have it.
pub fn time(time: Option<Time>) -> Value {
    time.and_then(|time| serde_json::to_value(time).ok())
        .unwrap_or(Value::Null)
}
