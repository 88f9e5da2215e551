//! Images of a registry that asks for a password.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use barge_tests::{
    Cluster,
    cluster::{is_ready, kill},
    eventually,
};

/// The password "secret" of "me", as htpasswd keeps it.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Takes the place of the cluster's registry: the same images at the same address, and a password.
struct Guarded(Child);

impl Guarded {
    fn instead(cluster: &Cluster) -> (Self, String) {
        let registry = cluster.layout().registry.unwrap();
        kill(registry.pid);
        eventually("the registry is gone", || {
            match TcpStream::connect(&registry.address) {
                Ok(_) => Err("it listens".to_owned()),
                Err(_) => Ok(()),
            }
        });
        let dir = cluster.dir().join("registry");
        fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             auth:\n  htpasswd:\n    realm: barge\n    path: {}\nhttp:\n  addr: {}\n",
            dir.join("data").display(),
            dir.join("htpasswd").display(),
            registry.address
        );
        fs::write(dir.join("guarded.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("guarded.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let guarded = Self(child);
        eventually("the guarded registry listens", || {
            let connected = TcpStream::connect(&registry.address);
            connected.map(drop).map_err(|error| error.to_string())
        });
        (guarded, registry.address)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pod(name: &str, image: &str, secret: &str) -> String {
    let secrets = match secret {
        "" => String::new(),
        name => format!("imagePullSecrets: [{{name: {name}}}], "),
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{{secrets}terminationGracePeriodSeconds: 1, containers: [{{name: main, image: '{image}', imagePullPolicy: IfNotPresent, \
         command: [sh, -c, 'exec busybox httpd -f -p 8080 -h /www']}}]}}\n"
    )
}

/// Waits until the pod's container waits for its image, for this reason.
fn waits(cluster: &Cluster, pod: &str, part: &str) {
    eventually(&format!("{pod} waits for its image: {part}"), || {
        let pods = cluster.list("pods", &format!("app={pod}"));
        let pod = pods.first().ok_or("no pod")?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        let reason = waiting["reason"].as_str().unwrap_or_default();
        let pulls = ["ErrImagePull", "ImagePullBackOff"].contains(&reason);
        match pulls && message.contains(part) {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
}

#[test]
fn a_private_image_is_for_the_pods_that_have_its_secret() {
    let cluster = Cluster::up("private-images", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    let (guarded, host) = Guarded::instead(&cluster);
    cluster.apply(&pod("nobody", "my-app:1.0", ""));
    waits(&cluster, "nobody", "demands credentials");
    // The Secret comes after the pod: it is not waited for in vain.
    cluster.apply(&pod("mine", "my-app:1.0", "registry"));
    waits(&cluster, "mine", "demands credentials");
    let events = cluster.barge(&["describe", "pod", "mine"]);
    assert!(
        events.contains("FailedToRetrieveImagePullSecret"),
        "{events}"
    );
    let config = serde_json::json!({"auths": {host: {"username": "me", "password": "secret"}}});
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: registry}}\ntype: kubernetes.io/dockerconfigjson\n\
         stringData: {{.dockerconfigjson: '{config}'}}\n"
    ));
    cluster.ready_pods("app=mine", 1);
    let [(_, pid)] = cluster.container_pids(&agent).try_into().unwrap();
    // The image is on the node now, and still not for others.
    cluster.apply(&pod("other", "my-app:1.0", ""));
    waits(&cluster, "other", "a secret that this pod does not have");
    waits(&cluster, "nobody", "a secret that this pod does not have");

    // Neither the registry nor the agent's memory is needed for those that may have it, and nothing that runs ends.
    drop(guarded);
    kill(cluster.layout().agents[0].pid);
    cluster.dev_up(1, 1);
    kill(cluster.layout().registry.unwrap().pid);
    cluster.apply(&pod("again", "my-app:1.0", "registry"));
    let again = cluster.ready_pods("app=again", 1).remove(0);
    assert!(is_ready(&again));
    let pids = cluster.container_pids(&agent);
    assert!(pids.iter().any(|it| it.1 == pid), "{pids:?}");
    assert_eq!(pids.len(), 2, "{pids:?}");
}
