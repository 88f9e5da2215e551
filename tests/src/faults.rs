//! What goes wrong with machines: they stand still, their cable is pulled, their disk hangs, nobody reads. What is taken away comes
//! back when the value is dropped, so that a test that fails leaves a cluster that can be taken down.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    Cluster,
    cluster::{Agent, Process, kill},
    managers::run,
    wait::eventually,
};

/// Processes that stand still (SIGSTOP). To everybody else they look as after a power cut: connections stay open, nothing is answered.
#[derive(Debug)]
#[must_use]
pub struct Stopped(Vec<u32>);

impl Stopped {
    /// Stops them.
    ///
    /// # Panics
    /// When one of them is gone.
    pub fn new(pids: impl IntoIterator<Item = u32>) -> Self {
        let stopped = Self(pids.into_iter().collect());
        for pid in &stopped.0 {
            run(&["kill", "-STOP", &pid.to_string()]);
        }
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that was killed meanwhile needs no signal.
            let _ = Command::new("kill")
                .args(["-CONT", &pid.to_string()])
                .status();
        }
    }
}

/// A file system that takes no writes: whoever writes to it or syncs hangs, and cannot be killed, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Frozen(PathBuf);

impl Frozen {
    /// Freezes the file system that is mounted there.
    ///
    /// # Panics
    /// When nothing is.
    pub fn new(at: &Path) -> Self {
        run(&["fsfreeze", "-f", &at.display().to_string()]);
        Self(at.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let thawed = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
        if !thawed.is_ok_and(|status| status.success()) {
            eprintln!("{} stays frozen", self.0.display());
        }
    }
}

/// Clients of `barge logs -f` whose output nobody reads.
#[derive(Debug)]
#[must_use]
pub struct Unread(Vec<Child>);

impl Unread {
    /// Starts so many of them for a pod.
    ///
    /// # Panics
    /// When they cannot be started.
    pub fn new(cluster: &Cluster, pod: &str, count: usize) -> Self {
        let client = || {
            let mut command = cluster.command(&["logs", "-f", pod]);
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            command.spawn().expect("start barge logs")
        };
        Self((0..count).map(|_| client()).collect())
    }

    /// How many of them still wait.
    pub fn waiting(&mut self) -> usize {
        let waits = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        self.0.iter_mut().map(waits).filter(|waits| *waits).count()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Agent {
    /// Pulls the machine's cable: nothing comes in, nothing goes out, everything on it runs on.
    ///
    /// # Panics
    /// When it has none.
    pub fn cut(&self) {
        self.inside(&["ip", "link", "set", "eth0", "down"]);
    }

    /// Gives it back.
    ///
    /// # Panics
    /// When it has none.
    pub fn heal(&self) {
        self.inside(&["ip", "link", "set", "eth0", "up"]);
        // It went with the link. The dev cluster's gateway is the first address of its network.
        let (network, _) = self.address.rsplit_once('.').expect("an IPv4 address");
        let gateway = format!("{network}.1");
        self.inside(&["ip", "route", "replace", "default", "via", &gateway]);
    }

    /// The node's name in the cluster.
    #[must_use]
    pub fn node(&self) -> String {
        self.name.replace("agent", "node")
    }

    /// Runs a program in the machine's network.
    ///
    /// # Panics
    /// When it fails.
    pub fn inside(&self, words: &[&str]) {
        let netns = format!("--net={}", self.netns.display());
        run(&[&["nsenter", &netns], words].concat());
    }
}

impl Cluster {
    /// The manager that leads, and the others.
    #[must_use]
    pub fn leader_and_followers(&self) -> (Process, Vec<Process>) {
        let members = eventually("a leader", || self.status());
        let leader = |manager: &Process| {
            let is_it = |member: &&Member| member.leader && member.address == manager.address;
            members.iter().any(|member| is_it(&member))
        };
        let (mut leaders, followers): (Vec<_>, Vec<_>) =
            self.layout().managers.into_iter().partition(leader);
        (leaders.pop().expect("one of ours"), followers)
    }

    /// A follower that agents hold their sessions with. While there is none the leader is killed: its agents find another.
    ///
    /// # Panics
    /// When there never is one.
    #[must_use]
    pub fn follower_with_agents(&self) -> Process {
        eventually("a follower with agents", || {
            let members = self.status()?;
            let layout = self.layout();
            let found = members
                .iter()
                .find(|member| !member.leader && member.sessions > 0);
            if let Some(member) = found {
                let manager = |manager: &&Process| manager.address == member.address;
                return Ok(layout.managers.iter().find(manager).expect("ours").clone());
            }
            let sessions: u64 = members.iter().map(|member| member.sessions).sum();
            if sessions == layout.agents.len() as u64 {
                self.change_leader();
            }
            Err(format!("{members:?}"))
        })
    }

    /// Kills the leader, and starts it again when another one leads.
    pub fn change_leader(&self) {
        let (leader, _) = self.leader_and_followers();
        kill(leader.pid);
        eventually("another manager leads", || {
            let members = self.barge(&["cluster", "members"]);
            let leads = |line: &str| line.contains("leader") && line.contains(':');
            let next = members.lines().find(|line| leads(line));
            next.filter(|line| !line.contains(&leader.address))
                .map(drop)
                .ok_or(members)
        });
        self.restart();
    }

    /// Starts again what died of the cluster, as a supervisor would.
    pub fn restart(&self) {
        let layout = self.layout();
        self.dev_up(layout.managers.len(), layout.agents.len());
    }

    /// All managers, when there is a leader and all of them answer.
    fn status(&self) -> Result<Vec<Member>, String> {
        let output = self.try_barge(&["cluster", "status", "-o", "json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status: serde_json::Value = serde_json::from_str(&text)
            .map_err(|_| text + &String::from_utf8_lossy(&output.stderr))?;
        let members = status["managers"].as_array().ok_or("no managers")?;
        let members = members.iter().map(|member| {
            Some(Member {
                address: member["address"].as_str()?.to_owned(),
                leader: member["leader"].as_bool()?,
                sessions: member["status"]["sessions"].as_u64()?,
            })
        });
        let members: Option<Vec<_>> = members.collect();
        members
            .filter(|all| all.iter().any(|member| member.leader))
            .ok_or_else(|| status.to_string())
    }

    /// Waits until all managers answer, all nodes are Ready and nothing is to be warned of.
    pub fn wait_until_well(&self) {
        eventually("the cluster is well", || {
            let status = self.try_barge(&["cluster", "status"]);
            let status = String::from_utf8_lossy(&status.stdout).into_owned();
            let nodes = self.try_barge(&["get", "nodes"]);
            let nodes = String::from_utf8_lossy(&nodes.stdout).into_owned();
            let well = nodes.contains(" Ready") && !nodes.contains("NotReady");
            match well && status.contains("term") && !status.contains("warning") {
                true => Ok(()),
                false => Err(format!("{status}{nodes}")),
            }
        });
    }
}

/// What the cluster says of a manager.
#[derive(Debug)]
struct Member {
    address: String,
    leader: bool,
    /// Of agents.
    sessions: u64,
}
