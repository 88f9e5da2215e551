//! Pods of three machines: two on a link, and one behind a router whose leg to it is narrow and which tells nobody.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use barge_tests::{
    Cluster,
    cluster::{Agent, kill},
    eventually,
    managers::run,
};

/// Ten times the promise of a second.
const HEALED: Duration = Duration::from_secs(10);
/// What a pod serves, in bytes.
const BODY: usize = 64 << 10;

fn manifest() -> String {
    let pod = |number: usize| {
        format!(
            "apiVersion: v1
kind: Pod
metadata:
  name: pod-{number}
  labels: {{app: net, number: '{number}'}}
spec:
  nodeSelector: {{kubernetes.io/hostname: node-{number}}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: my-app:1.0
    command: [sh, -c, 'busybox dd if=/dev/zero of=/www/big bs=1024 count=64; exec busybox httpd -f -p 8080 -h /www']
---
apiVersion: v1
kind: Service
metadata:
  name: service-{number}
spec:
  selector: {{app: net, number: '{number}'}}
  ports:
  - {{port: 80, targetPort: 8080}}
---
"
        )
    };
    (1..=3).map(pod).collect()
}

/// A router in a network namespace of its own; it goes with this.
struct Router(PathBuf);

impl Router {
    /// Takes the machine off the cluster's link and puts it behind a router. It keeps its address.
    fn between(cluster: &Cluster, machine: &Agent) -> Self {
        let netns = cluster.dir().join("router");
        let file = netns.to_str().expect("a plain path").to_owned();
        fs::File::create(&netns).unwrap();
        run(&["unshare", &format!("--net={file}"), "true"]);
        let router = Self(netns);
        let (network, _) = machine.address.rsplit_once('.').expect("an IPv4 address");
        let (address, near) = (machine.address.clone(), format!("{network}.250"));
        let bridge = Self::bridge(network);
        let cable = format!("{bridge}r");
        run(&[
            "ip", "link", "add", &cable, "type", "veth", "peer", "name", "near", "netns", &file,
        ]);
        run(&["ip", "link", "set", &cable, "master", &bridge, "up"]);
        // The machine's own cable goes, and the one to the router comes.
        machine.inside(&["ip", "link", "del", "eth0"]);
        let inside = machine.netns.to_str().expect("a plain path");
        router.inside(&[
            "ip", "link", "add", "far", "mtu", "1400", "type", "veth", "peer", "name", "eth0",
            "mtu", "1400", "netns", inside,
        ]);
        for words in [
            &["address", "add", &format!("{near}/24"), "dev", "near"][..],
            &["address", "add", "169.254.77.1/32", "dev", "far"],
            &["link", "set", "near", "up"],
            &["link", "set", "far", "up"],
            &["route", "add", &format!("{address}/32"), "dev", "far"],
        ] {
            router.inside(&[&["ip"][..], words].concat());
        }
        for words in [
            &["address", "add", &format!("{address}/32"), "dev", "eth0"][..],
            &["link", "set", "eth0", "up"],
            &["route", "add", "169.254.77.1/32", "dev", "eth0"],
            &["route", "add", "default", "via", "169.254.77.1"],
        ] {
            machine.inside(&[&["ip"][..], words].concat());
        }
        router.inside(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        // Nobody is told that a packet is too large, and no pod's goes this way by itself.
        let silent = "table inet r { chain o { type filter hook output priority 0; icmp type destination-unreachable drop; }; \
                      chain f { type filter hook forward priority 0; icmp type destination-unreachable drop; ip saddr 10.244.0.0/16 drop; }; }";
        router.inside(&["nft", silent]);
        let way = ["ip", "route", "add", &format!("{address}/32"), "via", &near];
        run(&way);
        for other in cluster.layout().agents {
            if other.address != address {
                other.inside(&way);
            }
        }
        router
    }

    /// The bridge of the cluster's link.
    fn bridge(network: &str) -> String {
        let output = Command::new("ip")
            .args(["-o", "-4", "address"])
            .output()
            .expect("start ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let gateway = format!(" {network}.1/24 ");
        let line = text.lines().find(|line| line.contains(&gateway));
        let name = line.and_then(|line| line.split_whitespace().nth(1));
        name.expect("the cluster's bridge").to_owned()
    }

    fn inside(&self, words: &[&str]) {
        let netns = format!("--net={}", self.0.display());
        run(&[&["nsenter", &netns], words].concat());
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = fs::remove_file(&self.0);
    }
}

/// An agent in the place of one that was killed. `barge dev up` would give the machine behind the router its old cable again.
struct Restarted(Child);

impl Restarted {
    fn kill(agent: &Agent) -> Self {
        let words = fs::read(format!("/proc/{}/cmdline", agent.pid)).unwrap();
        let words = String::from_utf8(words).unwrap();
        kill(agent.pid);
        let child = Command::new("nsenter")
            .arg(format!("--net={}", agent.netns.display()))
            .args(words.split_terminator('\0'))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("start the agent"))
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        kill(self.0.id());
        let _ = self.0.wait();
    }
}

/// Begins to fetch from inside a pod's network namespace.
fn begin(pid: u32, options: &[&str], url: &str) -> Child {
    Command::new("nsenter")
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .args(["curl", "-sS", "-m", "60"])
        .args(options)
        .arg(url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start nsenter")
}

fn whole(child: Child) -> Result<(), String> {
    let output = child.wait_with_output().expect("wait for curl");
    match output.status.success() && output.stdout.len() == BODY {
        true => Ok(()),
        false => Err(format!(
            "{} bytes; {}",
            output.stdout.len(),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn route(machine: &Agent, to: &str) -> String {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", machine.netns.display()))
        .args(["ip", "route", "get", to])
        .output()
        .expect("start nsenter");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn pods_of_machines_on_a_link_and_behind_a_router_reach_each_other() {
    let cluster = Cluster::up("between", 1, 3);
    let agents = cluster.layout().agents;
    let _router = Router::between(&cluster, &agents[2]);
    cluster.apply(&manifest());
    let pods = cluster.ready_pods("app=net", 3);
    let ip = |number: usize| {
        let node = format!("node-{number}");
        let mut all = pods.iter();
        let pod = all.find(|pod| pod["spec"]["nodeName"] == node);
        let ip = pod.expect("one on each node")["status"]["podIP"].as_str();
        ip.expect("an address").to_owned()
    };
    let pid = |number: usize| cluster.container_pids(&agents[number - 1])[0].1;
    for (from, to, way) in [
        (1, 2, "via "),
        (2, 1, "via "),
        (1, 3, "dev barge-vx"),
        (2, 3, "dev barge-vx"),
        (3, 1, "dev barge-vx"),
        (3, 2, "dev barge-vx"),
    ] {
        eventually("the way that fits", || {
            let route = route(&agents[from - 1], &ip(to));
            let is_direct = route.contains(&format!("via {}", agents[to - 1].address));
            match route.contains(way) && is_direct == (way == "via ") {
                true => Ok(()),
                false => Err(route),
            }
        });
        let url = format!("http://{}:8080/big", ip(to));
        eventually("a whole body", || whole(begin(pid(from), &[], &url)));
        let service = cluster.get("service", &format!("service-{to}"));
        let address = service["spec"]["clusterIP"]
            .as_str()
            .expect("an address")
            .to_owned();
        let url = format!("http://{address}/big");
        eventually("a whole body of the Service", || {
            whole(begin(pid(from), &[], &url))
        });
        let page = cluster.fetch_on(&agents[from - 1], &url);
        assert_eq!(page.map(|page| page.len()), Ok(BODY), "from the machine");
    }

    // The agent dies and another comes while a connection is open.
    let url = format!("http://{}:8080/big", ip(3));
    let slow = begin(pid(1), &["--limit-rate", "8k"], &url);
    sleep(Duration::from_secs(1));
    let _agent = Restarted::kill(&agents[0]);
    whole(slow).expect("it goes on");

    // Somebody removes the interface.
    eventually("the agent is at work again", || {
        let nodes = cluster.barge(&["get", "nodes"]);
        match nodes.contains("NotReady") {
            true => Err(nodes),
            false => Ok(()),
        }
    });
    agents[0].inside(&["ip", "link", "del", "barge-vx"]);
    let gone = Instant::now();
    while whole(begin(pid(1), &["--connect-timeout", "1"], &url)).is_err() {
        assert!(gone.elapsed() < HEALED, "it is not back");
    }
    eventually("an event", || {
        let events = cluster.barge(&["get", "events", "-A"]);
        match events.contains("PodNetworkRestored") {
            true => Ok(()),
            false => Err(events),
        }
    });
}
