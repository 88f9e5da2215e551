//! What the runtime in memory does for each step.

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::runtime::{Place, Program, Running, VolumeSource};

#[async_trait]
impl Runtime for Scripted {
    async fn ensure_network(&self, pod_cidr: &str) -> Result<(), RuntimeError> {
        self.call("network", pod_cidr)
    }

    async fn find_image(
        &self,
        image: &str,
        _secrets: &PullSecrets,
    ) -> Result<Option<Image>, RuntimeError> {
        let there = self.world().images.contains(image);
        Ok(there.then(|| self::image(image)))
    }

    async fn pull(
        &self,
        image: &str,
        _policy: PullPolicy,
        secrets: &PullSecrets,
    ) -> Result<Image, RuntimeError> {
        self.world().secrets = secrets.clone();
        let result = self.call("pull", image).map(|()| self::image(image));
        self.world().pulling += 1;
        let _ended = Ended(self);
        let stalled = self.world().stalled.contains(image);
        if result.is_ok() && stalled {
            std::future::pending::<()>().await;
        }
        self.answer(result).await
    }

    async fn images(&self) -> Result<ImageStore, RuntimeError> {
        self.call("images", "")?;
        let world = self.world();
        let stored = world.stored.keys().map(|name| StoredImage {
            name: name.clone(),
            pulled_at_ms: 0,
        });
        Ok(ImageStore {
            disk: (world.disk > 0).then(|| Filled {
                used: world.stored.values().sum(),
                total: world.disk,
            }),
            images: stored.collect(),
        })
    }

    async fn remove_image(&self, name: &str) -> Result<bool, RuntimeError> {
        self.call("remove image", name)?;
        let mut world = self.world();
        let stays = world.stalled.contains(name);
        if !stays {
            world.stored.remove(name);
        }
        Ok(!stays)
    }

    async fn create_sandbox(&self, sandbox: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let result = self.create(sandbox);
        self.answer(result).await
    }

    async fn remove_volumes(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        let stalled = self.world().unremovable.contains(pod_uid);
        if stalled {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        let result = self.remove_all(pod_uid);
        self.answer(result).await
    }

    async fn release_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        let result = self.release(pod_uid);
        self.answer(result).await
    }

    async fn look_at_host_paths(&self, volumes: &PodVolumes) -> Result<(), RuntimeError> {
        self.call("look", "")?;
        self.answers(volumes.volumes.values().map(VolumeSource::place))
            .await
    }

    async fn pin_host_paths(&self, container: &ContainerSpec) -> Result<(), RuntimeError> {
        let parts = container.mounts.iter().filter(|it| !it.sub_path.is_empty());
        let places = parts.map(|it| match &it.place {
            Place::Host(path) => Place::Host(path.join(&it.sub_path)),
            other => other.clone(),
        });
        self.answers(places).await
    }

    async fn ensure_volumes(&self, volumes: &PodVolumes) -> Result<(), RuntimeError> {
        let result = self.make_volumes(volumes);
        self.answer(result).await
    }

    async fn volume_bytes(
        &self,
        _pod_uid: &str,
        volume: &str,
        _enough: u64,
    ) -> Result<u64, RuntimeError> {
        self.call("measure", volume)?;
        Ok(self.world().volume_bytes)
    }

    async fn own_bytes(&self, _pod_uid: &str, _enough: u64) -> Result<u64, RuntimeError> {
        Ok(self.world().own_bytes)
    }

    async fn container_bytes(&self, container: &Container) -> Result<u64, RuntimeError> {
        let world = self.world();
        let bytes = world.container_bytes.get(&container.name);
        Ok(bytes.copied().unwrap_or(0))
    }

    async fn start_container(&self, container: &ContainerSpec) -> Result<Container, RuntimeError> {
        let result = self.start(container);
        self.answer(result).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let result = self.call("stop", &format!("{id} {}", grace.as_secs()));
        let ignores = self.world().ignores_term;
        if result.is_ok() && ignores {
            tokio::time::sleep(grace).await;
        }
        if result.is_ok() {
            self.exit(id, if ignores { 137 } else { 143 });
        }
        self.answer(result).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let result = self.remove(id);
        self.answer(result).await
    }

    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        let takes = {
            let mut world = self.world();
            world.execs.0 += 1;
            world.execs.1 = world.execs.1.max(world.execs.0);
            world.exec_takes
        };
        self.call("exec", id)?;
        let ended = tokio::time::timeout(timeout, tokio::time::sleep(takes)).await;
        let mut world = self.world();
        world.execs.0 -= 1;
        let program = command.first().map_or("", String::as_str);
        let code = world.exits.get(program).copied().unwrap_or(0);
        Ok(ExecOutcome {
            exit_code: ended.is_ok().then_some(code),
            output: format!("{program} says {code}").into_bytes(),
        })
    }

    async fn attend(
        &self,
        id: &str,
        program: &Program,
        gone: &CancellationToken,
    ) -> Result<Running, RuntimeError> {
        self.call("attend", &format!("{id} {}", program.command.join(" ")))?;
        self.talk.begin(program, gone).await
    }

    async fn connect(&self, pod_uid: &str, port: u16) -> std::io::Result<TcpStream> {
        // The machine's loopback stands for the pod's.
        let _ = self.call("connect", pod_uid);
        TcpStream::connect(("127.0.0.1", port)).await
    }

    async fn list(&self) -> Result<Inventory, RuntimeError> {
        let inventory = {
            let mut world = self.world();
            world.lists += 1;
            let refusals = world.failures.get_mut("list");
            if let Some(error) = refusals.and_then(Vec::pop) {
                return Err(error);
            }
            Inventory {
                sandboxes: world.sandboxes.values().cloned().collect(),
                containers: world.containers.values().cloned().collect(),
            }
        };
        tokio::task::yield_now().await;
        Ok(inventory)
    }

    async fn find_pod(&self, pod_uid: &str) -> Result<Inventory, RuntimeError> {
        let mut found = self.list().await?;
        self.world().lists -= 1;
        found.sandboxes.retain(|it| it.pod_uid == pod_uid);
        found.containers.retain(|it| it.pod_uid == pod_uid);
        Ok(found)
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        let live = BroadcastStream::new(self.events.subscribe());
        let live = live.map(|event| event.unwrap_or(RuntimeEvent::Resync));
        let first = futures::stream::once(async { RuntimeEvent::Resync });
        first.chain(live).boxed()
    }

    fn log_path(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        let file = format!("{pod_uid}/{container}/{attempt}.log");
        self.world().logs.join(file)
    }

    fn meter(&self, _pod_uid: &str, id: &str) -> std::io::Result<Box<dyn Meter>> {
        Ok(self.scale(id))
    }

    async fn settle_log(&self, id: &str) -> Result<(), RuntimeError> {
        // The first question comes too early.
        self.call("settle", id)?;
        if let Some(write) = self.world().last_output.take() {
            write();
        }
        Ok(())
    }

    async fn version(&self) -> Result<String, RuntimeError> {
        Ok("scripted://1".into())
    }
}
