//! `barge dev kill-leader`.

use std::{
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{folder::Folder, start};

/// How long the others may take to agree on a leader.
const PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// Kills the leader, and says who leads then and after how long.
pub async fn run(dir: &Path) -> Result<()> {
    let cluster =
        Folder::load(dir)?.with_context(|| format!("there is no cluster in {}", dir.display()))?;
    if cluster.managers < 3 {
        bail!(
            "{} managers cannot lose one: a cluster of three can",
            cluster.managers
        );
    }
    let client = start::client(&start::admin(dir))?;
    let members = client.members().await?.members;
    let leader = members.iter().find(|member| member.leader);
    let address = &leader
        .context("no manager leads at the moment; try again")?
        .address;
    let process = (1..=cluster.managers)
        .find(|number| cluster.manager(*number) == *address)
        .map(|number| format!("manager-{number}"))
        .and_then(|name| {
            cluster
                .processes
                .iter()
                .find(|process| process.name == name)
        })
        .with_context(|| format!("the leader at {address} is no manager of {}", dir.display()))?;
    process.kill()?;
    let killed = Instant::now();
    let mut out = std::io::stdout();
    writeln!(out, "killed {} at {address}, which led", process.name)?;
    while killed.elapsed() < PATIENCE {
        // A manager that still believes in the old leader, or none that answers: ask again.
        let members = client.members().await.unwrap_or_default().members;
        let next = members
            .iter()
            .find(|member| member.leader && member.address != *address);
        if let Some(next) = next {
            let seconds = killed.elapsed().as_secs_f32();
            writeln!(out, "{} leads after {seconds:.1} s", next.address)?;
            writeln!(out, "`barge dev up` starts the killed one again")?;
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("no other manager leads after {} s", PATIENCE.as_secs())
}
