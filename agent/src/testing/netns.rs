//! Network namespaces that live as long as a test: a thread in each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use tokio_util::sync::CancellationToken;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace. Needs root.
pub struct Space {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Space {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace: are you root?");
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let space = Self {
            jobs,
            thread: is_ready.recv().unwrap(),
        };
        space.ip("link set lo up");
        space
    }

    /// Runs something inside.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs
            .send(Box::new(move || {
                // The test may have failed meanwhile.
                let _ = done.send(work());
            }))
            .unwrap();
        result.recv().expect("what ran inside panicked")
    }

    /// Runs something asynchronous inside, on one thread: what it opens and starts is inside, too.
    pub fn block_on<F>(&self, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(work)
        })
    }

    /// Runs something asynchronous inside, on a thread of its own, until it is told to stop.
    pub fn spawn<F>(&self, work: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Running
    where
        F: Future<Output = ()>,
    {
        let inside = File::open(self.path()).unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            setns(inside, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(work(stopped));
        });
        Running {
            stop,
            thread: Some(thread),
        }
    }

    /// Runs a program inside and answers what it prints.
    pub fn sh(&self, program: &str, arguments: &str) -> String {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        self.run(move || {
            let output = command.output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{command:?}: {error}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// The same, whatever comes of it.
    pub fn try_ip(&self, arguments: &str) -> String {
        let mut command = Command::new("ip");
        command.args(arguments.split_whitespace());
        let output = self.run(move || command.output().unwrap());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.sh("ip", arguments)
    }

    /// A cable to another space, as a port of a bridge here.
    pub fn plug(&self, bridge: &str, other: &Self, name: &str, address: &str) {
        let inside = other.thread;
        self.ip(&format!(
            "link add {name} type veth peer name eth0 netns {inside}"
        ));
        self.ip(&format!("link set {name} master {bridge} up"));
        self.ip(&format!("link set {name} type bridge_slave hairpin on"));
        other.ip(&format!("address add {address} dev eth0"));
        other.ip("link set eth0 up");
    }

    /// Has `nft` do this inside, given as one argument.
    pub fn nft(&self, command: &str) {
        let mut nft = Command::new("nft");
        nft.arg(command);
        self.run(move || assert!(nft.status().unwrap().success()));
    }

    /// A cable to another space; each end has a name and an address.
    pub fn cable(&self, own: (&str, &str), other: &Self, its: (&str, &str)) {
        let inside = other.thread;
        self.ip(&format!(
            "link add {} type veth peer name {} netns {inside}",
            own.0, its.0
        ));
        for (space, (name, address)) in [(self, own), (other, its)] {
            space.ip(&format!("address add {address} dev {name}"));
            space.ip(&format!("link set {name} up"));
        }
    }

    /// Where the namespace is.
    pub fn path(&self) -> std::path::PathBuf {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.thread).into()
    }

    /// Has the agent's own code wire a pod here, with this address.
    pub fn wire(&self, pod: &Self, address: &str) {
        let (netns, address) = (pod.path(), address.parse().unwrap());
        self.run(move || crate::runtime::attach_pod(&netns, address, 1450))
            .unwrap();
    }

    pub fn bridge(&self, name: &str, address: &str) {
        self.ip(&format!("link add {name} type bridge"));
        self.ip(&format!("address add {address} dev {name}"));
        self.ip(&format!("link set {name} up"));
    }

    /// Answers each connection with a name and the client's address, then echoes.
    pub fn serve(&self, port: u16, name: &'static str) {
        self.serve_at(&format!("0.0.0.0:{port}"), name);
    }

    pub fn serve_at(&self, address: &str, name: &'static str) {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.run(move || TcpListener::bind(address).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap().ip();
                    writeln!(stream, "{name} {peer}").unwrap();
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
    }

    /// Connects and answers who served, and as whom it saw the client.
    pub fn ask(&self, address: &str) -> std::io::Result<(String, IpAddr)> {
        let mut connection = self.connect(address)?;
        let line = connection.line();
        let (name, peer) = line.split_once(' ').unwrap();
        Ok((name.to_owned(), peer.parse().unwrap()))
    }

    pub fn connect(&self, address: &str) -> std::io::Result<Connection> {
        let address: SocketAddr = address.parse().unwrap();
        let limit = Duration::from_secs(20);
        let stream = self.run(move || TcpStream::connect_timeout(&address, limit))?;
        stream.set_read_timeout(Some(limit)).unwrap();
        Ok(Connection(stream))
    }
}

/// What runs inside, until this is dropped.
pub struct Running {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// An open connection to what `serve` serves.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            self.0.read_exact(&mut byte).unwrap();
            if byte == *b"\n" {
                return String::from_utf8(line).unwrap();
            }
            line.extend(byte);
        }
    }

    pub fn echoes(&mut self) -> bool {
        let mut byte = [0];
        self.0.write_all(b"x").is_ok() && self.0.read_exact(&mut byte).is_ok() && byte == *b"x"
    }
}
