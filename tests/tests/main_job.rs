//! The main job: bootstrap and join, deploy, reach the Service, scale, roll, heal, delete, leave nothing behind.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, process::Command};

use barge_tests::{
    Cluster, Machine,
    cluster::{Agent, is_ready, name},
    eventually,
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");

#[test]
fn deploy_reach_scale_roll_heal_and_leave_nothing_behind() {
    let before = Machine::look();
    let cluster = Cluster::up("main_job", 3, 1);
    let agent = cluster.layout().agents.remove(0);

    let again = cluster.dev_up(3, 1);
    assert!(
        again.contains("already"),
        "a second `dev up` says that it runs: {again}"
    );

    deploys_the_examples(&cluster);
    answers_on_every_address(&cluster, &agent);
    shows_what_it_did(&cluster);
    applying_what_is_there_changes_nothing(&cluster);
    scales(&cluster);
    rolls_to_another_image(&cluster);
    replaces_a_killed_container(&cluster, &agent);
    deletes(&cluster, &agent);

    cluster.down();
    assert!(
        cluster.down().contains("nothing"),
        "a second `dev down` says that there is nothing"
    );
    drop(cluster);
    let after = Machine::look();
    assert_eq!(after.differences(&before), Vec::<String>::new());
}

fn deploys_the_examples(cluster: &Cluster) {
    let said = cluster.barge(&["apply", "--wait", "-f", EXAMPLES]);
    assert!(
        said.contains("nginx-deployment") && said.contains("created"),
        "{said}"
    );
    cluster.ready_pods("app=nginx", 3);
    cluster.ready_pods("app=my-app", 3);
}

/// The cluster address from the node, the node port and the load-balancer address from outside; and
/// the cluster address from inside a pod that is itself behind the Service (hairpin).
fn answers_on_every_address(cluster: &Cluster, agent: &Agent) {
    let service = cluster.get("service", "nginx-service");
    let cluster_ip = service["spec"]["clusterIP"]
        .as_str()
        .expect("a cluster address")
        .to_owned();
    let node_port = service["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .expect("a node port");
    let welcome = |page: Result<String, String>| match page {
        Ok(text) if text.contains("Welcome to nginx") => Ok(()),
        Ok(text) => Err(format!("another page: {text}")),
        Err(error) => Err(error),
    };
    eventually("nginx on its cluster address", || {
        welcome(cluster.fetch_on(agent, &format!("http://{cluster_ip}/")))
    });
    eventually("nginx on the node port", || {
        welcome(cluster.fetch(&format!("http://{}:{node_port}/", agent.address)))
    });
    let service = eventually("a load-balancer address", || {
        let service = cluster.get("service", "nginx-service");
        match service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str() {
            Some(ip) => Ok(ip.to_owned()),
            None => Err(service["status"].to_string()),
        }
    });
    assert_eq!(service, agent.address, "the node's own address");
    eventually("nginx on the load-balancer address", || {
        welcome(cluster.fetch(&format!("http://{service}/")))
    });

    // Three times as often as there are endpoints: each pod meets itself with near certainty.
    for pod in cluster.ready_pods("app=nginx", 3) {
        let id = pod["status"]["containerStatuses"][0]["containerID"]
            .as_str()
            .expect("an id")
            .to_owned();
        let id = id.trim_start_matches("containerd://");
        let (_, pid) = cluster
            .container_pids(agent)
            .into_iter()
            .find(|(task, _)| task == id)
            .expect("it runs");
        for _ in 0..9 {
            let mut command = Command::new("nsenter");
            command.args([
                &format!("--net=/proc/{pid}/ns/net"),
                "curl",
                "-sS",
                "-m",
                "5",
            ]);
            let output = command
                .arg(format!("http://{cluster_ip}/"))
                .output()
                .expect("start curl");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                text.contains("Welcome to nginx"),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: nobody\nspec:\n  selector:\n    app: nobody\n  ports:\n  - port: 80\n",
    );
    let nobody = cluster.get("service", "nobody");
    let url = format!(
        "http://{}/",
        nobody["spec"]["clusterIP"]
            .as_str()
            .expect("a cluster address")
    );
    eventually(
        "a Service without endpoints refuses at once",
        || match cluster.fetch_on(agent, &url) {
            Err(why)
                if why.contains("refused")
                    || why.contains("Failed to connect")
                    || why.contains("Couldn't connect") =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        },
    );
}

fn shows_what_it_did(cluster: &Cluster) {
    let wide = cluster.barge(&["get", "pods", "-o", "wide"]);
    assert!(
        wide.contains("Running") && wide.contains("10.244."),
        "{wide}"
    );
    let described = cluster.barge(&["describe", "deployment", "nginx-deployment"]);
    assert!(described.contains("nginx:latest"), "{described}");
    let events = cluster.barge(&["events"]);
    assert!(
        events.contains("ScalingReplicaSet") && events.contains("Started"),
        "{events}"
    );
    let pod = &cluster.ready_pods("app=nginx", 3)[0];
    eventually("the logs show the requests", || {
        let logs = cluster.barge(&["logs", name(pod)]);
        if logs.contains("GET / HTTP/1.1") {
            Ok(())
        } else {
            Err(logs)
        }
    });
    let status = cluster.barge(&["cluster", "status"]);
    assert!(status.contains("leader"), "{status}");
}

fn applying_what_is_there_changes_nothing(cluster: &Cluster) {
    let said = cluster.barge(&["apply", "-f", EXAMPLES]);
    assert!(
        said.contains("unchanged") && !said.contains("configured"),
        "{said}"
    );
    let text = cluster.barge(&["get", "deployment", "nginx-deployment", "-o", "yaml"]);
    let file = cluster.write("round-trip.yaml", &text);
    let said = cluster.barge(&["apply", "-f", file.to_str().expect("a plain path")]);
    assert!(said.contains("unchanged"), "{said}");
}

fn scales(cluster: &Cluster) {
    let template = |deployment: &serde_json::Value| deployment["spec"]["template"].clone();
    let before = template(&cluster.get("deployment", "nginx-deployment"));
    cluster.barge(&["scale", "deployment/nginx-deployment", "--replicas", "5"]);
    cluster.ready_pods("app=nginx", 5);
    cluster.barge(&["scale", "deployment/nginx-deployment", "--replicas", "2"]);
    cluster.ready_pods("app=nginx", 2);
    assert_eq!(
        template(&cluster.get("deployment", "nginx-deployment")),
        before
    );
}

fn rolls_to_another_image(cluster: &Cluster) {
    let manifest = fs::read_to_string(format!("{EXAMPLES}/my-app.yaml")).expect("the example");
    let manifest = manifest.replace("my-app:1.0", "my-app:2.0");
    cluster.apply(&manifest);
    for pod in cluster.ready_pods("app=my-app", 3) {
        assert_eq!(pod["spec"]["containers"][0]["image"], "my-app:2.0");
        let address = pod["status"]["podIP"].as_str().expect("an address");
        let agent = &cluster.layout().agents[0];
        let page = eventually("the new version answers", || {
            cluster.fetch_on(agent, &format!("http://{address}:8080/"))
        });
        assert_eq!(page.trim(), "my-app 2.0");
    }
    // An image that does not exist stops the rollout; what runs goes on.
    let file = cluster.write(
        "missing.yaml",
        &manifest.replace("my-app:2.0", "my-app:missing"),
    );
    cluster.barge(&["apply", "-f", file.to_str().expect("a plain path")]);
    eventually("a reason that people know", || {
        let pods = cluster.barge(&["get", "pods", "-l", "app=my-app"]);
        if pods.contains("ImagePull") {
            Ok(())
        } else {
            Err(pods)
        }
    });
    let serving = cluster
        .list("pods", "app=my-app")
        .iter()
        .filter(|pod| is_ready(pod))
        .count();
    assert!(serving >= 3, "{serving} of 3 serve beside a broken rollout");
    cluster.apply(&manifest);
    cluster.ready_pods("app=my-app", 3);
}

fn replaces_a_killed_container(cluster: &Cluster, agent: &Agent) {
    let pod = cluster.ready_pods("app=my-app", 3).remove(0);
    let id = pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .expect("an id")
        .to_owned();
    let id = id.trim_start_matches("containerd://");
    let (_, pid) = cluster
        .container_pids(agent)
        .into_iter()
        .find(|(task, _)| task == id)
        .expect("it runs");
    assert!(
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .expect("start kill")
            .success()
    );
    eventually("a restarted container", || {
        let now = cluster.get("pod", name(&pod));
        let status = &now["status"]["containerStatuses"][0];
        if status["restartCount"] == 1 && is_ready(&now) {
            assert_eq!(status["lastState"]["terminated"]["exitCode"], 137);
            return Ok(());
        }
        Err(status.to_string())
    });
}

fn deletes(cluster: &Cluster, agent: &Agent) {
    cluster.barge(&["delete", "-f", EXAMPLES]);
    eventually("no pods and no containers", || {
        let (pods, containers) = (
            cluster.barge(&["get", "pods", "-o", "name"]),
            cluster.container_pids(agent),
        );
        if pods.trim().is_empty() && containers.is_empty() {
            Ok(())
        } else {
            Err(format!("{pods} {containers:?}"))
        }
    });
}
