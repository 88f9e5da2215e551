//! The volumes of a pod: what the runtime is asked for, computed from the pod and from what the cluster gives it.

use std::{collections::BTreeMap, path::PathBuf};

use barge_proto::{
    quantity::parse_whole,
    v1::{self, Container, EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume},
};

use self::{account::Account, files::Room};
use super::{
    environment::Around,
    expand::{expand, unknown},
    resources,
};
use crate::runtime::{HostPathType, Place, PodVolumes, VolumeMount, VolumeSource};

pub mod account;
mod files;

pub use files::same_fields;

/// The longest path that Linux takes (PATH_MAX, without the NUL at its end), in bytes.
const LONGEST_PATH: usize = 4095;

/// Whether the pod has volumes.
pub fn has_any(pod: &Pod) -> bool {
    !of_spec(pod).is_empty()
}

/// Whether files of the pod can change while it runs.
pub fn has_files(pod: &Pod) -> bool {
    let places = of_spec(pod).iter().map(place);
    places.into_iter().any(|place| place == Ok(Place::Files))
}

/// Whether the pod has files of the node, which may lie on a file system that does not answer.
pub fn has_host_paths(pod: &Pod) -> bool {
    of_spec(pod).iter().any(|it| it.host_path.is_some())
}

/// The files of the node that the pod names. Those of a type that this agent does not know are left to [`of_pod`].
pub fn host_paths(pod: &Pod) -> PodVolumes {
    let named = of_spec(pod).iter().filter_map(|volume| {
        let source = host_path(volume.host_path.as_ref()?).ok()?;
        Some((volume.name.clone(), source))
    });
    PodVolumes {
        volumes: named.collect(),
        ..PodVolumes::default()
    }
}

/// All volumes of a pod that can be made, with the content of their files; and of the first that cannot a sentence that names it and says what is missing.
/// One that cannot be made takes no other with it: the files of what runs are refreshed each for itself.
pub fn of_pod(
    pod: &Pod,
    around: Around<'_>,
    account: Account<'_>,
) -> (PodVolumes, Result<(), String>) {
    let meta = pod.metadata.as_ref();
    let context = pod
        .spec
        .as_ref()
        .and_then(|it| it.security_context.as_ref());
    let group = context.and_then(|context| context.fs_group);
    let mut volumes = BTreeMap::new();
    let (mut room, mut whole) = (Room::default(), Ok(()));
    for volume in of_spec(pod) {
        let source = source(pod, volume, around, account, &mut room);
        match source {
            Ok(source) => drop(volumes.insert(volume.name.clone(), source)),
            Err(why) => {
                let why = format!("volume {:?}: {why}", volume.name);
                whole = whole.and(Err(why));
            }
        }
    }
    if account.automounts {
        let files = VolumeSource::Files(account::automatic(pod, account));
        volumes.insert(account::AUTOMATIC.to_owned(), files);
    }
    let made = PodVolumes {
        pod_uid: meta.map(|meta| meta.uid.clone()).unwrap_or_default(),
        group: group.and_then(|group| u32::try_from(group).ok()),
        volumes,
    };
    (made, whole)
}

/// Where a container has the pod's volumes. `env` is its environment, for `subPathExpr`.
///
/// # Errors
/// A sentence.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    env: &BTreeMap<String, String>,
) -> Result<Vec<VolumeMount>, String> {
    let mount = |mount: &v1::VolumeMount| {
        let name = &mount.name;
        let volume = of_spec(pod).iter().find(|volume| volume.name == *name);
        let volume = volume.ok_or_else(|| format!("the pod has no volume {name:?}"))?;
        let place = place(volume)?;
        Ok(VolumeMount {
            volume: name.clone(),
            path: mount.mount_path.clone(),
            sub_path: sub_path(mount, env)?,
            read_only: mount.read_only || place == Place::Files,
            sees_mounts: mount.mount_propagation.as_deref() == Some("HostToContainer"),
            place,
        })
    };
    container.volume_mounts.iter().map(mount).collect()
}

fn sub_path(mount: &v1::VolumeMount, env: &BTreeMap<String, String>) -> Result<String, String> {
    let expression = &mount.sub_path_expr;
    if expression.is_empty() {
        return Ok(mount.sub_path.clone());
    }
    if let Some(name) = unknown(expression, env) {
        return Err(format!(
            "subPathExpr {expression:?} names the variable {name:?}, which the container does not have"
        ));
    }
    let path = expand(expression, env, LONGEST_PATH).map_err(|bytes| {
        format!(
            "the subPathExpr of the mount at {:?} is {bytes} bytes long with what it refers to, and a path has at most {LONGEST_PATH}",
            mount.mount_path
        )
    })?;
    match path.starts_with('/') || path.split('/').any(|part| part == "..") {
        true => Err(format!(
            "subPathExpr {expression:?} is {path:?}, and must be a relative path without \"..\""
        )),
        false => Ok(path),
    }
}

fn of_spec(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.volumes)
}

fn place(volume: &Volume) -> Result<Place, String> {
    if let Some(source) = &volume.empty_dir {
        return Ok(match is_memory(source) {
            true => Place::Memory,
            false => Place::Disk,
        });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Place::Host(PathBuf::from(&source.path)));
    }
    match files::are_its_source(volume) {
        true => Ok(Place::Files),
        false => Err(unknown_source()),
    }
}

fn source(
    pod: &Pod,
    volume: &Volume,
    around: Around<'_>,
    account: Account<'_>,
    room: &mut Room,
) -> Result<VolumeSource, String> {
    if let Some(source) = &volume.empty_dir {
        return empty_dir(pod, source);
    }
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    match files::of_volume(volume, around, account, room)? {
        Some(files) => Ok(VolumeSource::Files(files)),
        None => Err(unknown_source()),
    }
}

fn unknown_source() -> String {
    "it comes from something that this agent does not know: install the managers' version on the node".to_owned()
}

fn is_memory(source: &EmptyDirVolumeSource) -> bool {
    source.medium == "Memory"
}

/// In memory a volume takes no more than the pod may: Kubernetes' rule.
fn empty_dir(pod: &Pod, source: &EmptyDirVolumeSource) -> Result<VolumeSource, String> {
    if !is_memory(source) {
        return Ok(VolumeSource::Disk);
    }
    let limit = size_limit(source)?;
    let of_pod = resources::of_pod(pod)?.memory_limit;
    Ok(VolumeSource::Memory {
        size: limit.into_iter().chain(of_pod).min(),
    })
}

/// In bytes; 0 is none.
fn size_limit(source: &EmptyDirVolumeSource) -> Result<Option<u64>, String> {
    let limit = source.size_limit.as_ref().map(parse_whole).transpose();
    let limit = limit.map_err(|error| format!("sizeLimit: {error}"))?;
    Ok(limit
        .and_then(|limit| u64::try_from(limit).ok())
        .filter(|limit| *limit > 0))
}

/// EmptyDirs on disk, with the most bytes that each may take.
pub fn on_disk(pod: &Pod) -> Vec<(String, Option<u64>)> {
    let limit = |volume: &Volume| {
        let source = volume.empty_dir.as_ref().filter(|it| !is_memory(it))?;
        Some((volume.name.clone(), size_limit(source).ok().flatten()))
    };
    of_spec(pod).iter().filter_map(limit).collect()
}

fn host_path(source: &HostPathVolumeSource) -> Result<VolumeSource, String> {
    let word = source.r#type.as_deref().unwrap_or_default();
    let kind = HostPathType::parse(word);
    Ok(VolumeSource::Host {
        path: PathBuf::from(&source.path),
        kind: kind.ok_or_else(|| format!("this agent does not know the type {word:?}"))?,
    })
}

#[cfg(test)]
mod tests;
