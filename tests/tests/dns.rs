//! Names: pods find Services, and what others know, also while the rest of the cluster is away.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use barge_tests::{
    Cluster,
    cluster::{Agent, kill, name},
    eventually,
};
use nix::sched::{CloneFlags, setns};

/// Where nodes answer.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
/// Where the test answers what the node's own name server would.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// What it says.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// Types of records.
const A: u16 = 1;
const AAAA: u16 = 28;
/// Codes of answers.
const THERE: u8 = 0;
const FAILURE: u8 = 2;
const NO_NAME: u8 = 3;

const MANIFEST: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: my-app:1.0}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      hostname: db-0
      subdomain: db
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: my-app:1.0}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: http, port: 8080}]
";

/// Does something in a network namespace.
fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(netns).expect("open a network namespace");
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&netns, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
            work()
        });
        inside.join().expect("the work inside ends")
    })
}

/// The code and the addresses that a name server answers; an error when nothing comes within a second.
fn ask(
    netns: &Path,
    server: Ipv4Addr,
    name: &str,
    kind: u16,
) -> Result<(u8, Vec<Ipv4Addr>), String> {
    let mut query = vec![0x42, 0x17, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    let answer = within(netns, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(SocketAddr::from((server, 53)))?;
        socket.send(&query)?;
        let mut answer = vec![0; 2048];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        std::io::Result::Ok(answer)
    });
    let answer = answer.map_err(|error| format!("{name} at {server}: {error}"))?;
    assert_eq!(answer[..2], query[..2]);
    let mut addresses = Vec::new();
    let mut rest = &answer[query.len()..];
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        // Names in answers of this server are pointers, or the same name again.
        let skip = match rest[0] & 0xc0 {
            0xc0 => 2,
            _ => rest.iter().position(|byte| *byte == 0).unwrap() + 1,
        };
        let length = usize::from(u16::from_be_bytes([rest[skip + 8], rest[skip + 9]]));
        let data = &rest[skip + 10..skip + 10 + length];
        if let (true, &[a, b, c, d]) = (kind == A, data) {
            addresses.push(Ipv4Addr::new(a, b, c, d));
        }
        rest = &rest[skip + 10 + length..];
    }
    addresses.sort();
    Ok((answer[3] & 0x0f, addresses))
}

/// A name server of the test's in the node's network: it knows `www.example.com`, and fails for all below `broken.example`.
fn answer_as_others(netns: &Path) {
    let socket = within(netns, || UdpSocket::bind((OTHER, 53)).expect("listen"));
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let end = 12
                + buffer[12..length]
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap()
                + 5;
            let mut answer = buffer[..end].to_vec();
            let asked = String::from_utf8_lossy(&buffer[12..end]).to_lowercase();
            let kind = u16::from_be_bytes([buffer[end - 4], buffer[end - 3]]);
            let is_there = asked.starts_with("\u{3}www\u{7}example\u{3}com\0") && kind == A;
            let code = match (is_there, asked.contains("\u{6}broken\u{7}example\0")) {
                (true, _) => THERE,
                (_, true) => FAILURE,
                // The root has servers.
                _ if buffer[12] == 0 => THERE,
                _ => NO_NAME,
            };
            answer[2..12].copy_from_slice(&[
                0x81,
                0x80 | code,
                0,
                1,
                0,
                u8::from(is_there),
                0,
                0,
                0,
                0,
            ]);
            if is_there {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(ADDRESS.octets());
            }
            let _ = socket.send_to(&answer, client);
        }
    });
}

/// An agent that the test started; it ends before the cluster is taken down.
struct Own(Child);

impl Own {
    /// Ends an agent, and starts it again with a file that names its name servers.
    fn instead_of(agent: &Agent, resolv_conf: &Path, log: &Path) -> Self {
        let words = fs::read(format!("/proc/{}/cmdline", agent.pid)).unwrap();
        let words = String::from_utf8(words).unwrap();
        let words: Vec<_> = words.trim_end_matches('\0').split('\0').collect();
        kill(agent.pid);
        let log = File::create(log).unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net={}", agent.netns.display()))
            .args(words)
            .arg("--resolv-conf")
            .arg(resolv_conf)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("start an agent");
        Self(child)
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.end();
    }
}

/// The process that answers for names on the cluster's only node.
fn name_server(cluster: &Cluster) -> Result<u32, String> {
    let output = Command::new("pgrep")
        .arg("-f")
        .arg(format!("barge-agent dns .*{}", cluster.dir().display()))
        .output()
        .expect("start pgrep");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pid = text.lines().next().and_then(|line| line.parse().ok());
    pid.ok_or_else(|| "there is no name server".to_owned())
}

/// How long it takes until a name is there.
fn until_answered(netns: &Path, name: &str) -> Duration {
    let begin = Instant::now();
    eventually(&format!("{name} is answered"), || {
        match ask(netns, SERVICE, name, A)? {
            (THERE, addresses) if !addresses.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    begin.elapsed()
}

/// What a program with glibc finds in the pod's network, by the pod's own resolv.conf.
fn glibc(netns: &Path, resolv_conf: &Path, name: &str) -> Result<String, String> {
    let script = "mount --bind \"$1\" /etc/resolv.conf && exec getent ahostsv4 \"$2\"";
    let output = Command::new("nsenter")
        .arg(format!("--net={}", netns.display()))
        .args(["unshare", "--mount", "sh", "-c", script, "sh"])
        .arg(resolv_conf)
        .arg(name)
        .output()
        .expect("start getent");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

#[test]
fn names_are_answered_on_every_node_also_while_others_are_away() {
    let cluster = Cluster::up("dns", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    let resolv_conf = cluster.write(
        "resolv.conf",
        &format!("search . broken.example\nnameserver {OTHER}\n"),
    );
    answer_as_others(&agent.netns);
    let log = cluster.dir().join("logs/agent-own.log");
    let mut own = Own::instead_of(&agent, &resolv_conf, &log);
    let node = agent.netns.as_path();
    // From the node itself, at both addresses, and with the name of the server's own Service.
    for server in [SERVICE, LINK_LOCAL] {
        eventually("the node answers", || {
            match ask(node, server, "kube-dns.kube-system.svc.cluster.local", A)? {
                (THERE, addresses) if addresses == [SERVICE] => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let service = cluster.barge(&[
        "get",
        "service",
        "kube-dns",
        "-n",
        "kube-system",
        "-o",
        "json",
    ]);
    assert!(service.contains("\"10.96.0.10\""), "{service}");

    cluster.apply(MANIFEST);
    let web = cluster.ready_pods("app=web", 2);
    let db = cluster.ready_pods("app=db", 1).remove(0);
    let (client, uid) = (name(&web[0]), web[0]["metadata"]["uid"].as_str().unwrap());
    let data = cluster.dir().join("agents/1/data");
    let pod = data.join("run/netns").join(uid);
    let etc: PathBuf = data.join("pods").join(uid).join("etc/resolv.conf");
    let text = cluster.barge(&["exec", client, "--", "cat", "/etc/resolv.conf"]);
    assert_eq!(
        text,
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local broken.example\noptions ndots:5\n"
    );

    // What there is, from a pod.
    let address = cluster.get("service", "web")["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let of_db = db["status"]["podIP"].as_str().unwrap().parse().unwrap();
    for (asked, found) in [
        ("web.default.svc.cluster.local", vec![address]),
        ("WEB.default.svc.Cluster.Local", vec![address]),
        ("db.default.svc.cluster.local", vec![of_db]),
        ("db-0.db.default.svc.cluster.local", vec![of_db]),
        ("www.example.com", vec![ADDRESS]),
    ] {
        eventually(&format!("{asked} is answered"), || {
            match ask(&pod, SERVICE, asked, A)? {
                (THERE, addresses) if addresses == found => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let code = |asked: &str, kind| ask(&pod, SERVICE, asked, kind).expect("an answer").0;
    assert_eq!(code("web.default.svc.cluster.local", AAAA), THERE);
    for kind in [A, AAAA] {
        assert_eq!(code("nobody.default.svc.cluster.local", kind), NO_NAME);
        assert_eq!(
            code("www.example.com.default.svc.cluster.local", kind),
            NO_NAME
        );
        assert_eq!(code("www.example.com.broken.example", kind), NO_NAME);
    }
    // As programs ask: short names, and others past the node's odd search list.
    for (asked, found) in [
        ("web", address),
        ("web.default", address),
        ("db-0.db", of_db),
        ("www.example.com", ADDRESS),
    ] {
        let answer = glibc(&pod, &etc, asked).unwrap();
        assert!(answer.contains(&format!("{found} ")), "{asked}: {answer}");
    }
    let page = cluster.barge(&[
        "exec",
        client,
        "--",
        "nslookup",
        "web.default.svc.cluster.local",
    ]);
    assert!(page.contains(&address.to_string()), "{page}");

    // A name of endpoints goes with its pod, and comes with the next one.
    cluster.barge(&["delete", "pod", name(&db)]);
    let next = eventually("another pod is ready", || {
        let pods = cluster.list("pods", "app=db");
        let next = pods
            .iter()
            .find(|it| it["metadata"]["uid"] != db["metadata"]["uid"]);
        let next = next.filter(|it| barge_tests::cluster::is_ready(it));
        let ip = next.and_then(|it| it["status"]["podIP"].as_str());
        ip.map(str::to_owned).ok_or_else(|| "not yet".to_owned())
    });
    let next: Ipv4Addr = next.parse().unwrap();
    let begin = Instant::now();
    eventually("the name leads to the other pod", || {
        match ask(&pod, SERVICE, "db-0.db.default.svc.cluster.local", A)? {
            (THERE, addresses) if addresses == [next] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    println!(
        "a change of endpoints was there after {:?}",
        begin.elapsed()
    );

    // The process is killed, and again while control is away.
    let containers = cluster.container_pids(&agent);
    let killed = name_server(&cluster).unwrap();
    kill(killed);
    let took = until_answered(&pod, "web.default.svc.cluster.local");
    println!("answered {took:?} after the name server was killed");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_ne!(name_server(&cluster), Ok(killed));
    own.end();
    for manager in cluster.layout().managers {
        kill(manager.pid);
    }
    for asked in [
        "web.default.svc.cluster.local",
        "db.default.svc.cluster.local",
        "www.example.com",
    ] {
        let (code, addresses) = ask(&pod, SERVICE, asked, A).expect("an answer without control");
        assert_eq!((code, addresses.len()), (THERE, 1), "{asked}");
    }
    assert_eq!(cluster.container_pids(&agent), containers);
}
