//! `barge cluster lock|unlock`

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use barge_client::{
    Client,
    v1::{GetStatusResponse, ManagerStatus},
};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::backup::read_passphrase;
use crate::{args::Patience, context::Connection, progress::Progress};

/// How often the managers are asked how far they are.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct Lock {
    /// The passphrase is in this file; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
pub struct Unlock {
    /// host:port of one manager, as `barge cluster members` shows it; without it, all that are locked
    #[arg(value_name = "MANAGER")]
    manager: Option<String>,
    /// The passphrase is in this file; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// And keep the keys in clear again: no manager will be locked any more
    #[arg(long, conflicts_with = "manager")]
    forget: bool,
    #[command(flatten)]
    patience: Patience,
}

pub async fn lock(to: &Connection, command: Lock) -> Result<()> {
    let passphrase = match &command.passphrase_file {
        Some(path) => read_passphrase(path)?,
        None => {
            let passphrase = ask("New passphrase: ")?;
            if io::stdin().is_terminal() {
                let again = ask("Again: ")?;
                ensure!(again == passphrase, "the two differ: nothing was changed");
            }
            passphrase
        }
    };
    let client = to.client()?;
    client.lock(&passphrase).await?;
    let done = |status: &ManagerStatus| status.key_under_passphrase;
    wait(
        &client,
        command.patience.timeout.0,
        "its key is not under the passphrase yet",
        done,
    )
    .await?;
    Ok(writeln!(
        io::stdout(),
        "locked: a manager that is started from now on waits for `barge cluster unlock`; keep the passphrase, nothing else opens \
         the keys"
    )?)
}

pub async fn unlock(to: &Connection, command: Unlock) -> Result<()> {
    let passphrase = match &command.passphrase_file {
        Some(path) => read_passphrase(path)?,
        None => ask("Passphrase: ")?,
    };
    let client = to.client()?;
    let locked = match command.manager {
        Some(manager) => vec![manager],
        None => locked(&client.status().await?),
    };
    for manager in &locked {
        to.client_of(manager)?
            .unlock(&passphrase)
            .await
            .with_context(|| format!("unlock {manager}"))?;
        writeln!(io::stdout(), "{manager} is unlocked")?;
    }
    if !command.forget {
        if locked.is_empty() {
            writeln!(io::stdout(), "no manager is locked")?;
        }
        return Ok(());
    }
    client.forget_lock(&passphrase).await?;
    let done = |status: &ManagerStatus| !status.key_under_passphrase;
    wait(
        &client,
        command.patience.timeout.0,
        "its key is still under the passphrase",
        done,
    )
    .await?;
    Ok(writeln!(
        io::stdout(),
        "forgotten: managers keep their keys in clear, and are not locked any more"
    )?)
}

/// The addresses of the managers that are locked.
fn locked(status: &GetStatusResponse) -> Vec<String> {
    addresses(status, |status| status.locked)
}

fn addresses(status: &GetStatusResponse, which: impl Fn(&ManagerStatus) -> bool) -> Vec<String> {
    let fits = status
        .members
        .iter()
        .filter(|one| one.status.as_ref().is_some_and(&which));
    fits.filter_map(|one| Some(one.member.as_ref()?.address.clone()))
        .collect()
}

/// Waits until the files of all managers that answer are so; those that do not will do it when they run.
async fn wait(
    client: &Client,
    limit: Duration,
    otherwise: &str,
    done: impl Fn(&ManagerStatus) -> bool,
) -> Result<()> {
    let begun = Instant::now();
    let mut progress = Progress::new();
    loop {
        let status = client.status().await?;
        let waiting = addresses(&status, |status| !done(status));
        if waiting.is_empty() {
            progress.finish(None);
            for one in status.members.iter().filter(|one| one.status.is_none()) {
                let address = one.member.as_ref().map_or("", |member| &member.address);
                eprintln!(
                    "warning: {address} does not answer: {otherwise}, it does that when it runs"
                );
            }
            return Ok(());
        }
        let waiting = waiting.join(", ");
        if begun.elapsed() >= limit {
            bail!("{waiting}: {otherwise}; its log says why, and it goes on trying");
        }
        progress.say(&format!("{waiting}: {otherwise}"));
        tokio::time::sleep(AGAIN).await;
    }
}

/// A line from standard input, not shown on a terminal.
fn ask(question: &str) -> Result<String> {
    let stdin = io::stdin();
    let shown = match stdin.is_terminal() {
        true => Some(tcgetattr(&stdin).context("ask on the terminal")?),
        false => None,
    };
    if let Some(shown) = &shown {
        write!(io::stderr(), "{question}")?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).context("ask on the terminal")?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(shown) = &shown {
        tcsetattr(&stdin, SetArg::TCSAFLUSH, shown).context("give the terminal back")?;
        writeln!(io::stderr())?;
    }
    read.context("read the passphrase")?;
    let passphrase = line.trim_end_matches(['\r', '\n']);
    ensure!(
        !passphrase.is_empty(),
        "no passphrase was given: type one, or use --passphrase-file"
    );
    Ok(passphrase.to_owned())
}
