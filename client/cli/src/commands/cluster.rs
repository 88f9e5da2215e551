//! `barge cluster status|members|promote|demote|remove|rotate-ca|backup|lock|unlock`

use std::{
    io::{self, Write},
    time::Instant,
};

use anyhow::{Result, bail};
use barge_client::{
    Client,
    v1::{ManagerRole, Member},
};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    args::Patience,
    context::Connection,
    duration,
    output::{self, Table},
    progress::Progress,
};

mod backup;
mod lock;
mod offline;
mod rotate_ca;
mod schedule;
mod status;

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show how the cluster is, and what is wrong
    Status {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
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
    /// Make the first manager of a lost cluster from a backup, on this machine: `barge-server restore`
    #[command(disable_help_flag = true)]
    Restore(offline::Arguments),
    /// Make the manager of this machine the only one, after a majority was lost: `barge-server recover`
    #[command(disable_help_flag = true)]
    Recover(offline::Arguments),
    /// Replace the cluster's CA by a new one, or go on showing how far that is
    RotateCa(rotate_ca::RotateCa),
    /// Change what a manager logs, until it is started again
    LogLevel {
        /// The manager's host:port, as `barge cluster members` shows it
        #[arg(value_name = "MANAGER")]
        manager: String,
        /// "debug", "info,barge_server::raft=debug", …; without it, the default
        #[arg(default_value = "", hide_default_value = true)]
        filter: String,
    },
    /// Put the managers' sealing keys under a passphrase: one that is started again waits for it
    Lock(lock::Lock),
    /// Give managers that were started again their sealing keys back
    Unlock(lock::Unlock),
    /// Show or set when and where the leader takes backups
    BackupSchedule(schedule::Schedule),
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
        Cluster::Status { output } => {
            let mut answer = to.client()?.status().await?;
            answer
                .members
                .sort_by_key(|one| one.member.as_ref().map_or(0, |member| member.raft_id));
            match output {
                Output::Table => status::print(&answer, output::now()),
                Output::Json => status::print_json(&answer),
            }
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
        Cluster::Restore(arguments) => offline::run("restore", arguments),
        Cluster::Recover(arguments) => offline::run("recover", arguments),
        Cluster::LogLevel { manager, filter } => {
            let before = to.client_of(&manager)?.set_log_level(&filter).await?;
            Ok(writeln!(
                io::stdout(),
                "{manager} logged {before:?} before"
            )?)
        }
        Cluster::RotateCa(command) => Box::pin(rotate_ca::run(to, command)).await,
        Cluster::Lock(command) => lock::lock(to, command).await,
        Cluster::Unlock(command) => lock::unlock(to, command).await,
        Cluster::BackupSchedule(command) => Box::pin(schedule::run(to, command)).await,
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

/// How to print the status.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

fn role(member: &Member) -> &'static str {
    match (member.leader, member.state.as_str()) {
        (true, _) => "leader",
        (false, "voter") => "follower",
        (false, _) => "-",
    }
}
