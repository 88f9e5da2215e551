//! Certificates that live for seconds: renewed while everything goes on, and the ways back after an expiry.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{path::Path, process::Output, time::SystemTime};

use barge_client::{config::Config, identity::Identity};
use barge_tests::{Cluster, Managers, eventually};

const LIFETIME: &str = "20s";

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn identity(folder: &Path) -> Identity {
    Identity::load(&folder.join("identity"))
        .expect("a readable identity")
        .expect("an identity")
}

fn admin(config: &Path) -> Identity {
    let config = Config::load(config).expect("a credential");
    config.context(None).unwrap().identity().unwrap()
}

fn has_expired(identity: &Identity) -> bool {
    identity.validity().unwrap().until < SystemTime::now()
}

/// Waits until a certificate has ended.
fn wait_for_expiry(identity: &Identity) {
    eventually("the certificate expires", || match has_expired(identity) {
        true => Ok(()),
        false => Err(format!("{:?}", identity.validity())),
    });
}

#[test]
fn managers_and_admins_renew_while_writes_go_on_and_one_comes_back_after_its_expiry() {
    let lifetime = ["--certificate-lifetime", LIFETIME];
    let mut managers = Managers::up_with(3, &lifetime);
    managers.wait_until_caught_up();
    // The first one stays: the credential in its folder, which is renewed in place, reaches that one.
    let absent = (1..3).find(|index| *index != managers.leader()).unwrap();
    assert!(managers.stop(absent), "it stops when it is asked to");
    let old = identity(&managers.data_dir(absent));
    let before: Vec<_> = (0..3)
        .filter(|index| *index != absent)
        .map(|index| (index, identity(&managers.data_dir(index))))
        .collect();
    let config = managers.config();
    let first = admin(&config);

    // Everybody's certificate ends and is followed by another, and no command fails.
    let mut writes = 0;
    eventually("all have another certificate", || {
        writes += 1;
        let file = managers.dir().join("namespace.yaml");
        let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n-{writes}\n");
        std::fs::write(&file, manifest).expect("write a manifest");
        let file = file.to_str().expect("a plain path");
        let applied = managers.try_barge_with(&config, &["apply", "-f", file]);
        assert!(applied.status.success(), "{}", said(&applied));
        let renewed = before.iter().all(|(index, before)| {
            let now = identity(&managers.data_dir(*index));
            now.chain != before.chain && now.key != before.key && has_expired(before)
        });
        match renewed && has_expired(&first) && has_expired(&old) {
            true => Ok(()),
            false => Err(format!("{writes} writes")),
        }
    });
    let now = admin(&config);
    assert!(now.uid == first.uid && now.key != first.key);

    // The one that was away has a certificate that nobody takes any more, and signs itself another.
    managers.start(absent, &lifetime);
    managers.wait_until_caught_up();
    assert_ne!(identity(&managers.data_dir(absent)).chain, old.chain);

    // A credential that was not used in time says what is wrong.
    let unused = managers.dir().join("unused.toml");
    std::fs::copy(&config, &unused).expect("copy the credential");
    wait_for_expiry(&admin(&unused));
    let refused = managers.try_barge_with(&unused, &["get", "nodes"]);
    assert_eq!(refused.status.code(), Some(1));
    for word in ["certificate is valid from", "this machine's clock says"] {
        assert!(said(&refused).contains(word), "{}", said(&refused));
    }
}

#[test]
fn an_agent_renews_and_comes_back_after_an_expiry_as_the_same_node() {
    let cluster = Cluster::up_with("expiry", 1, 1, &["--certificate-lifetime", LIFETIME]);
    let agent = cluster.layout().agents.remove(0);
    let folder = cluster.dir().join("agents/1/data");
    cluster.apply(
        "apiVersion: apps/v1
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
",
    );
    cluster.ready_pods("app=steady", 2);
    let pids = cluster.container_pids(&agent);
    let first = identity(&folder);
    eventually("the agent has renewed", || {
        // Keeps the administrator's credential alive, too.
        cluster.barge(&["get", "nodes"]);
        match identity(&folder).chain != first.chain && has_expired(&first) {
            true => Ok(()),
            false => Err(format!("{:?}", first.validity())),
        }
    });
    assert_eq!(
        cluster.layout().agents[0].pid,
        agent.pid,
        "the same process"
    );

    // Away for longer than its certificate lives; `dev up` gives it a new token.
    let killed = std::process::Command::new("kill")
        .args(["-9", &agent.pid.to_string()])
        .status();
    assert!(killed.expect("start kill").success());
    let last = identity(&folder);
    eventually("its certificate has expired", || {
        cluster.barge(&["get", "nodes"]);
        match has_expired(&last) {
            true => Ok(()),
            false => Err(format!("{:?}", last.validity())),
        }
    });
    assert_eq!(cluster.container_pids(&agent), pids, "they run on");
    cluster.dev_up(1, 1);
    cluster.ready_pods("app=steady", 2);
    assert_eq!(identity(&folder).uid, first.uid, "the same node");
    assert_ne!(identity(&folder).chain, last.chain);
}
