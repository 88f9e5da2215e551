//! `barge dev up`.

use std::{io::Write as _, time::Instant};

use anyhow::{Result, bail};
use barge_client::files;

use super::{
    Up,
    folder::{Cluster, Folder},
    network, process,
    start::Starter,
};

/// Starts a cluster, or what is missing of it.
pub async fn run(up: Up) -> Result<()> {
    let begin = Instant::now();
    let folder = Folder::open(&up.folder.path()?)?;
    let choosing = network::exclusive()?;
    let (cluster, known) = match Folder::load(&folder.dir)? {
        Some(cluster) => {
            check_same(&up, &cluster)?;
            (cluster, true)
        }
        None => (plan(&up, &folder)?, false),
    };
    if known && is_whole(&cluster) {
        println!(
            "the cluster in {} runs already; nothing was changed",
            folder.dir.display()
        );
        let starter = Starter {
            folder: &folder,
            cluster,
        };
        return tell(&starter);
    }
    folder.save(&cluster)?;
    for name in ["managers", "agents", "logs"] {
        files::create_private_dir(&folder.dir.join(name))?;
    }
    let mut starter = Starter {
        folder: &folder,
        cluster,
    };
    network::ensure_bridge(&starter.cluster)?;
    drop(choosing);
    step(begin, "network");
    if starter.cluster.registry {
        starter.registry().await?;
        step(begin, "registry");
    }
    starter.bootstrap().await?;
    step(begin, "first manager");
    starter.join_managers().await?;
    step(begin, "managers");
    starter.nodes().await?;
    step(begin, "nodes");
    tell(&starter)
}

/// Says how far it is; on standard error, so that a pipe gets the result only.
fn step(begin: Instant, what: &str) {
    // Progress that cannot be shown is no reason to stop.
    let _ = writeln!(
        std::io::stderr(),
        "{:5.1} s  {what}",
        begin.elapsed().as_secs_f32()
    );
}

fn plan(up: &Up, folder: &Folder) -> Result<Cluster> {
    let network = network::choose(up.subnet.as_deref())?;
    let mut cluster = Cluster::new(&folder.dir, network, up.managers, up.agents);
    cluster.registry = up.registry;
    cluster.certificate_lifetime_seconds = up.certificate_lifetime.map(|life| life.0.as_secs());
    cluster.metrics = up.metrics;
    cluster.mirror = match up.registry {
        true => Some(format!("http://{}", cluster.registry_address())),
        false => up.registry_mirror.clone(),
    };
    Ok(cluster)
}

/// A cluster does not change its size by `up`: what asked for another one is told so.
fn check_same(up: &Up, cluster: &Cluster) -> Result<()> {
    if (up.managers, up.agents) != (cluster.managers, cluster.agents) {
        bail!(
            "there is a cluster of {} managers and {} agents already; take it down first (barge dev down), or name another --dir",
            cluster.managers,
            cluster.agents
        );
    }
    Ok(())
}

fn is_whole(cluster: &Cluster) -> bool {
    let mut names: Vec<_> = (1..=cluster.managers)
        .map(|number| format!("manager-{number}"))
        .collect();
    for number in 1..=cluster.agents {
        names.extend([format!("containerd-{number}"), format!("agent-{number}")]);
    }
    if cluster.registry {
        names.push("registry".to_owned());
    }
    let alive = |name: &String| {
        cluster
            .processes
            .iter()
            .any(|process| process.name == *name && process.alive())
    };
    names.iter().all(alive)
}

fn tell(starter: &Starter<'_>) -> Result<()> {
    let cluster = &starter.cluster;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} managers, {} agents; logs in {}",
        cluster.managers,
        cluster.agents,
        starter.folder.dir.join("logs").display()
    )?;
    for number in 1..=cluster.agents {
        writeln!(out, "node-{number} is {}", cluster.node(number))?;
    }
    if let Some(mirror) = &cluster.mirror {
        writeln!(out, "{mirror} stands in for docker.io")?;
    }
    writeln!(out, "\nexport BARGE_CONFIG={}", starter.admin().display())?;
    let barge = process::program("barge");
    writeln!(out, "\nThen try: {} get nodes", barge.display())?;
    Ok(())
}
