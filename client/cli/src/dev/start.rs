//! Starts the processes of a cluster in order; each waits until the one before it is ready.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use barge_client::{
    Client, ClientOptions, Selection,
    config::{Config, Context},
    files,
    token::Token,
    v1::{CreateTokenRequest, Kind, ManagerRole, Role, object},
};

use super::{
    folder::{Cluster, Folder, NodePaths, manager_dir},
    machine, network,
    process::{Process, program},
};

/// How long a process may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const TOKEN_SECONDS: u64 = 600;

/// A cluster that is being started.
pub struct Starter<'a> {
    pub folder: &'a Folder,
    pub cluster: Cluster,
}

impl Starter<'_> {
    /// The first manager, which makes the cluster; returns when it leads.
    pub async fn bootstrap(&mut self) -> Result<()> {
        self.manager(1, &["--bootstrap"])?;
        // After a crash of all of them the first is no majority: those that joined before need no token.
        for number in 2..=self.cluster.managers {
            if has_joined(&manager_dir(&self.folder.dir, number)) {
                self.manager(number, &[])?;
            }
        }
        // The one in use has been renewed since, perhaps.
        let admin = match self.admin() {
            used if used.exists() => used,
            _ => manager_dir(&self.folder.dir, 1).join("admin.toml"),
        };
        self.until("manager-1", "lead", async || {
            let client = client(&admin).map_err(|error| error.to_string())?;
            let known = client.members().await.map_err(|error| error.to_string())?;
            known
                .members
                .iter()
                .any(|member| member.leader)
                .then_some(())
                .ok_or_else(|| "there is no leader yet".to_owned())
        })
        .await?;
        self.write_admin(&admin)
    }

    /// The other managers; returns when all are voters.
    pub async fn join_managers(&mut self) -> Result<()> {
        let count = self.cluster.managers;
        if (2..=count).all(|number| self.is_alive(&format!("manager-{number}"))) {
            return Ok(());
        }
        let token = self.token(Role::Manager, u32::from(count) - 1).await?;
        let to = self.cluster.manager(1);
        for number in 2..=count {
            self.manager(
                number,
                &["--join", &to, "--token-file", &token.display().to_string()],
            )?;
        }
        let admin = self.admin();
        let second = self.cluster.manager(2);
        self.until(&format!("manager-{count}"), "be a voter", async || {
            let client = client(&admin).map_err(|error| error.to_string())?;
            if count == 2 {
                // By itself it would wait for a third one.
                let promoted = client.set_manager_role(&second, ManagerRole::Voter).await;
                promoted.map_err(|error| error.to_string())?;
            }
            let known = client.members().await.map_err(|error| error.to_string())?;
            let voters = known
                .members
                .iter()
                .filter(|member| member.state == "voter")
                .count();
            if voters >= usize::from(count) {
                Ok(())
            } else {
                Err(format!("{voters} of {count} managers are voters"))
            }
        })
        .await?;
        self.discard(&token).await
    }

    /// The registry that stands in for docker.io; returns when it listens.
    pub async fn registry(&mut self) -> Result<()> {
        let dir = self.folder.dir.join("registry");
        files::create_private_dir(&dir)?;
        let (address, config) = (self.cluster.registry_address(), dir.join("config.yml"));
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.join("data").display()
        );
        files::write_private(&config, text.as_bytes())
            .context("write the registry's configuration")?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        self.spawn("registry", command)?;
        self.until("registry", "listen", async || {
            TcpStream::connect(&address)
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await
    }

    /// The nodes: network, containerd, agent; returns when all are ready.
    pub async fn nodes(&mut self) -> Result<()> {
        let count = self.cluster.agents;
        for number in 1..=count {
            let paths = NodePaths::new(&self.folder.dir, number);
            files::create_private_dir(&paths.dir)?;
            network::ensure_node(&self.cluster, number, &paths.netns())?;
            let config = paths.dir.join("containerd.toml");
            files::write_private(&config, machine::containerd_config(&paths).as_bytes())?;
            let mut command = network::inside(&paths.netns(), Path::new("containerd"));
            command.arg("--config").arg(config);
            self.spawn(&format!("containerd-{number}"), command)?;
        }
        let token = self.token(Role::Agent, u32::from(count).max(1)).await?;
        for number in 1..=count {
            let paths = NodePaths::new(&self.folder.dir, number);
            self.until(&format!("containerd-{number}"), "listen", async || {
                if machine::answers(&paths) {
                    Ok(())
                } else {
                    Err("its socket does not answer".to_owned())
                }
            })
            .await?;
            self.agent(number, &paths, &token)?;
        }
        let admin = self.admin();
        self.until(&format!("agent-{count}"), "be a ready node", async || {
            let client = client(&admin).map_err(|error| error.to_string())?;
            let nodes = client
                .list(&Selection::of(Kind::Node, ""))
                .await
                .map_err(|error| error.to_string())?;
            let ready = nodes
                .objects
                .iter()
                .filter(|object| is_ready(object.kind.as_ref()))
                .count();
            if ready >= usize::from(count) {
                Ok(())
            } else {
                Err(format!("{ready} of {count} nodes are ready"))
            }
        })
        .await?;
        self.discard(&token).await
    }

    fn agent(&mut self, number: u8, paths: &NodePaths, token: &Path) -> Result<()> {
        let config = paths.dir.join("agent.toml");
        files::write_private(&config, machine::agent_config(&self.cluster).as_bytes())?;
        let managers: Vec<_> = (1..=self.cluster.managers)
            .map(|manager| self.cluster.manager(manager))
            .collect();
        let mut command = network::inside(&paths.netns(), &program("barge-agent"));
        command.arg("run").arg("--data-dir").arg(paths.data());
        command
            .arg("--join")
            .arg(managers.join(","))
            .arg("--token-file")
            .arg(token);
        command.arg("--containerd").arg(paths.socket());
        command
            .arg("--containerd-namespace")
            .arg(self.cluster.namespace(number));
        command
            .arg("--cgroup-root")
            .arg(self.cluster.cgroup(number));
        command.args([
            "--node-name",
            &format!("node-{number}"),
            "--node-ip",
            &self.cluster.node(number),
        ]);
        command.arg("--config").arg(config);
        self.spawn(&format!("agent-{number}"), command)
    }

    fn manager(&mut self, number: u8, flags: &[&str]) -> Result<()> {
        let dir = manager_dir(&self.folder.dir, number);
        files::create_private_dir(&dir)?;
        let mut command = Command::new(program("barge-server"));
        command.arg("run").arg("--data-dir").arg(dir);
        // Only on the cluster's own network: another one on this machine uses the same ports.
        let address = self.cluster.manager(number);
        command
            .args(["--advertise", &address, "--listen", &address])
            // A cluster to try things with may use what a machine for production would keep.
            .args(["--min-disk-free", "256Mi"])
            .args(flags);
        if let Some(seconds) = self.cluster.certificate_lifetime_seconds {
            command.args(["--certificate-lifetime", &format!("{seconds}s")]);
        }
        if self.cluster.metrics {
            command.args(["--metrics", &self.cluster.manager_metrics(number)]);
        }
        self.spawn(&format!("manager-{number}"), command)
    }

    /// Starts a process unless it runs, and writes it down.
    fn spawn(&mut self, name: &str, command: Command) -> Result<()> {
        if self.is_alive(name) {
            return Ok(());
        }
        let process = Process::spawn(name, command, &self.log(name))?;
        self.cluster.processes.retain(|old| old.name != name);
        self.cluster.processes.push(process);
        self.folder.save(&self.cluster)
    }

    fn is_alive(&self, name: &str) -> bool {
        self.cluster
            .processes
            .iter()
            .any(|process| process.name == name && process.alive())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.dir.join("logs").join(format!("{name}.log"))
    }

    /// The administrator's credential that knows every manager.
    pub fn admin(&self) -> PathBuf {
        admin(&self.folder.dir)
    }

    fn write_admin(&self, first: &Path) -> Result<()> {
        let mut config = Config::load(first)?;
        for Context { managers, .. } in &mut config.contexts {
            *managers = (1..=self.cluster.managers)
                .map(|number| self.cluster.manager(number))
                .collect();
        }
        Ok(config.save(&self.admin())?)
    }

    async fn token(&self, role: Role, uses: u32) -> Result<PathBuf> {
        let request = CreateTokenRequest {
            role: role.into(),
            ttl_seconds: TOKEN_SECONDS,
            uses,
            description: "dev up".to_owned(),
        };
        let token = client(&self.admin())?
            .create_token(request)
            .await
            .context("make a join token")?
            .token;
        let path = self
            .folder
            .dir
            .join("managers")
            .join(format!("{}.token", role.as_str_name()));
        files::write_private(&path, token.as_bytes())?;
        Ok(path)
    }

    /// Makes a token useless that has done its work, and forgets it: a manager's opens everything.
    async fn discard(&self, token: &Path) -> Result<()> {
        let text = fs::read_to_string(token)?;
        client(&self.admin())?
            .revoke_token(&text.parse::<Token>()?.id)
            .await
            .context("revoke a join token")?;
        fs::remove_file(token).with_context(|| format!("remove {}", token.display()))
    }

    /// Waits until a process is ready; gives up when it ends, with the last thing it said.
    async fn until(
        &self,
        name: &str,
        what: &str,
        mut ready: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<()> {
        let begin = Instant::now();
        loop {
            let Err(why) = ready().await else {
                return Ok(());
            };
            let last = last_line(&self.log(name));
            if !self.is_alive(name) {
                bail!("{name} ended before it could {what}: {last}");
            }
            if begin.elapsed() > PATIENCE {
                bail!(
                    "{name} did not {what} within {} s: {why}; it said last: {last}",
                    PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The administrator's credential of the cluster in a folder; it knows every manager.
pub fn admin(dir: &Path) -> PathBuf {
    dir.join("managers").join("admin.toml")
}

/// Whether a manager's data folder has an identity: then it takes part again without being admitted.
fn has_joined(dir: &Path) -> bool {
    dir.join("identity").join("identity.toml").exists()
}

fn is_ready(object: Option<&object::Kind>) -> bool {
    let Some(object::Kind::Node(node)) = object else {
        return false;
    };
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|condition| condition.r#type == "Ready" && condition.status == "True")
}

/// A client of the cluster with the credential in a file. Impatient with managers that do not listen: a caller that waits for
/// one looks first whether its process is still there, and asks again.
pub fn client(admin: &Path) -> Result<Client> {
    let options = ClientOptions {
        unreachable_after: Duration::from_millis(200),
        ..ClientOptions::default()
    };
    let config = Config::load(admin)?;
    Ok(Client::from_context(config.context(None)?, options)?)
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .last()
        .map_or_else(|| format!("nothing; see {}", log.display()), str::to_owned)
}
