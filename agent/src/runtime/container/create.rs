//! Making a container, so that a death at any point leaves one or none.

use std::{collections::HashMap, io, time::Duration};

use containerd_client::{
    services::v1::{
        Container as Record, CreateContainerRequest, container::Runtime,
        snapshots::PrepareSnapshotRequest,
    },
    tonic::{Code, Status},
    types::Mount,
};
use jiff::Timestamp;
use prost_types::Any;
use tokio::time::sleep;

use super::{
    Container, ContainerSpec, ContainerState, Containers, RuntimeError, host, label, reason,
    rootfs, salvage, salvage_error, task, words,
};
use crate::{
    carrier::protocol::Attachment,
    files, node,
    runtime::{
        error::start_reason,
        images::ImageConfig,
        names::{check_container, check_uid, container_id},
        sandbox::{etc, shared::Shared},
        spec::{self, Inputs, user},
    },
    timing::timed,
};

/// How often remains of an earlier try are cleaned up before this one gives up.
const TRIES: u32 = 5;
/// Between two tries: the shim of a dead one takes a moment to go.
const PAUSE: Duration = Duration::from_millis(200);
/// The shim of this and every containerd we know.
const RUNTIME: &str = "io.containerd.runc.v2";
/// What Go clients expect a specification to be called.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// Why a try ended.
enum Stop {
    /// Something of this id was there, in containerd's words.
    Taken(String),
    /// Its bundle went while it was being made: containerd cleans up by the id after an earlier shim.
    Swept(RuntimeError),
    /// It does not work.
    Failed(RuntimeError),
}

impl Containers {
    /// Makes and starts a container, or answers the one that is there.
    pub(super) async fn create(&self, spec: &ContainerSpec) -> Result<Container, RuntimeError> {
        check_uid(&spec.pod_uid)?;
        check_container(&spec.name)?;
        let id = container_id(&spec.pod_uid, &spec.name, spec.attempt);
        let image = timed(&id, "configuration", self.images.config(&spec.image.id)).await?;
        let mut last = None;
        for round in 0..TRIES {
            if round > 1 {
                sleep(PAUSE).await;
            }
            match self.try_create(&id, spec, &image).await {
                Ok(container) => return Ok(container),
                Err(Stop::Failed(error)) => {
                    if let Err(second) = self.erase(&id, Some(&spec.pod_uid)).await {
                        tracing::warn!(container = %id, error = %second, "cannot remove a failed container");
                    }
                    return Err(error);
                }
                Err(Stop::Swept(error)) => {
                    last = Some(error);
                    self.erase(&id, Some(&spec.pod_uid)).await?;
                }
                Err(Stop::Taken(why)) => match self.find(&id).await? {
                    Some(found) if found.state != ContainerState::Created => return Ok(found),
                    _ => {
                        // Before the last try: what no shim answers for.
                        if round + 2 == TRIES {
                            let removed = salvage::stumbled(&self.options, &id, &why).await;
                            removed.map_err(|error| salvage_error(&id, &error))?;
                        }
                        last = Some(remains(&id, &why));
                        self.erase(&id, Some(&spec.pod_uid)).await?;
                    }
                },
            }
        }
        Err(last.unwrap_or_else(|| remains(&id, "it was not tried")))
    }

    async fn try_create(
        &self,
        id: &str,
        spec: &ContainerSpec,
        image: &ImageConfig,
    ) -> Result<Container, Stop> {
        let attachment = Attachment {
            id: id.to_owned(),
            pod_uid: spec.pod_uid.clone(),
            container: spec.name.clone(),
            attempt: spec.attempt,
        };
        // First the snapshot: it says whether the id is free, and is looked into.
        let mounts = timed(id, "snapshot", self.prepare(id, spec, &image.top())).await?;
        let attach = async {
            let attached = self.carrier.attach(attachment).await;
            attached.map_err(|error| failed(reason::CREATE_CONTAINER, error.to_string()))
        };
        let record = async {
            let shared = timed(id, "group", self.ensure_pod(spec)).await?;
            let shared = shared.as_ref();
            let described = self.describe(id, spec, image, &mounts, shared).await?;
            let request = CreateContainerRequest {
                container: Some(described),
            };
            let created = self
                .client
                .services()
                .containers()
                .create(self.client.request(request))
                .await;
            created.map_err(|status| {
                taken_or(reason::CREATE_CONTAINER, "record the container", &status)
            })
        };
        // Both to their ends: a carrier that is asked and not waited for makes the pipes after they were removed.
        let (attached, recorded) =
            tokio::join!(timed(id, "output", attach), timed(id, "record", record));
        recorded?;
        attached?;

        let pipes = self.options.paths.container_io(id);
        let pipe = |name: &str| pipes.join(name).display().to_string();
        let created = task::create(&self.client, id, mounts, pipe("stdout"), pipe("stderr"));
        let created = timed(id, "task", created).await;
        created.map_err(|status| {
            match taken_or(start_reason(&status), "create the container", &status) {
                Stop::Failed(error) if is_swept(&status) => Stop::Swept(error),
                stop => stop,
            }
        })?;

        // Noted before it can run: without the note, nothing of it ever did.
        let started_at_ms = Timestamp::now().as_millisecond();
        let noted = timed(id, "note", self.note_start(spec, started_at_ms)).await;
        noted.map_err(|error| {
            failed(
                reason::CREATE_CONTAINER,
                format!("cannot note the start of {id}: {error}"),
            )
        })?;
        let run = timed(id, "run", task::start(&self.client, id)).await;
        let pid = run.map_err(|status| {
            Stop::Failed(RuntimeError::from_status(
                start_reason(&status),
                "start the container",
                &status,
            ))
        })?;
        Ok(Container {
            id: id.to_owned(),
            pod_uid: spec.pod_uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image_id: spec.image.id.clone(),
            image: spec.image.name.clone(),
            state: ContainerState::Running { pid, started_at_ms },
        })
    }

    /// Makes or finds what the container has from its pod: the control group with what the pod gets, and what its containers
    /// share.
    async fn ensure_pod(&self, spec: &ContainerSpec) -> Result<Option<Shared>, Stop> {
        let (cgroups, pids_limit) = (self.cgroups.clone(), self.options.pod_pids_limit);
        let shared = Shared::of(&self.options.paths, &spec.pod_uid, spec.namespaces);
        let hostname = etc::hostname(&spec.hostname, &spec.pod_name).to_owned();
        let pause_command = self.options.pause_command.clone();
        let (uid, resources) = (spec.pod_uid.clone(), spec.pod_resources);
        let paths = &self.options.paths;
        let last_words = paths.last_words(&spec.pod_uid, &spec.name, spec.attempt);
        let reserve = paths.reserve();
        let ensure = move || {
            let made = reserve.with(|| words::make(&last_words));
            made.map_err(|error| within("cannot make the file for the last words", &error))?;
            let group = cgroups.ensure_pod(&uid, &resources, pids_limit);
            group.map_err(|error| within("cannot make the pod's control group", &error))?;
            if !shared.were_made() {
                return Ok(None);
            }
            let made = shared.ensure(&hostname, &pause_command);
            made.map_err(|error| within("cannot make the pod's namespaces", &error))?;
            Ok(Some(shared))
        };
        let ensured = files::blocking(ensure).await;
        ensured.map_err(|error| failed(reason::CREATE_CONTAINER, error.to_string()))
    }

    /// Makes the container's own file system on top of its image.
    async fn prepare(
        &self,
        id: &str,
        spec: &ContainerSpec,
        parent: &str,
    ) -> Result<Vec<Mount>, Stop> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.options.snapshotter.clone(),
            key: id.to_owned(),
            parent: parent.to_owned(),
            // Kept for its own sake until it is removed by name: saves a lease, which costs two writes to the disk.
            labels: HashMap::from([
                (
                    "containerd.io/gc.root".to_owned(),
                    Timestamp::now().to_string(),
                ),
                (label::POD_UID.to_owned(), spec.pod_uid.clone()),
            ]),
        };
        let prepared = self
            .client
            .services()
            .snapshots()
            .prepare(self.client.request(request))
            .await;
        match prepared {
            Ok(prepared) => Ok(prepared.into_inner().mounts),
            // Only the parent can be missing: somebody removed the image after it was pulled.
            Err(status) if status.code() == Code::NotFound => Err(failed(
                reason::ERR_IMAGE_PULL,
                format!("image {} is not on this machine any more", spec.image.name),
            )),
            Err(status) => Err(taken_or(
                reason::CREATE_CONTAINER,
                "prepare the file system",
                &status,
            )),
        }
    }

    async fn describe(
        &self,
        id: &str,
        spec: &ContainerSpec,
        image: &ImageConfig,
        mounts: &[Mount],
        shared: Option<&Shared>,
    ) -> Result<Record, Stop> {
        let config = |message: String| failed(reason::CREATE_CONTAINER_CONFIG, message);
        let looked_into = mounts.to_vec();
        let read = move || {
            let read = |name| rootfs::read(&looked_into, name);
            Ok((read("etc/passwd"), read("etc/group")))
        };
        let (passwd, group) = files::reading(read)
            .await
            .map_err(|error| config(error.to_string()))?;
        let user = user::of(&spec.security, &image.user, &passwd, &group)
            .map_err(|error| config(error.to_string()))?;
        let paths = &self.options.paths;
        let host = host::look(&spec.security, paths).await;
        let host = host.map_err(|error| config(error.to_string()))?;
        let binds = self.volumes.binds(spec).await.map_err(Stop::Failed)?;
        let (netns, hostname) = match spec.namespaces.host_network {
            true => (paths.host_netns(&spec.pod_uid), node::host_name()),
            false => {
                let hostname = etc::hostname(&spec.hostname, &spec.pod_name);
                (paths.netns(&spec.pod_uid), hostname.to_owned())
            }
        };
        let described = spec::build(&Inputs {
            container: spec,
            image,
            user: &user,
            hostname: &hostname,
            netns: &netns,
            shared,
            words: &paths.last_words(&spec.pod_uid, &spec.name, spec.attempt),
            etc: &paths.etc(&spec.pod_uid),
            binds: &binds,
            cgroup: &self.cgroups.path(&spec.pod_uid, id),
            version: self.cgroups.version(),
            machine: self.machine,
            devices: &host.devices,
            profile: host.profile.as_deref(),
        });
        let described = described.map_err(|error| config(error.to_string()))?;
        let value = serde_json::to_vec(&described).map_err(|error| config(error.to_string()))?;
        let stop_signal = match spec.stop_signal.as_str() {
            "" => &image.stop_signal,
            _ => &spec.stop_signal,
        };
        let labels = [
            (label::POD_UID, spec.pod_uid.clone()),
            (label::POD_NAMESPACE, spec.pod_namespace.clone()),
            (label::POD_NAME, spec.pod_name.clone()),
            (label::CONTAINER, spec.name.clone()),
            (label::ATTEMPT, spec.attempt.to_string()),
            (label::IMAGE_ID, spec.image.id.clone()),
            (label::STOP_SIGNAL, stop_signal.clone()),
        ];
        Ok(Record {
            id: id.to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            image: spec.image.name.clone(),
            runtime: Some(Runtime {
                name: RUNTIME.to_owned(),
                options: None,
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.to_owned(),
                value,
            }),
            snapshotter: self.options.snapshotter.clone(),
            snapshot_key: id.to_owned(),
            ..Record::default()
        })
    }

    async fn note_start(&self, spec: &ContainerSpec, started_at_ms: i64) -> io::Result<()> {
        let path = self
            .options
            .paths
            .started(&spec.pod_uid, &spec.name, spec.attempt);
        let reserve = self.options.paths.reserve();
        let write = move || {
            if let Some(folder) = path.parent() {
                reserve.with(|| std::fs::create_dir_all(folder))?;
            }
            reserve.write_atomic(&path, started_at_ms.to_string().as_bytes())
        };
        files::blocking(write).await
    }
}

fn failed(reason: &'static str, message: String) -> Stop {
    Stop::Failed(RuntimeError::passing(reason, message))
}

fn remains(id: &str, words: &str) -> RuntimeError {
    let message = format!("remains of an earlier container {id} do not go away: {words}");
    RuntimeError::passing(reason::CREATE_CONTAINER, message)
}

/// Whether runc ran and failed, and its own log was not in the bundle. A runc that is missing has no log either, but does not end.
fn is_swept(status: &Status) -> bool {
    let words = status.message();
    words.contains("log.json: no such file or directory")
        && words.contains("did not terminate successfully")
}

fn within(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn taken_or(reason: &'static str, verb: &str, status: &Status) -> Stop {
    // The shim and runc have no codes, only words.
    let words = ["already exists", "file exists"];
    let taken = status.code() == Code::AlreadyExists
        || words.iter().any(|words| status.message().contains(words));
    match taken {
        true => Stop::Taken(status.message().to_owned()),
        false => Stop::Failed(RuntimeError::from_status(reason, verb, status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bundle_that_went_is_swept() {
        let runc = "failed to create shim task: OCI runtime create failed: ";
        let log = "unable to retrieve OCI runtime error (open /run/x/log.json: no such file or directory): ";
        for (words, swept) in [
            (
                format!("{runc}{log}runc did not terminate successfully: exit status 1: unknown"),
                true,
            ),
            (
                format!("{runc}{log}exec: \"runc\": executable file not found in $PATH: unknown"),
                false,
            ),
            (
                format!("{runc}unable to start container process: exec: \"x\""),
                false,
            ),
        ] {
            assert_eq!(is_swept(&Status::unknown(&words)), swept, "{words}");
        }
    }
}
