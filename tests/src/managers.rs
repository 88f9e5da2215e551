//! Managers only, each a machine of its own (a network namespace on a bridge that this test made), so that one can be
//! cut off, killed and started again with the same flags.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use barge_client::config::Config;
use tempfile::TempDir;

use crate::{cluster::program, wait::eventually};

mod waits;

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// Some managers of one cluster; everything is ended and removed when dropped.
pub struct Managers {
    dir: TempDir,
    net: u32,
    /// The last number of each one's address.
    hosts: Vec<u8>,
    running: Vec<Option<Child>>,
    /// Where those say that they are that are elsewhere.
    misled: BTreeMap<usize, String>,
}

impl Managers {
    /// Bootstraps one manager and joins the others; returns when all are voters.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up(count: usize) -> Self {
        Self::up_with(count, &[])
    }

    /// As [`Managers::up`], each with further flags.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn up_with(count: usize, flags: &[&str]) -> Self {
        let mut managers = Self::prepare(count);
        managers.form(flags);
        managers
    }

    /// Bootstraps the first manager and joins the others, with further flags for each; returns when all are voters.
    ///
    /// # Panics
    /// When they do not come up.
    pub fn form(&mut self, flags: &[&str]) {
        self.start(0, &[&["--bootstrap"], flags].concat());
        eventually("the first manager answers", || self.try_members());
        let count = self.running.len();
        for index in 1..count {
            let join = self.join_flags(index);
            let join = join.each_ref().map(String::as_str);
            self.start(index, &[&join[..], flags].concat());
        }
        if count == 2 {
            // By itself it would wait for a third one.
            self.promote(1);
        }
        self.wait_for_voters(count);
    }

    /// Starts a manager that joins with a new token.
    pub fn join(&mut self, index: usize) {
        let flags = self.join_flags(index);
        self.start(index, &flags.each_ref().map(String::as_str));
    }

    /// The flags of a manager that joins with a new token.
    #[must_use]
    pub fn join_flags(&self, index: usize) -> [String; 4] {
        let token = self.token("manager");
        let file = self.dir.path().join(format!("token-{index}"));
        fs::write(&file, token).expect("write the token");
        let others: Vec<_> = (0..self.hosts.len())
            .filter(|other| *other != index && self.running[*other].is_some())
            .map(|other| self.address(other))
            .collect();
        let file = file.display().to_string();
        [
            "--join".into(),
            others.join(","),
            "--token-file".into(),
            file,
        ]
    }

    /// Machines without managers.
    #[must_use]
    pub fn prepare(count: usize) -> Self {
        let net = std::process::id() % 1000 * 10 + NETWORKS.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new()
            .prefix("barge-m-")
            .tempdir()
            .expect("make a folder");
        let managers = Self {
            dir,
            net,
            hosts: (11..).take(count).collect(),
            running: (0..count).map(|_| None).collect(),
            misled: BTreeMap::new(),
        };
        let (bridge, gateway) = (managers.bridge(), format!("{}1/24", managers.prefix()));
        run(&["ip", "link", "add", &bridge, "type", "bridge"]);
        run(&["ip", "address", "add", &gateway, "dev", &bridge]);
        run(&["ip", "link", "set", &bridge, "up"]);
        for index in 0..count {
            let (host, netns) = (managers.link(index), managers.netns(index));
            let address = format!("{}{}/24", managers.prefix(), managers.hosts[index]);
            run(&["ip", "netns", "add", &netns]);
            run(&[
                "ip", "link", "add", &host, "type", "veth", "peer", "name", "eth0", "netns", &netns,
            ]);
            run(&["ip", "link", "set", &host, "master", &bridge, "up"]);
            for words in [
                &["address", "add", &address, "dev", "eth0"][..],
                &["link", "set", "eth0", "up"],
                &["link", "set", "lo", "up"],
            ] {
                run(&[&["ip", "-n", &netns], words].concat());
            }
        }
        managers
    }

    fn prefix(&self) -> String {
        format!("10.{}.{}.", 201 + self.net / 250 % 40, self.net % 250)
    }
    fn bridge(&self) -> String {
        format!("bt{}", self.net)
    }
    fn link(&self, index: usize) -> String {
        format!("bt{}-{index}", self.net)
    }
    /// The name of a manager's network namespace.
    #[must_use]
    pub fn netns(&self, index: usize) -> String {
        format!("bt{}-{index}", self.net)
    }

    /// host:port of a manager.
    #[must_use]
    pub fn address(&self, index: usize) -> String {
        format!("{}{}:7100", self.prefix(), self.hosts[index])
    }

    /// Has a manager that is started later advertise this address, or its own again.
    pub fn mislead(&mut self, index: usize, address: Option<&str>) {
        match address {
            Some(address) => self.misled.insert(index, address.to_owned()),
            None => self.misled.remove(&index),
        };
    }

    fn advertised(&self, index: usize) -> String {
        let misled = self.misled.get(&index).cloned();
        misled.unwrap_or_else(|| self.address(index))
    }

    /// Gives a machine another address; what runs on it is not told.
    pub fn move_to_another_address(&mut self, index: usize) {
        let netns = self.netns(index);
        let change = |verb: &str, host: u8| {
            let address = format!("{}{host}/24", self.prefix());
            run(&["ip", "-n", &netns, "address", verb, &address, "dev", "eth0"]);
        };
        change("del", self.hosts[index]);
        change("add", self.hosts[index] + 100);
        self.hosts[index] += 100;
    }

    /// Two machines do not reach each other any more; what reaches both still does.
    pub fn part(&self, one: usize, other: usize) {
        self.routes("add", one, other);
    }

    /// And again they do.
    pub fn unite(&self, one: usize, other: usize) {
        self.routes("del", one, other);
    }

    fn routes(&self, verb: &str, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let to = format!("{}{}/32", self.prefix(), self.hosts[to]);
            run(&[
                "ip",
                "-n",
                &self.netns(from),
                "route",
                verb,
                "blackhole",
                &to,
            ]);
        }
    }

    /// A manager's data folder.
    #[must_use]
    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(index.to_string())
    }

    /// The folder of the test.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The administrator's credential.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.data_dir(0).join("admin.toml")
    }

    /// A credential that reaches only one manager.
    #[must_use]
    pub fn config_for(&self, index: usize) -> PathBuf {
        self.config_of(&[index])
    }

    /// A credential that names these managers, in this order.
    #[must_use]
    pub fn config_of(&self, indexes: &[usize]) -> PathBuf {
        let mut config = Config::load(&self.config()).expect("read the credential");
        config.contexts[0].only_these_managers = true;
        config.contexts[0].managers = indexes.iter().map(|index| self.address(*index)).collect();
        let name = indexes.iter().map(|index| format!("-{index}"));
        let path = self
            .dir
            .path()
            .join(format!("admin{}.toml", name.collect::<String>()));
        config.save(&path).expect("write a credential");
        path
    }

    /// The command that starts a manager, for tests of its errors.
    #[must_use]
    pub fn command(&self, index: usize, flags: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.netns(index)])
            .arg(program("barge-server"))
            .args(["run", "--data-dir"])
            .arg(self.data_dir(index))
            .args(["--advertise", &self.advertised(index)])
            .args(flags)
            .stdin(Stdio::null());
        command
    }

    /// Starts a manager; what it says goes to a file.
    pub fn start(&mut self, index: usize, flags: &[&str]) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("log-{index}")))
            .expect("open a log");
        let mut command = self.command(index, flags);
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        self.running[index] = Some(command.spawn().expect("start a manager"));
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.running[index].take() {
            child.kill().expect("kill a manager");
            child.wait().expect("wait for a manager");
        }
    }

    /// Sends a signal ("-STOP").
    pub fn signal(&self, index: usize, signal: &str) {
        let child = self.running[index].as_ref().expect("it runs");
        run(&["kill", signal, &child.id().to_string()]);
    }

    /// The process of a manager that runs.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self, index: usize) -> u32 {
        self.running[index].as_ref().expect("it runs").id()
    }

    /// SIGTERM, and its end; answers whether it exited with 0.
    pub fn stop(&mut self, index: usize) -> bool {
        let Some(mut child) = self.running[index].take() else {
            return true;
        };
        run(&["kill", "-TERM", &child.id().to_string()]);
        child.wait().expect("wait for a manager").success()
    }

    /// Waits until a manager ends by itself; answers its exit code.
    pub fn exit_code(&mut self, index: usize) -> Option<i32> {
        let mut child = self.running[index].take().expect("it runs");
        let status = eventually("the manager ends", || {
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            ended.ok_or_else(|| "it runs".to_owned())
        });
        status.code()
    }

    /// What a manager has said.
    #[must_use]
    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("log-{index}"))).unwrap_or_default()
    }

    /// Takes a manager's cable away.
    pub fn cut(&self, index: usize) {
        run(&["ip", "link", "set", &self.link(index), "down"]);
    }

    /// Gives it back.
    pub fn heal(&self, index: usize) {
        run(&["ip", "link", "set", &self.link(index), "up"]);
    }

    /// Runs `barge` with the administrator's credential, and the addresses of all managers that run.
    pub fn try_barge(&self, arguments: &[&str]) -> Output {
        let running: Vec<_> = (0..self.hosts.len())
            .filter(|index| self.running[*index].is_some())
            .collect();
        self.try_barge_with(&self.config_of(&running), arguments)
    }

    /// As [`Managers::try_barge`]; answers what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn barge(&self, arguments: &[&str]) -> String {
        let output = self.try_barge(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "barge {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `barge` with another credential.
    pub fn try_barge_with(&self, config: &Path, arguments: &[&str]) -> Output {
        let mut command = self.barge_command(config, arguments);
        command.output().expect("start barge")
    }

    /// `barge` with a credential, not started.
    #[must_use]
    pub fn barge_command(&self, config: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("barge"));
        command
            .args(arguments)
            .env("BARGE_CONFIG", config)
            .stdin(Stdio::null());
        command
    }

    /// A new token.
    ///
    /// # Panics
    /// When none is given.
    #[must_use]
    pub fn token(&self, role: &str) -> String {
        let text = self.barge(&["token", "create", "--role", role]);
        text.split_whitespace()
            .find(|word| word.starts_with("barge1-"))
            .expect("a token")
            .to_owned()
    }

    /// What `barge cluster members` prints.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn try_members(&self) -> Result<String, String> {
        if !self.config().exists() {
            return Err("there is no cluster yet".to_owned());
        }
        let output = self.try_barge(&["cluster", "members"]);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Managers {
    fn drop(&mut self) {
        for index in 0..self.running.len() {
            if std::thread::panicking() {
                let log = fs::read_to_string(self.dir.path().join(format!("log-{index}")))
                    .unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                eprintln!(
                    "--- manager {index}\n{}",
                    lines[lines.len().saturating_sub(25)..].join("\n")
                );
            }
            if let Some(mut child) = self.running[index].take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            let _ = Command::new("ip")
                .args(["netns", "del", &self.netns(index)])
                .status();
            let _ = Command::new("ip")
                .args(["link", "del", &self.link(index)])
                .stderr(Stdio::null())
                .status();
        }
        let _ = Command::new("ip")
            .args(["link", "del", &self.bridge()])
            .status();
    }
}

/// All that a program said.
#[must_use]
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs a command that has to succeed.
///
/// # Panics
/// When it does not.
pub fn run(words: &[&str]) {
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("start a command");
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
