//! A whole cluster of real processes, as `barge dev up` makes it, in a folder of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::eventually;

/// A development cluster; it is taken down when dropped.
pub struct Cluster {
    dir: TempDir,
    config: PathBuf,
    born: Instant,
    name: &'static str,
    /// What its processes log; what people should know without it.
    log: Option<&'static str>,
}

/// What `barge dev status -o json` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Layout {
    pub managers: Vec<Process>,
    pub agents: Vec<Agent>,
    pub registry: Option<Process>,
}

/// A process of the cluster.
#[derive(Debug, Clone, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    /// host:port, where it listens.
    pub address: String,
}

/// An agent with the machine that was made for it.
#[derive(Debug, Clone, Deserialize)]
pub struct Agent {
    pub name: String,
    pub pid: u32,
    /// The node's IP address.
    pub address: String,
    /// The file that holds its network namespace.
    pub netns: PathBuf,
    pub containerd_pid: u32,
    pub containerd_socket: PathBuf,
    pub containerd_namespace: String,
}

/// A program of this build.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folder = env::var_os("BARGE_BIN_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let test = env::current_exe().expect("the running test has a path");
            test.ancestors()
                .nth(2)
                .expect("tests run in target/<profile>/deps")
                .to_owned()
        });
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run tests/run, or cargo build --release",
        path.display()
    );
    path
}

impl Cluster {
    /// Starts a cluster with a registry that has the example images.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up(name: &'static str, managers: usize, agents: usize) -> Self {
        Self::up_with(name, managers, agents, &[])
    }

    /// As [`Cluster::up`], with further flags of `dev up`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up_with(name: &'static str, managers: usize, agents: usize, flags: &[&str]) -> Self {
        let cluster = Self::prepare(name);
        cluster.form(managers, agents, flags);
        cluster
    }

    /// A folder without processes.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn prepare(name: &'static str) -> Self {
        // Short: sockets below it have at most 108 characters of path.
        let dir = tempfile::Builder::new()
            .prefix("barge-")
            .tempdir()
            .expect("make a folder for the cluster");
        let config = dir.path().join("managers/admin.toml");
        Self {
            dir,
            config,
            born: Instant::now(),
            name,
            log: None,
        }
    }

    /// Has its processes log this (as `$BARGE_LOG`).
    #[must_use]
    pub fn logging(mut self, log: &'static str) -> Self {
        self.log = Some(log);
        self
    }

    /// Starts the cluster in its folder, with a registry that has the example images.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn form(&self, managers: usize, agents: usize, flags: &[&str]) {
        self.dev_up_with(managers, agents, flags);
        self.push_images();
        println!(
            "[{}] up after {:.1} s",
            self.name,
            self.born.elapsed().as_secs_f32()
        );
    }

    /// `barge dev up` in the cluster's folder; answers what it printed.
    pub fn dev_up(&self, managers: usize, agents: usize) -> String {
        self.dev_up_with(managers, agents, &[])
    }

    fn dev_up_with(&self, managers: usize, agents: usize, flags: &[&str]) -> String {
        let (managers, agents) = (managers.to_string(), agents.to_string());
        let usual = [
            "dev",
            "up",
            "--registry",
            "--dir",
            self.path(),
            "--managers",
            &managers,
            "--agents",
            &agents,
        ];
        self.barge(&[&usual, flags].concat())
    }

    /// The cluster's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn path(&self) -> &str {
        self.dir
            .path()
            .to_str()
            .expect("temporary folders have plain names")
    }

    /// The administrator's credential.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The processes as they are now.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let text = self.barge(&["dev", "status", "--dir", self.path(), "-o", "json"]);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("dev status printed {text:?}: {error}"))
    }

    /// Runs `barge` and answers what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn barge(&self, arguments: &[&str]) -> String {
        let output = self.try_barge(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "barge {} failed ({}):\n{text}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Runs `barge`, whatever comes of it.
    pub fn try_barge(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("start barge")
    }

    /// `barge` with this cluster's credential, not started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("barge"));
        command
            .args(arguments)
            .env("BARGE_CONFIG", &self.config)
            .envs(self.log.map(|log| ("BARGE_LOG", log)))
            .stdin(Stdio::null());
        command
    }

    /// Applies a manifest given as text, and waits until its Deployments are rolled out. Single pods are not waited for: tests look at those that do not become ready, too.
    pub fn apply(&self, manifest: &str) -> String {
        let file = self.write("manifest.yaml", manifest);
        let mut arguments = vec!["apply", "-f", file.to_str().expect("a plain path")];
        if manifest.contains("kind: Deployment") {
            arguments.push("--wait");
        }
        self.barge(&arguments)
    }

    /// Writes a file beside the cluster's own.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.dir.path().join("test");
        fs::create_dir_all(&folder).expect("make a folder for the test's files");
        let path = folder.join(name);
        fs::write(&path, text).expect("write a test's file");
        path
    }

    /// An object as JSON.
    #[must_use]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        parse(&self.barge(&["get", kind, name, "-o", "json"]))
    }

    /// All objects of a kind in the default namespace that carry the labels.
    #[must_use]
    pub fn list(&self, kind: &str, labels: &str) -> Vec<Value> {
        let list = parse(&self.barge(&["get", kind, "-l", labels, "-o", "json"]));
        match list["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![list],
        }
    }

    /// Waits until exactly this many pods with the labels are ready and no others are left; answers them.
    pub fn ready_pods(&self, labels: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} ready pods {labels}"), || {
            let pods = self.list("pods", labels);
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            if ready == count && pods.len() == count {
                return Ok(pods);
            }
            Err(format!(
                "{ready} of {} are ready:\n{}",
                pods.len(),
                self.barge(&["get", "pods", "-o", "wide"])
            ))
        })
    }

    /// The process ids of the pods' containers on a machine, by container id, as containerd knows them.
    #[must_use]
    pub fn container_pids(&self, agent: &Agent) -> Vec<(String, u32)> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(&agent.containerd_socket)
            .args(["--namespace", &agent.containerd_namespace, "tasks", "list"])
            .output()
            .expect("start ctr");
        assert!(
            output.status.success(),
            "ctr: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut pids: Vec<_> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
            })
            .collect();
        pids.sort();
        pids
    }

    /// Fetches a page as this machine (outside of the nodes) would.
    pub fn fetch(&self, url: &str) -> Result<String, String> {
        fetch(Command::new("curl"), url)
    }

    /// Fetches a page from inside a node.
    pub fn fetch_on(&self, agent: &Agent, url: &str) -> Result<String, String> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", agent.netns.display()))
            .arg("curl");
        fetch(command, url)
    }

    fn push_images(&self) {
        let registry = self
            .layout()
            .registry
            .expect("the cluster has a registry")
            .address;
        let images = env::var_os("BARGE_TEST_IMAGES")
            .map(PathBuf::from)
            .unwrap_or_else(default_images);
        for image in ["my-app:1.0", "my-app:2.0", "nginx:latest"] {
            let (name, tag) = image.split_once(':').expect("images have tags");
            let from = format!("oci:{}/{name}_{tag}:{tag}", images.display());
            let to = format!("docker://{registry}/library/{image}");
            let output = Command::new("skopeo")
                .args(["copy", "-q", "--dest-tls-verify=false", &from, &to])
                .output()
                .expect("start skopeo");
            assert!(
                output.status.success(),
                "push {image}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    /// `barge dev down`; answers what it printed.
    pub fn down(&self) -> String {
        self.barge(&["dev", "down", "--dir", self.path()])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        let output = self.try_barge(&["dev", "down", "--dir", self.path()]);
        if !output.status.success() {
            eprintln!("dev down: {}", String::from_utf8_lossy(&output.stderr));
        }
        println!("[{}] {:.1} s", self.name, self.born.elapsed().as_secs_f32());
    }
}

impl Cluster {
    /// The last lines of every process, for a test that failed.
    fn show_logs(&self) {
        let Ok(entries) = fs::read_dir(self.dir.path().join("logs")) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("containerd") || name.starts_with("registry") {
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            eprintln!("--- {}", entry.path().display());
            for line in &lines[lines.len().saturating_sub(25)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// Where `deploy/images` of a run by hand puts them.
fn default_images() -> PathBuf {
    let folder = program("barge")
        .ancestors()
        .nth(2)
        .expect("target/release/barge")
        .join("test-images");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images");
    let status = Command::new(script)
        .arg(&folder)
        .args(["my-app:1.0", "my-app:2.0", "nginx:latest"])
        .status();
    assert!(
        status.expect("start deploy/images").success(),
        "deploy/images failed"
    );
    folder
}

fn fetch(mut command: Command, url: &str) -> Result<String, String> {
    let output = command
        .args(["-sS", "-m", "5", url])
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON: {error}: {text}"))
}

/// Whether a pod's Ready condition is true.
#[must_use]
pub fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && pod["status"]["conditions"]
            .as_array()
            .is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            })
}

/// The name of an object.
#[must_use]
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Ends a process at once, and returns when it is gone: until then a supervisor would see it running.
///
/// # Panics
/// When it does not go.
pub fn kill(pid: u32) {
    let status = Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .expect("start kill");
    assert!(status.success(), "kill -9 {pid}");
    eventually("the process is gone", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, words)) = stat.rsplit_once(") ") else {
            return Ok(());
        };
        // proc(5): the first word is the state, the 18th the number of threads. A zombie whose other threads run has its ports.
        let words: Vec<_> = words.split_whitespace().collect();
        match (words.first(), words.get(17)) {
            (Some(&"Z"), Some(&"0" | &"1")) => Ok(()),
            _ => Err(stat),
        }
    });
}
