//! The same containers without Barge: a network namespace, CNI's bridge, and containerd's own API, nothing else.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, bail};
use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
        DeleteTaskRequest, KillRequest, StartRequest, WaitRequest,
        container::Runtime,
        containers_client::ContainersClient,
        snapshots::{
            PrepareSnapshotRequest, RemoveSnapshotRequest, snapshots_client::SnapshotsClient,
        },
        tasks_client::TasksClient,
    },
    tonic::{Request, transport::Channel},
    with_namespace,
};
use futures::{StreamExt, TryStreamExt, stream};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use serde_json::json;

use super::report::milliseconds;
use crate::cluster::Agent;

/// A containerd, and the network namespace of its machine.
pub struct Bare {
    channel: Channel,
    namespace: String,
    netns: PathBuf,
    folder: tempfile::TempDir,
    /// Chain id of the image's one layer, which is unpacked there.
    parent: String,
}

impl Bare {
    /// Uses the containerd of an agent, where an image of this chain id is unpacked already.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn new(agent: &Agent, chain_id: &str) -> anyhow::Result<Self> {
        Ok(Self {
            channel: containerd_client::connect(&agent.containerd_socket)
                .await
                .context("connect to containerd")?,
            namespace: agent.containerd_namespace.clone(),
            netns: agent.netns.clone(),
            folder: tempfile::Builder::new().prefix("barge-bare-").tempdir()?,
            parent: chain_id.to_owned(),
        })
    }

    /// Starts so many containers, some at a time; answers milliseconds for all, and for each.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(&self, count: usize, at_a_time: usize) -> anyhow::Result<(f64, Vec<f64>)> {
        let start = Instant::now();
        let each = stream::iter(0..count)
            .map(|index| async move {
                let start = Instant::now();
                self.start_one(&format!("bare-{index}"))
                    .await
                    .map(|()| milliseconds(start.elapsed()))
            })
            .buffer_unordered(at_a_time)
            .try_collect()
            .await?;
        Ok((milliseconds(start.elapsed()), each))
    }

    async fn start_one(&self, id: &str) -> anyhow::Result<()> {
        let netns = self.folder.path().join(id);
        let (machine, folder, pinned) = (
            self.netns.clone(),
            self.folder.path().to_owned(),
            netns.clone(),
        );
        let name = id.to_owned();
        tokio::task::spawn_blocking(move || attach(&machine, &folder, &pinned, &name)).await??;

        let namespace = self.namespace.as_str();
        let prepare = PrepareSnapshotRequest {
            snapshotter: "overlayfs".into(),
            key: id.into(),
            parent: self.parent.clone(),
            // Or garbage collection may take it before a container refers to it.
            labels: [("containerd.io/gc.root".to_owned(), "bare".to_owned())].into(),
        };
        let rootfs = SnapshotsClient::new(self.channel.clone())
            .prepare(with_namespace!(prepare, namespace))
            .await
            .context("prepare a snapshot")?
            .into_inner()
            .mounts;
        let container = Container {
            id: id.into(),
            runtime: Some(Runtime {
                name: "io.containerd.runc.v2".into(),
                options: None,
            }),
            spec: Some(prost_types::Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: serde_json::to_vec(&spec(&netns, id))?,
            }),
            snapshotter: "overlayfs".into(),
            snapshot_key: id.into(),
            ..Default::default()
        };
        ContainersClient::new(self.channel.clone())
            .create(with_namespace!(
                CreateContainerRequest {
                    container: Some(container)
                },
                namespace
            ))
            .await
            .context("create a container")?;
        let mut tasks = TasksClient::new(self.channel.clone());
        let create = CreateTaskRequest {
            container_id: id.into(),
            rootfs,
            ..Default::default()
        };
        tasks
            .create(with_namespace!(create, namespace))
            .await
            .context("create a task")?;
        let begin = StartRequest {
            container_id: id.into(),
            ..Default::default()
        };
        tasks
            .start(with_namespace!(begin, namespace))
            .await
            .context("start a task")?;
        Ok(())
    }

    /// Ends and removes what `start` made.
    ///
    /// # Errors
    /// When something does not go.
    pub async fn remove(&self, count: usize) -> anyhow::Result<()> {
        let namespace = self.namespace.as_str();
        let mut tasks = TasksClient::new(self.channel.clone());
        for index in 0..count {
            let id = format!("bare-{index}");
            let kill = KillRequest {
                container_id: id.clone(),
                signal: 9,
                all: true,
                ..Default::default()
            };
            tasks.kill(with_namespace!(kill, namespace)).await?;
            let wait = WaitRequest {
                container_id: id.clone(),
                ..Default::default()
            };
            tasks.wait(with_namespace!(wait, namespace)).await?;
            tasks
                .delete(with_namespace!(
                    DeleteTaskRequest {
                        container_id: id.clone()
                    },
                    namespace
                ))
                .await?;
            let delete = DeleteContainerRequest { id: id.clone() };
            ContainersClient::new(self.channel.clone())
                .delete(with_namespace!(delete, namespace))
                .await?;
            let snapshot = RemoveSnapshotRequest {
                snapshotter: "overlayfs".into(),
                key: id.clone(),
            };
            // Garbage collection may have been faster.
            let _ = SnapshotsClient::new(self.channel.clone())
                .remove(with_namespace!(snapshot, namespace))
                .await;
            let (machine, folder) = (self.netns.clone(), self.folder.path().to_owned());
            tokio::task::spawn_blocking(move || detach(&machine, &folder, &id)).await??;
        }
        Ok(())
    }
}

/// Makes a pinned network namespace and attaches it to a bridge of the machine.
fn attach(machine: &Path, folder: &Path, pinned: &Path, id: &str) -> anyhow::Result<()> {
    File::create(pinned)?;
    let target = pinned.to_owned();
    let made = thread::spawn(move || -> anyhow::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        Ok(())
    });
    made.join()
        .map_err(|_| anyhow::anyhow!("the thread that makes a namespace died"))??;
    cni(machine, folder, "ADD", id, pinned)
}

fn detach(machine: &Path, folder: &Path, id: &str) -> anyhow::Result<()> {
    let pinned = folder.join(id);
    cni(machine, folder, "DEL", id, &pinned)?;
    umount2(&pinned, MntFlags::MNT_DETACH)?;
    fs::remove_file(&pinned)?;
    Ok(())
}

fn cni(machine: &Path, folder: &Path, verb: &str, id: &str, netns: &Path) -> anyhow::Result<()> {
    let config = json!({
        "cniVersion": "0.4.0", "name": "bare", "type": "bridge", "bridge": "bare0", "isGateway": true,
        "hairpinMode": true,
        "ipam": {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": folder.join("addresses"),
                 "routes": [{"dst": "0.0.0.0/0"}]},
    });
    let plugins = ["/usr/lib/cni", "/opt/cni/bin"]
        .into_iter()
        .find(|path| Path::new(path).join("bridge").exists());
    let plugins = plugins.context("CNI's bridge plugin is not installed")?;
    let machine = File::open(machine)?;
    let mut command = Command::new(format!("{plugins}/bridge"));
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns);
    command.env("CNI_IFNAME", "eth0").env("CNI_PATH", plugins);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let run = thread::spawn(move || -> anyhow::Result<()> {
        setns(machine, CloneFlags::CLONE_NEWNET)?;
        let mut child = command.spawn()?;
        child
            .stdin
            .take()
            .context("the plugin has an input")?
            .write_all(config.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("CNI {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    });
    run.join()
        .map_err(|_| anyhow::anyhow!("the thread that calls CNI died"))?
}

fn spec(netns: &Path, id: &str) -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "noNewPrivileges": true,
            "args": ["serve"],
            "env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"],
        },
        "root": {"path": "rootfs"},
        "hostname": id,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/bare/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network", "path": netns},
            ],
        },
    })
}
