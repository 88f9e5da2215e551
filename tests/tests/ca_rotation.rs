//! The CA is replaced while everything runs: the leader dies in the middle, a node is away, people have credentials elsewhere.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    process::{Child, Output, Stdio},
    time::Duration,
};

use barge_client::{
    Client, ClientOptions,
    config::Config,
    identity::Identity,
    join::{JoinOptions, join},
};
use barge_tests::{Cluster, eventually};
use serde_json::Value;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: steady
spec:
  replicas: 2
  selector:
    matchLabels: {app: steady}
  template:
    metadata:
      labels: {app: steady}
    spec:
      containers:
      - name: main
        image: my-app:1.0
";

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn admin(config: &Path) -> Identity {
    let config = Config::load(config).expect("a credential");
    config.context(None).unwrap().identity().unwrap()
}

/// How the CA is, as `barge cluster status` says it.
fn ca(cluster: &Cluster) -> Value {
    let text = cluster.barge(&["cluster", "status", "-o", "json"]);
    let status: Value = serde_json::from_str(&text).expect("JSON");
    status["ca"].clone()
}

fn barge_as(cluster: &Cluster, config: &Path, arguments: &[&str]) -> Output {
    let mut command = cluster.command(arguments);
    command.env("BARGE_CONFIG", config).output().unwrap()
}

fn token(cluster: &Cluster) -> String {
    let text = cluster.barge(&["token", "create", "--role", "agent", "--uses", "9"]);
    let token = text
        .split_whitespace()
        .find(|word| word.starts_with("barge1-"));
    token.expect("a token").to_owned()
}

/// Joins as a node that never comes.
fn join_as(cluster: &Cluster, token: &str, name: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = JoinOptions {
        managers: admin(cluster.config()).members,
        token: token.parse().unwrap(),
        dir: dir.path().to_owned(),
        address: "192.0.2.200".to_owned(),
        name: name.to_owned(),
        deadline: Duration::from_secs(20),
        previous: None,
        feature_level: 0,
    };
    let joined = runtime.block_on(join(&options));
    joined.map(drop).map_err(|error| error.to_string())
}

/// Ends when it is dropped.
struct Watcher(Child);

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_ca_is_rotated_while_everything_runs() {
    let cluster = Cluster::up("rotate", 3, 1);
    let agent = cluster.layout().agents.remove(0);
    cluster.apply(DEPLOYMENT);
    cluster.ready_pods("app=steady", 2);
    let pids = cluster.container_pids(&agent);
    let file = |name: &str| cluster.dir().join(name);
    for (name, flags) in [("used", &[][..]), ("unused", &[]), ("ci", &["--bearer"])] {
        let out = file(name);
        let path = out.to_str().unwrap();
        let create = ["credential", "create", name, "--admin", "--out", path];
        cluster.barge(&[&create[..], flags].concat());
    }
    let (used, unused, ci) = (file("used"), file("unused"), file("ci"));
    let old = admin(&unused);
    let pinning_the_old = token(&cluster);
    join_as(&cluster, &pinning_the_old, "away").expect("it joins");
    let seen = file("watched");
    let watch = cluster
        .command(&["get", "pods", "-w"])
        .stdout(fs::File::create(&seen).unwrap())
        .stderr(Stdio::null())
        .spawn();
    let mut watch = Watcher(watch.expect("start a watch"));
    eventually("the watch begins", || {
        match fs::read_to_string(&seen).unwrap().contains("steady-") {
            true => Ok(()),
            false => Err("nothing yet".to_owned()),
        }
    });

    // Begun, and the leader dies.
    cluster.barge(&["cluster", "rotate-ca", "--overlap", "0s", "--detach"]);
    cluster.barge(&[
        "dev",
        "kill-leader",
        "--dir",
        cluster.dir().to_str().unwrap(),
    ]);
    eventually("the dead manager is waited for", || {
        let ca = ca(&cluster);
        match ca["missingManagers"].as_array().map(Vec::len) {
            Some(1) => Ok(()),
            _ => Err(ca.to_string()),
        }
    });
    cluster.dev_up(3, 1);

    // Everybody who is there follows; who is away is waited for, and named.
    eventually("all but the node that is away have followed", || {
        let ca = ca(&cluster);
        let there = ca["phase"] == "Renewing"
            && ca["missingManagers"] == Value::Array(vec![])
            && ca["missingNodes"] == serde_json::json!(["away"]);
        match there {
            true => Ok(()),
            false => Err(ca.to_string()),
        }
    });
    let waiting = ["cluster", "rotate-ca", "--timeout", "1s"];
    let waiting = cluster.try_barge(&waiting);
    assert_eq!(waiting.status.code(), Some(1));
    assert!(
        said(&waiting).contains("missing 1 node: away"),
        "{}",
        said(&waiting)
    );

    // What knows only the old CA goes on, and learns.
    join_as(&cluster, &pinning_the_old, "late").expect("an old token is good until the end");
    cluster.barge(&["delete", "node", "late"]);
    for config in [&used, &ci] {
        let answer = barge_as(&cluster, config, &["get", "nodes"]);
        assert!(answer.status.success(), "{}", said(&answer));
    }
    let learned = admin(&used);
    assert_eq!((learned.roots.len(), old.roots.len()), (2, 1));
    assert_ne!(learned.roots[0], old.roots[0], "the new one signs");

    // The end.
    let end = cluster.barge(&["cluster", "rotate-ca", "--force"]);
    assert!(
        end.contains("1 node left behind") && end.contains("away"),
        "{end}"
    );
    cluster.barge(&["delete", "node", "away"]);
    let identities = ["managers/1", "managers/2", "managers/3", "agents/1/data"];
    eventually("nobody trusts the old CA any more", || {
        let holds = |folder: &&str| {
            let folder = cluster.dir().join(folder).join("identity");
            let identity = Identity::load(&folder).ok().flatten();
            identity.is_none_or(|identity| identity.roots != learned.roots[..1])
        };
        match identities.iter().find(|folder| holds(folder)) {
            None => Ok(()),
            Some(folder) => Err((*folder).to_owned()),
        }
    });

    // Nothing was restarted, and the watch goes on.
    cluster.ready_pods("app=steady", 2);
    assert_eq!(cluster.container_pids(&agent), pids);
    assert_eq!(cluster.layout().agents[0].pid, agent.pid);
    let before = fs::read_to_string(&seen).unwrap().len();
    cluster.barge(&["scale", "deployment/steady", "--replicas", "1"]);
    eventually("the watch shows the change", || {
        assert!(watch.0.try_wait().unwrap().is_none(), "the watch ended");
        match fs::read_to_string(&seen).unwrap().len() > before {
            true => Ok(()),
            false => Err("nothing new".to_owned()),
        }
    });

    // Who followed is let in, who did not is refused on both sides, with a sentence.
    for config in [&used, &ci] {
        let answer = barge_as(&cluster, config, &["get", "nodes"]);
        assert!(answer.status.success(), "{}", said(&answer));
    }
    let refused = barge_as(&cluster, &unused, &["get", "nodes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("CA was rotated"),
        "{}",
        said(&refused)
    );
    let stale = Identity {
        roots: learned.roots[..1].to_vec(),
        ..old
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(async {
        let client = Client::new(&stale, &stale.members, ClientOptions::default());
        client.unwrap().members().await
    });
    assert!(answer.is_err(), "a certificate of the old CA was taken");
    let refused = join_as(&cluster, &pinning_the_old, "never").unwrap_err();
    assert!(refused.contains("make another token"), "{refused}");
    let again = cluster.barge(&["cluster", "rotate-ca"]);
    assert!(
        again.contains("was rotated") && again.contains("--again"),
        "{again}"
    );
}
