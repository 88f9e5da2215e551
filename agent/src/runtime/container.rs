//! Containers: made, stopped, removed, found again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use containerd_client::{
    services::v1::{
        Container as Record, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
        snapshots::{ListSnapshotsRequest, RemoveSnapshotRequest, UsageRequest},
    },
    tonic::Status,
    types::v1::Process,
};

use futures::future::try_join_all;

use super::{
    Container, ContainerSpec, ContainerState, Options, RuntimeError,
    cgroup::Cgroups,
    client::Client,
    error::{reason, unless_missing},
    flight::Flights,
    images::Images,
    names::label,
    resources::Machine,
    volumes::Volumes,
};
use crate::{carrier::Carrier, files};

mod attend;
mod beside;
mod create;
mod exec;
mod host;
mod pipes;
mod rootfs;
mod salvage;
mod shim;
mod state;
mod task;
mod words;

/// The containers of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Containers {
    /// containerd.
    pub client: Client,
    /// Settings.
    pub options: Arc<Options>,
    /// Where containers live in control groups.
    pub cgroups: Cgroups,
    /// What they run on.
    pub machine: Machine,
    /// Where they come from.
    pub images: Images,
    /// Where their output goes.
    pub carrier: Carrier,
    /// What of their pods' volumes they mount.
    pub volumes: Volumes,
    /// Names this agent: what runs in containers beside them is named after the agent that began it.
    pub run: Arc<str>,
    /// Creations under way, by id. They are not cancelled with who asked for them: half a creation is no use.
    pub creations: Arc<Flights<Result<Container, RuntimeError>>>,
}

impl Containers {
    /// Makes and starts a container, or answers the one that is there.
    pub async fn start(&self, id: &str, spec: &ContainerSpec) -> Result<Container, RuntimeError> {
        let work = || {
            let (this, spec) = (self.clone(), spec.clone());
            async move { this.create(&spec).await }
        };
        self.creations.run(id, work).await.unwrap_or_else(|| {
            let message = format!("creating {id} ended unexpectedly");
            Err(RuntimeError::passing(reason::CREATE_CONTAINER, message))
        })
    }

    /// Asks a container to end, and kills it after the grace.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        self.creations.settled(id).await;
        let Some(record) = self.record(id).await? else {
            return Ok(());
        };
        let wanted = record
            .labels
            .get(label::STOP_SIGNAL)
            .map_or("", String::as_str);
        let signal = state::signal_number(wanted);
        let stopped = task::stop(&self.client, id, signal, grace).await;
        stopped.map_err(|status| kill_error("stop", id, &status))
    }

    /// Removes a container and all that is left of it but its log.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.creations.settled(id).await;
        self.erase(id, None).await
    }

    /// Removes all containers of a pod, and what creations that died have left of it.
    pub async fn remove_pod(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        for id in self.creations.keys() {
            if id.starts_with(pod_uid) {
                self.creations.settled(&id).await;
            }
        }
        let filter = format!("labels.\"{}\"==\"{pod_uid}\"", label::POD_UID);
        for record in self.records(&filter).await? {
            self.erase(&record.id, Some(pod_uid)).await?;
        }
        for key in self
            .snapshots(&filter)
            .await
            .map_err(|status| kill_error("clean up after", pod_uid, &status))?
        {
            self.erase(&key, Some(pod_uid)).await?;
        }
        let salvaged = salvage::pod(&self.options, &self.cgroups, pod_uid).await;
        salvaged.map_err(|error| salvage_error(pod_uid, &error))?;
        // Pipes of a creation that died before it had recorded anything.
        let io = self.options.paths.io();
        let ids = files::reading(move || {
            let entries = std::fs::read_dir(io).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            Ok(names.collect::<Vec<_>>())
        });
        let ids = ids.await.map_err(|error| salvage_error(pod_uid, &error))?;
        let ours = |id: &&String| {
            let rest = id.strip_prefix(pod_uid);
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        for id in ids.iter().filter(ours) {
            self.detach(id).await?;
        }
        Ok(())
    }

    /// All containers of ours that are not just being made.
    pub async fn list(&self) -> Result<Vec<Container>, RuntimeError> {
        let making = self.creations.keys();
        let filter = format!("labels.\"{}\"", label::POD_UID);
        let records = self.records(&filter).await?;
        let tasks = task::list(&self.client)
            .await
            .map_err(|status| list_error(&status))?;
        let mut tasks: HashMap<String, Process> = tasks
            .into_iter()
            .map(|task| (task.id.clone(), task))
            .collect();
        let made = records
            .into_iter()
            .filter(|record| !making.contains(&record.id));
        let made = made.map(|record| {
            let task = tasks.remove(&record.id);
            (record, task)
        });
        self.judge(made.collect()).await
    }

    /// Those of a pod, like [`Self::list`]. Costs the shims of other pods nothing.
    pub async fn of_pod(&self, pod_uid: &str) -> Result<Vec<Container>, RuntimeError> {
        let making = self.creations.keys();
        let filter = format!("labels.\"{}\"==\"{pod_uid}\"", label::POD_UID);
        let mut made = self.records(&filter).await?;
        made.retain(|record| !making.contains(&record.id));
        let with_task = made.into_iter().map(async |record| {
            let task = task::get(&self.client, &record.id).await;
            task.map(|task| (record, task))
                .map_err(|status| list_error(&status))
        });
        self.judge(try_join_all(with_task).await?).await
    }

    async fn find(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        let Some(record) = self.record(id).await? else {
            return Ok(None);
        };
        let task = task::get(&self.client, id)
            .await
            .map_err(|status| list_error(&status))?;
        Ok(self.judge(vec![(record, task)]).await?.pop())
    }

    /// How containers are, by their tasks, their notes and their control groups.
    async fn judge(
        &self,
        found: Vec<(Record, Option<Process>)>,
    ) -> Result<Vec<Container>, RuntimeError> {
        let this = self.clone();
        let judge = move || {
            let found = found.iter();
            Ok(found
                .filter_map(|(record, task)| this.judge_one(record, task.as_ref()))
                .collect())
        };
        files::reading(judge).await.map_err(|error| {
            let message = format!("cannot look at the containers: {error}");
            RuntimeError::passing(reason::UNAVAILABLE, message)
        })
    }

    fn judge_one(&self, record: &Record, task: Option<&Process>) -> Option<Container> {
        let found = state::identify(
            &record.id,
            &record.image,
            &record.labels,
            ContainerState::Lost,
        )?;
        let started = self
            .options
            .paths
            .started(&found.pod_uid, &found.name, found.attempt);
        let started_at_ms = match files::read_if_there(&started) {
            Ok(note) => note.map(|text| String::from_utf8_lossy(&text).parse().unwrap_or(0)),
            // It is there and cannot be read: the container may have run.
            Err(error) => {
                tracing::debug!(path = %started.display(), %error, "cannot read when a container was started");
                Some(0)
            }
        };
        let state = state::judge(task, started_at_ms, || {
            let cgroup = self.cgroups.path(&found.pod_uid, &found.id);
            self.cgroups.oom_kills(&cgroup)
        });
        Some(Container { state, ..found })
    }

    /// Removes whatever there is of a container. Its record goes last but for the note of its start: until then it is
    /// found again, and its file system is removed by nobody else.
    async fn erase(&self, id: &str, pod_uid: Option<&str>) -> Result<(), RuntimeError> {
        let error = |status: Status| kill_error("remove", id, &status);
        let record = self.record(id).await?;
        if !task::delete(&self.client, id).await.map_err(error)?
            && let Some(pod_uid) = record
                .as_ref()
                .and_then(|record| record.labels.get(label::POD_UID).map(String::as_str))
                .or(pod_uid)
        {
            let salvaged = salvage::container(&self.options, &self.cgroups, pod_uid, id).await;
            salvaged.map_err(|error| salvage_error(id, &error))?;
        }
        self.detach(id).await?;
        let snapshot = RemoveSnapshotRequest {
            snapshotter: self.options.snapshotter.clone(),
            key: id.to_owned(),
        };
        let removed = self
            .client
            .services()
            .snapshots()
            .remove(self.client.request(snapshot))
            .await;
        unless_missing(removed).map_err(error)?;
        let Some(record) = record else {
            return Ok(());
        };
        let container = DeleteContainerRequest { id: id.to_owned() };
        let deleted = self
            .client
            .services()
            .containers()
            .delete(self.client.request(container))
            .await;
        unless_missing(deleted).map_err(error)?;
        let found = state::identify(id, &record.image, &record.labels, ContainerState::Lost);
        if let Some(found) = found {
            let started = self
                .options
                .paths
                .started(&found.pod_uid, &found.name, found.attempt);
            let words = self
                .options
                .paths
                .last_words(&found.pod_uid, &found.name, found.attempt);
            let removed = files::blocking(move || {
                files::remove_if_there(&words)?;
                files::remove_if_there(&started)
            });
            let removed = removed.await;
            removed.map_err(|error| {
                RuntimeError::passing(
                    reason::KILL_CONTAINER,
                    format!("cannot remove {id}: {error}"),
                )
            })?;
        }
        Ok(())
    }

    /// Bytes on disk of what the container wrote: its own layer, as containerd counts it, and its log.
    pub async fn bytes(&self, container: &Container) -> Result<u64, RuntimeError> {
        let usage = UsageRequest {
            snapshotter: self.options.snapshotter.clone(),
            key: container.id.clone(),
        };
        let mut snapshots = self.client.services().snapshots();
        let counted = snapshots.usage(self.client.request(usage)).await;
        let counted = unless_missing(counted).map_err(|status| list_error(&status))?;
        let layer = counted.map_or(0, |it| it.into_inner().size);
        let log = self
            .options
            .paths
            .log(&container.pod_uid, &container.name, container.attempt);
        // All attempts', and the older parts.
        let logs = files::reading(move || {
            let folder = log.parent().map(std::fs::read_dir).transpose();
            let entries = folder.ok().flatten().into_iter().flatten().flatten();
            let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
            Ok(sizes.fold(0, u64::saturating_add))
        });
        let logs = logs.await.unwrap_or(0);
        Ok(u64::try_from(layer).unwrap_or(0).saturating_add(logs))
    }

    async fn detach(&self, id: &str) -> Result<(), RuntimeError> {
        let detached = self.carrier.detach(id).await;
        detached.map_err(|error| RuntimeError::passing(reason::KILL_CONTAINER, error.to_string()))
    }

    async fn record(&self, id: &str) -> Result<Option<Record>, RuntimeError> {
        let request = GetContainerRequest { id: id.to_owned() };
        let answer = self
            .client
            .services()
            .containers()
            .get(self.client.look(request))
            .await;
        let answer = unless_missing(answer).map_err(|status| list_error(&status))?;
        Ok(answer.and_then(|answer| answer.into_inner().container))
    }

    /// One by one: all in one answer would be too large a message on a busy machine.
    async fn records(&self, filter: &str) -> Result<Vec<Record>, RuntimeError> {
        let request = ListContainersRequest {
            filters: vec![filter.to_owned()],
        };
        let listed = async {
            let mut containers = self.client.services().containers();
            let mut answers = containers
                .list_stream(self.client.look(request))
                .await?
                .into_inner();
            let mut records = Vec::new();
            while let Some(answer) = answers.message().await? {
                // The specification is not needed, and the largest part by far.
                records.extend(answer.container.map(|record| Record {
                    spec: None,
                    ..record
                }));
            }
            Ok(records)
        };
        listed.await.map_err(|status: Status| list_error(&status))
    }

    async fn snapshots(&self, filter: &str) -> Result<Vec<String>, Status> {
        let request = ListSnapshotsRequest {
            snapshotter: self.options.snapshotter.clone(),
            filters: vec![filter.to_owned()],
        };
        let mut snapshots = self.client.services().snapshots();
        let mut answers = snapshots
            .list(self.client.look(request))
            .await?
            .into_inner();
        let mut keys = Vec::new();
        while let Some(answer) = answers.message().await? {
            keys.extend(answer.info.into_iter().map(|info| info.name));
        }
        Ok(keys)
    }
}

fn salvage_error(id: &str, error: &std::io::Error) -> RuntimeError {
    let message = format!("cannot clean up after {id}: {error}");
    RuntimeError::passing(reason::KILL_CONTAINER, message)
}

fn kill_error(verb: &str, id: &str, status: &Status) -> RuntimeError {
    RuntimeError::from_status(reason::KILL_CONTAINER, &format!("{verb} {id}"), status)
}

fn list_error(status: &Status) -> RuntimeError {
    RuntimeError::from_status(reason::UNAVAILABLE, "look at the containers", status)
}
