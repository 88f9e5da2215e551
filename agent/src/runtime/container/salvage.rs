//! Removing what containerd has forgotten.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::mount::{MntFlags, umount2};
use tokio::time::{Instant, sleep};

use super::shim::Shim;
use crate::{
    files,
    runtime::{Options, cgroup::Cgroups},
};

/// How long a creation whose client died may take to come to be, so that it can be undone. The shim itself waits two
/// seconds for the output of what never ran.
const PATIENCE: Duration = Duration::from_secs(6);
/// Between two looks.
const POLL: Duration = Duration::from_millis(25);

/// Undoes what there is of a container that containerd does not know: what runs of it, and what the pod's shim has of it.
///
/// containerd cleans up after a shim that ended by the container's id, seconds later if the machine is busy, and so it forgets
/// one that was made under this id meanwhile: its process runs, its shim answers for it, and the bundle is gone. Neither
/// the shim nor the bundle is therefore trusted to know of all that runs; the control group is.
pub async fn container(
    options: &Options,
    cgroups: &Cgroups,
    pod_uid: &str,
    id: &str,
) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let group = cgroups.path(pod_uid, id);
    let mut bundle = None;
    let mut removed = false;
    loop {
        let alive = cgroups.kill(&group)?;
        let left = match Shim::connect(&options.socket, &options.namespace, pod_uid).await? {
            None => false,
            Some(mut shim) => match shim.bundles(id).await {
                // It ended between two questions.
                Err(_) => true,
                Ok(bundles) => {
                    let place = Some(bundles.join(id)).filter(|place| place.exists());
                    // A bundle without a container may be one that is just being made.
                    let left = match shim.remove(id).await {
                        Ok(found) => {
                            removed |= found;
                            !removed && place.is_some()
                        }
                        Err(_) => true,
                    };
                    bundle = place.or(bundle);
                    // It ends unless it has other containers of the pod.
                    let _ = shim.shut_down(id).await;
                    left
                }
            },
        };
        if !alive && !left {
            break;
        }
        if Instant::now() > deadline {
            if alive {
                let message = format!("the processes of {id} survive being killed");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            break;
        }
        sleep(POLL).await;
    }
    match bundle {
        Some(bundle) => remove_bundle(options, &bundle, id, removed).await,
        None => Ok(()),
    }
}

/// Undoes whatever a pod's shim still has, once the pod should have no containers any more; the shim then ends.
pub async fn pod(options: &Options, cgroups: &Cgroups, pod_uid: &str) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Some(mut shim) = Shim::connect(&options.socket, &options.namespace, pod_uid).await? {
        if let Ok(bundles) = shim.bundles(pod_uid).await {
            for id in containers_of(&bundles, pod_uid) {
                container(options, cgroups, pod_uid, &id).await?;
            }
        }
        let _ = shim.shut_down(pod_uid).await;
        drop(shim);
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the shim of pod {pod_uid} does not end"),
            ));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Removes the bundle that containerd stumbled upon, in its words: "mkdir PATH: file exists".
pub async fn stumbled(options: &Options, id: &str, words: &str) -> io::Result<()> {
    let path = words
        .split("mkdir ")
        .nth(1)
        .and_then(|rest| rest.split(": file exists").next());
    let Some(bundle) = path.map(Path::new) else {
        return Ok(());
    };
    // Nothing but a bundle of this very container.
    let ours = Path::new(&options.namespace).join(id);
    match bundle.is_absolute() && bundle.ends_with(ours) && bundle.exists() {
        true => remove_bundle(options, bundle, id, false).await,
        false => Ok(()),
    }
}

fn containers_of(bundles: &Path, pod_uid: &str) -> Vec<String> {
    let names = fs::read_dir(bundles).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours = |name: &String| {
        name.strip_prefix(pod_uid)
            .is_some_and(|rest| rest.starts_with('-'))
    };
    names.filter(ours).collect()
}

/// Removes a bundle as containerd does: what runc has of it by the shim's own means, then the folders.
async fn remove_bundle(
    options: &Options,
    bundle: &Path,
    id: &str,
    removed: bool,
) -> io::Result<()> {
    let file = bundle.join("shim-binary-path");
    let shim = files::blocking(move || fs::read_to_string(file)).await;
    if let Ok(shim) = shim.as_deref().map(str::trim)
        && !removed
    {
        let status = tokio::process::Command::new(shim)
            .arg("-namespace")
            .arg(&options.namespace)
            .arg("-address")
            .arg(&options.socket)
            .args(["-publish-binary", "containerd", "-id", id])
            .arg("-bundle")
            .arg(bundle)
            .arg("delete")
            .current_dir(bundle)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await?;
        if !status.success() {
            tracing::debug!(container = %id, %status, "the shim's own clean-up failed");
        }
    }
    let (bundle, id) = (bundle.to_owned(), id.to_owned());
    files::blocking(move || remove_folders(&bundle, &id)).await
}

/// Blocks.
fn remove_folders(bundle: &Path, id: &str) -> io::Result<()> {
    match umount2(&bundle.join("rootfs"), MntFlags::MNT_DETACH) {
        // Not mounted, or not there.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let work: Option<PathBuf> = fs::read_link(bundle.join("work")).ok();
    remove(bundle)?;
    match work.filter(|work| work.file_name().is_some_and(|name| name == id)) {
        Some(work) => remove(&work),
        None => Ok(()),
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
