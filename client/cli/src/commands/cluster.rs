//! `barge cluster status|members|backup`

use std::io::{self, Write};

use anyhow::Result;
use barge_client::v1::{GetStatusResponse, Member, MemberStatus};
use clap::Subcommand;

use crate::{
    args::Connection,
    duration,
    output::{self, Table},
};

mod backup;

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show how the cluster is, and what is wrong
    Status,
    /// Show the managers
    Members,
    /// Write the whole cluster's state into a file, while it runs
    Backup(backup::Backup),
}

pub async fn run(to: &Connection, cluster: Cluster) -> Result<()> {
    match cluster {
        Cluster::Status => {
            let mut answer = to.client()?.status().await?;
            answer
                .members
                .sort_by_key(|one| one.member.as_ref().map_or(0, |member| member.raft_id));
            status(&answer, output::now())
        }
        Cluster::Members => {
            let mut table = Table::new(vec!["ADDRESS", "ID", "STATE", "ROLE", "UID"]);
            let mut members = to.client()?.members().await?;
            members.sort_by_key(|member| member.raft_id);
            for member in members {
                table.push(vec![
                    member.address.clone(),
                    member.raft_id.to_string(),
                    member.state.clone(),
                    role(&member).to_owned(),
                    member.uid,
                ]);
            }
            Ok(table.show()?)
        }
        Cluster::Backup(command) => Box::pin(backup::run(to, command)).await,
    }
}

fn role(member: &Member) -> &'static str {
    match (member.leader, member.state.as_str()) {
        (true, _) => "leader",
        (false, "voter") => "follower",
        (false, _) => "-",
    }
}

fn status(status: &GetStatusResponse, now: i64) -> Result<()> {
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
        "LOG",
        "APPLIED",
        "AGENTS",
        "DISK FREE",
        "CERTIFICATE",
        "VERSION",
    ]);
    for one in all {
        let member = one.member.clone().unwrap_or_default();
        let mut row = vec![
            member.address.clone(),
            member.state.clone(),
            role(&member).to_owned(),
        ];
        match &one.status {
            Some(status) => row.extend([
                status.last_log_index.to_string(),
                status.applied_index.to_string(),
                status.sessions.to_string(),
                output::size(status.disk_free_bytes),
                status.certificate_expires.map_or_else(
                    || "-".to_owned(),
                    |time| duration::human(time.seconds.saturating_sub(now)),
                ),
                status.version.clone(),
            ]),
            None => row.extend(["-", "-", "-", "-", "-", "unreachable"].map(str::to_owned)),
        }
        table.push(row);
    }
    table
}
