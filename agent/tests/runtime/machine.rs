//! A machine of its own for each test: a network namespace, a containerd, a registry, a data folder.

use std::{
    fs,
    future::Future,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use barge_agent::runtime::{Options, Paths, PullSecrets, Registry, containerd::Containerd};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Decides when a test gives up, never whether something was fast.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// The range of the machine's pods.
pub const RANGE: &str = "10.88.7.0/24";

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Machine {
    folder: tempfile::TempDir,
    name: String,
    containerd: Mutex<Option<Child>>,
    registry: Option<Child>,
}

/// Runs a test on a machine of its own, and takes that down whatever happens.
pub fn on_a_machine<F: Future<Output = ()>>(test: impl FnOnce(Arc<Machine>) -> F + Send) {
    let body = move || {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        run("ip", &["link", "set", "lo", "up"]);
        // A node has an address, by which it reaches its pods.
        run("ip", &["address", "add", "198.51.100.1/32", "dev", "lo"]);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        // Threads and processes made from here on are in the namespace too.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let machine = Arc::new(Machine::start());
        runtime.block_on(test(Arc::clone(&machine)));
    };
    let ended = thread::scope(|scope| scope.spawn(body).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// What a pod without pull secrets brings.
pub fn nobody() -> &'static PullSecrets {
    static NOBODY: LazyLock<PullSecrets> = LazyLock::new(PullSecrets::default);
    &NOBODY
}

/// A process that stands still.
pub struct Stopped(Pid);

impl Stopped {
    /// Stops it, until this is dropped.
    pub fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

impl Machine {
    fn start() -> Self {
        let name = format!(
            "barge-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::SeqCst)
        );
        let folder = tempfile::Builder::new().prefix("barge-").tempdir().unwrap();
        let mut machine = Self {
            folder,
            name,
            containerd: Mutex::new(None),
            registry: None,
        };
        machine.write_files();
        machine.start_containerd();
        machine.start_registry();
        machine
    }

    fn write_files(&self) {
        let folder = self.path("");
        let at = |name: &str| self.path(name).display().to_string();
        let containerd = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n",
            at("root"),
            at("state"),
            at("c.sock"),
            at("c.sock.ttrpc")
        );
        fs::write(self.path("containerd.toml"), containerd).unwrap();
        let registry = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:5000\n",
            at("registry")
        );
        fs::write(self.path("registry.yml"), registry).unwrap();
        let carrier = format!(
            "#!/bin/sh\nexec env BARGE_TEST_CARRIER=\"$2\" {} carrier_process --exact --ignored --nocapture\n",
            std::env::current_exe().unwrap().display()
        );
        let script = folder.join("carrier");
        fs::write(&script, carrier).unwrap();
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn start_containerd(&self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("containerd.log"));
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.path("containerd.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .expect("containerd has to be installed");
        *self.containerd.lock().unwrap() = Some(child);
        until("containerd serves", || {
            self.try_ctr(&["version"]).is_some().then_some(())
        });
    }

    fn start_registry(&mut self) {
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(self.path("registry.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry has to be installed");
        self.registry = Some(child);
        until("the registry serves", || {
            std::net::TcpStream::connect("127.0.0.1:5000").ok()
        });
    }

    /// SIGSTOP: whoever asks it something waits. Goes on when the answer is dropped.
    pub fn stop_containerd(&self) -> Stopped {
        let running = self.containerd.lock().unwrap();
        let pid = running.as_ref().expect("running").id();
        Stopped::new(i32::try_from(pid).unwrap())
    }

    /// SIGKILL, as a crash, and started again.
    pub fn crash_containerd(&self) {
        let mut child = self.containerd.lock().unwrap().take().expect("running");
        child.kill().unwrap();
        child.wait().unwrap();
        self.start_containerd();
    }

    /// A file of this machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The name of its containerd namespace and of its control group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The layout of its data folder.
    pub fn paths(&self) -> Paths {
        Paths::new(self.path("data"))
    }

    /// Settings for it, with the registry standing in for docker.io.
    pub fn options(&self) -> Options {
        Options {
            socket: self.path("c.sock"),
            namespace: self.name.clone(),
            cgroup_root: self.name.clone(),
            carrier_command: vec![self.path("carrier").into()],
            pause_command: vec![env!("CARGO_BIN_EXE_barge-agent").into(), "pause".into()],
            registries: vec![Registry {
                host: "docker.io".into(),
                mirrors: vec!["http://127.0.0.1:5000".into()],
                plain_http: true,
                ..Registry::default()
            }],
            ..Options::new(self.path("data")).unwrap()
        }
    }

    /// A control process, as good as new.
    pub fn runtime(&self) -> Containerd {
        Containerd::new(self.options()).unwrap()
    }

    /// containerd's own client, for a look from outside.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        self.try_ctr(arguments)
            .unwrap_or_else(|| panic!("ctr {arguments:?} failed"))
    }

    fn try_ctr(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("ctr")
            .arg("-a")
            .arg(self.path("c.sock"))
            .args(["-n", &self.name])
            .args(arguments)
            .output()
            .expect("ctr has to be installed");
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn kill_rest(&self) {
        let tasks = self.try_ctr(&["task", "ls", "-q"]).unwrap_or_default();
        for task in tasks.lines() {
            self.try_ctr(&["task", "rm", "-f", task]);
        }
        // The carrier's lock names nobody; its socket does.
        if let Some(pid) = carrier_of(&self.paths()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_rest();
        let containerd = self.containerd.lock().unwrap().take();
        for child in [containerd, self.registry.take()].into_iter().flatten() {
            end(child);
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(8).collect();
            eprintln!("containerd said at last: {tail:#?}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for mount in ours.filter(|mount| Path::new(mount).starts_with(self.folder.path())) {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let root = hierarchy.path().join(&self.name);
            let _ = fs::remove_dir(root.join("besteffort"));
            let _ = fs::remove_dir(root);
        }
        let _ = fs::remove_dir(Path::new("/run/containerd/runc").join(&self.name));
    }
}

/// Asks the carrier who it is, without an event loop.
fn carrier_of(paths: &Paths) -> Option<i32> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(paths.carrier_socket()).ok()?;
    stream
        .write_all(b"{\"version\":1,\"op\":\"ping\"}\n")
        .ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let reply: barge_agent::carrier::protocol::Reply = serde_json::from_str(&line).ok()?;
    i32::try_from(reply.pid).ok()
}

fn end(mut child: Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let _ = kill(pid, Signal::SIGTERM);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs a program that has to succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} has to be installed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Polls until there is an answer.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Polls until there is an answer, without holding up others.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = look().await {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
