//! `barge dev down`. Every step looks for what is there, so the command may be repeated, and works after a crash at any point.

use std::{fs, path::Path};

use anyhow::Result;

use super::{
    folder::{Cluster, Folder, NodePaths},
    machine, network,
    process::{self, Process},
};

/// Ends everything that `up` started and removes everything that it made.
pub fn run(dir: &Path) -> Result<()> {
    if !dir.join("dev.toml").exists() {
        println!(
            "there is no cluster in {}: nothing to take down",
            dir.display()
        );
        return Ok(());
    }
    let folder = Folder::open(dir)?;
    // Someone else may have been faster.
    let Some(cluster) = Folder::load(dir)? else {
        return folder.clear();
    };

    end(&cluster, dir, "agent-", "barge-agent")?;
    for number in 1..=cluster.agents {
        machine::end_containers(&cluster, &NodePaths::new(dir, number), number)?;
    }
    end(&cluster, dir, "containerd-", "containerd")?;
    for number in 1..=cluster.agents {
        machine::end_leftovers(&cluster, &NodePaths::new(dir, number), number)?;
    }
    // Managers last, so that what agents say on their way out is heard; all at once, there is nobody to hand over to.
    end(&cluster, dir, "manager-", "barge-server")?;
    end(&cluster, dir, "registry", "docker-registry")?;
    machine::unmount_below(dir)?;
    for number in 1..=cluster.agents {
        network::remove_link(&cluster.link(number))?;
    }
    network::remove_link(&cluster.bridge())?;
    for path in &cluster.came {
        // It stays when someone else uses it by now.
        let _ = fs::remove_dir(path);
    }
    folder.clear()?;
    println!("the cluster in {} is gone", dir.display());
    Ok(())
}

/// Ends the processes that were written down, all at once, then those of the program that work on the folder: what they
/// started themselves, and one that was started when `up` was killed.
fn end(cluster: &Cluster, dir: &Path, prefix: &str, program: &str) -> Result<()> {
    let mut ours: Vec<_> = cluster
        .processes
        .iter()
        .filter(|process| process.name.starts_with(prefix))
        .cloned()
        .collect();
    ours.iter().try_for_each(Process::terminate)?;
    ours.extend(process::of_program(
        program,
        &format!("{}/", dir.display()),
    )?);
    ours.iter().try_for_each(Process::end)
}
