//! `barge cluster status|members|promote|demote|remove|backup`

use std::{
    io::{self, Write},
    time::Instant,
};

use anyhow::{Result, bail};
use barge_client::{
    Client,
    v1::{GetStatusResponse, ManagerRole, Member, MemberStatus},
};
use clap::{Args, Subcommand};

use crate::{
    args::{Connection, Patience},
    duration,
    output::{self, Table},
    progress::Progress,
};

mod backup;

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show how the cluster is, and what is wrong
    Status,
    /// Show the managers
    Members,
    /// Make a manager a voter: it counts for the majority
    Promote(Change),
    /// Make a manager a learner: it serves and has everything, and does not count for the majority
    Demote(Change),
    /// Remove a manager, living or dead: it ends, and its certificate is refused from then on
    Remove(Change),
    /// Write the whole cluster's state into a file, while it runs
    Backup(backup::Backup),
}

#[derive(Debug, Args)]
pub struct Change {
    /// The manager's ID, UID or ADDRESS, as `barge cluster members` shows them
    manager: String,
    #[command(flatten)]
    patience: Patience,
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
            let mut answer = to.client()?.members().await?;
            answer.members.sort_by_key(|member| member.raft_id);
            for member in answer.members {
                table.push(vec![
                    member.address.clone(),
                    member.raft_id.to_string(),
                    member.state.clone(),
                    role(&member).to_owned(),
                    member.uid,
                ]);
            }
            table.show()?;
            warn(&answer.warnings);
            Ok(())
        }
        Cluster::Promote(change) => set_role(&to.client()?, change, ManagerRole::Voter).await,
        Cluster::Demote(change) => set_role(&to.client()?, change, ManagerRole::Learner).await,
        Cluster::Remove(change) => set_role(&to.client()?, change, ManagerRole::Removed).await,
        Cluster::Backup(command) => Box::pin(backup::run(to, command)).await,
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// Asks until the manager is what it should be.
async fn set_role(client: &Client, change: Change, role: ManagerRole) -> Result<()> {
    let (begun, limit) = (Instant::now(), change.patience.timeout.0);
    let mut progress = Progress::new();
    let answer = loop {
        let answer = client.set_manager_role(&change.manager, role).await?;
        if answer.done {
            break answer;
        }
        if begun.elapsed() >= limit {
            bail!(
                "not done within {}: {}. The cluster goes on with it; asking again is harmless",
                duration::human(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)),
                answer.waiting
            );
        }
        progress.say(&format!("waiting: {}", answer.waiting));
    };
    progress.finish(None);
    let manager = answer.manager.unwrap_or_default();
    let who = match manager.address.as_str() {
        "" => format!("manager {}", manager.raft_id),
        address => format!("manager {} ({address})", manager.raft_id),
    };
    println!(
        "{who} is {}",
        match role {
            ManagerRole::Voter => "a voter",
            ManagerRole::Learner => "a learner",
            _ => "removed",
        }
    );
    warn(&client.members().await?.warnings);
    Ok(())
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
