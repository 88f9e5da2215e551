//! What runc binds into a container of its pod's volumes.

use std::path::{Path, PathBuf};

use super::{ANSWERS, Bind, Place, VolumeMount, Volumes, check_name, failed, pins, subpath};
use crate::{
    files,
    runtime::{ContainerSpec, RuntimeError, error::reason},
};

impl Volumes {
    /// Pins what `subPath`s name in files of the node.
    pub async fn pin_host_paths(&self, container: &ContainerSpec) -> Result<(), RuntimeError> {
        for (index, mount) in container.mounts.iter().enumerate() {
            check_name(&mount.volume)?;
            if matches!(mount.place, Place::Host(_)) && !mount.sub_path.is_empty() {
                self.pin(container, index, mount).await?;
            }
        }
        Ok(())
    }

    /// What a container's mounts are bound from. Its volumes exist. What a `subPath` names is made when it is missing, and pinned, unless [`Self::pin_host_paths`] did.
    pub async fn binds(&self, container: &ContainerSpec) -> Result<Vec<Bind>, RuntimeError> {
        let mut binds = Vec::new();
        for (index, mount) in container.mounts.iter().enumerate() {
            check_name(&mount.volume)?;
            let source = match mount.sub_path.as_str() {
                "" => self.folder(&container.pod_uid, &mount.volume, &mount.place),
                _ => match self.pinned(container, index, mount).await? {
                    Some(pin) => pin,
                    None => self.pin(container, index, mount).await?,
                },
            };
            binds.push(Bind {
                source,
                destination: mount.path.clone(),
                read_only: mount.read_only,
                sees_mounts: mount.sees_mounts,
            });
        }
        Ok(binds)
    }

    /// The pin of a part of the node's files, if it is there. Only its name is looked for: what is pinned may not answer.
    async fn pinned(
        &self,
        container: &ContainerSpec,
        index: usize,
        mount: &VolumeMount,
    ) -> Result<Option<PathBuf>, RuntimeError> {
        let Place::Host(_) = &mount.place else {
            return Ok(None);
        };
        let pin = self.pin_of(container, index);
        let folder = pin.parent().map(Path::to_owned).unwrap_or_default();
        let listed = files::in_volumes(move || pins::entries(&folder)).await;
        let listed = listed.map_err(|error| failed(&mount.volume, &mount.place, &error))?;
        Ok(Some(pin).filter(|pin| listed.contains(pin)))
    }

    fn pin_of(&self, container: &ContainerSpec, index: usize) -> PathBuf {
        let folder = self.paths.volumes_run(&container.pod_uid).join("sub");
        folder.join(&container.name).join(index.to_string())
    }

    async fn pin(
        &self,
        container: &ContainerSpec,
        index: usize,
        mount: &VolumeMount,
    ) -> Result<PathBuf, RuntimeError> {
        let uid = &container.pod_uid;
        let root = self.folder(uid, &mount.volume, &mount.place);
        let pin = self.pin_of(container, index);
        // Files of the agent's are not made by a container's start.
        let create = mount.place != Place::Files;
        let (this, place, sub_path) = (self.clone(), pin.clone(), mount.sub_path.clone());
        let work = move || {
            this.ensure_memory()?;
            let found = subpath::open(&root, &sub_path, create)?;
            pins::pin(&found, &place)
        };
        let pinned = match mount.place {
            Place::Host(_) => {
                let key = format!("pin {} {}", pin.display(), mount.sub_path);
                self.look(&key, ANSWERS, work).await
            }
            Place::Disk => files::blocking(work).await,
            Place::Memory | Place::Files => files::in_volumes(work).await,
        };
        pinned.map_err(|error| {
            let (volume, sub_path) = (&mount.volume, &mount.sub_path);
            let message = format!("subPath {sub_path:?} of volume {volume:?}: {error}");
            RuntimeError::passing(reason::FAILED_MOUNT, message)
        })?;
        Ok(pin)
    }
}
