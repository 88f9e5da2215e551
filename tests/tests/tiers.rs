//! An application of three tiers, visited all the time while one thing after the other happens to it and to the cluster. What is hit is
//! restarted, nothing else is, and visitors notice no more than cannot be helped.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, fs, net::SocketAddr, process::Command, time::Instant};

use barge_tests::{
    Cluster, Machine, Visitor,
    cluster::{Agent, is_ready, kill, name},
    eventually,
    visitor::Failure,
};
use serde_json::Value;

const SHOP: &str = "app=shop";
const TIERS: [(&str, usize); 3] = [("web", 3), ("api", 2), ("database", 1)];

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: shop, tier: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {selector: {app: shop, tier: api}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: database}
spec: {selector: {app: shop, tier: database}, ports: [{port: 80, targetPort: http}]}
";

fn config(greeting: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\ndata: {{greeting: {greeting}}}\n"
    )
}

/// A page of web holds the words of all tiers.
fn is_good(page: &str) -> bool {
    page.contains("web: ") && page.contains(", api database ") && page.trim_end().ends_with(" ok")
}

/// What happens, and how it is made to.
type Step = (&'static str, fn(&Cluster));

/// Each container by its pod and name: its id, and how often it was restarted.
type Containers = BTreeMap<(String, String), (String, u64)>;

fn containers(cluster: &Cluster) -> Containers {
    let pods = cluster.list("pods", SHOP);
    let of_pod = |pod: &Value| {
        let lists = ["initContainerStatuses", "containerStatuses"];
        let statuses = lists
            .iter()
            .filter_map(|list| pod["status"][list].as_array());
        let about = |status: &Value| {
            let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
            let restarts = status["restartCount"].as_u64().unwrap_or(0);
            (
                (name(pod).to_owned(), text("name")),
                (text("containerID"), restarts),
            )
        };
        statuses.flatten().map(about).collect::<Vec<_>>()
    };
    pods.iter().flat_map(of_pod).collect()
}

#[test]
fn an_application_of_three_tiers_is_served_through_all_that_happens() {
    let before = Machine::look();
    let cluster = Cluster::up("tiers", 3, 3);
    let mounts = mounts_of(&cluster);
    let addresses = deploy(&cluster);
    let visitor = Visitor::new(addresses, "/cgi-bin/web", is_good);
    eventually("it is visited", || {
        let seen = visitor.seen();
        if let Some(failure) = seen.failures.first() {
            panic!("{failure:?}");
        }
        (seen.pages > 20).then_some(()).ok_or(format!("{seen:?}"))
    });

    // Nothing of these is noticed.
    let steps: [Step; 4] = [
        ("control is killed", control_is_killed),
        ("a carrier is killed", a_carrier_is_killed),
        ("the leader is killed", the_leader_is_killed),
        ("a ConfigMap changes", a_config_map_changes),
    ];
    for (what, step) in steps {
        quietly(&cluster, &visitor, what, step);
    }
    // Those who are answered by the process that dies are cut off; web has nobody before it who would ask again. A request of the others is sent again.
    let (began, ended) = a_process_is_killed(&cluster, "web");
    let failures = visitor.seen().failures;
    let cut_off = |it: &Failure| it.ended >= began && it.began <= ended;
    assert!(
        failures.iter().all(cut_off),
        "{began:?} to {ended:?}: {failures:?}"
    );
    println!(
        "[tiers] {} visits failed while a process of web was killed",
        failures.len()
    );
    for tier in ["api", "database"] {
        quietly(&cluster, &visitor, tier, |cluster| {
            a_process_is_killed(cluster, tier);
        });
    }
    quietly(&cluster, &visitor, "api rolls", api_rolls);

    let seen = visitor.seen();
    drop(visitor);
    println!(
        "[tiers] {} pages, {} failures",
        seen.pages,
        seen.failures.len()
    );
    assert!(seen.pages > 100, "{seen:?}");
    assert!(seen.last.contains("web: evening, "), "{}", seen.last);
    // The database kept what it wrote when its process was killed: there is a row for each page.
    let rows = seen
        .last
        .trim_end()
        .trim_end_matches(" ok")
        .rsplit_once(' ')
        .unwrap()
        .1;
    assert!(
        rows.parse::<u64>().unwrap() >= seen.pages,
        "{} pages: {}",
        seen.pages,
        seen.last
    );
    for (tier, count) in TIERS {
        cluster.ready_pods(&format!("{SHOP},tier={tier}"), count);
    }
    nothing_is_left(&cluster, &mounts);
    cluster.down();
    drop(cluster);
    assert_eq!(Machine::look().differences(&before), [""; 0]);
}

/// Deploys all tiers, and answers where web is served.
fn deploy(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.apply(SERVICES);
    let address = |service: &str| {
        let service = cluster.get("service", service);
        service["spec"]["clusterIP"].as_str().unwrap().to_owned()
    };
    let text = include_str!("../fixtures/shop.yaml");
    let text = text.replace("API_ADDRESS", &address("api"));
    let text = text.replace("DATABASE_ADDRESS", &address("database"));
    cluster.apply(&format!("{}---\n{text}", config("morning")));
    for (tier, count) in TIERS {
        cluster.ready_pods(&format!("{SHOP},tier={tier}"), count);
    }
    let service = cluster.get("service", "web");
    let port = &service["spec"]["ports"][0]["nodePort"];
    let agents = cluster.layout().agents;
    let addresses = agents
        .iter()
        .map(|agent| format!("{}:{port}", agent.address).parse());
    let addresses: Vec<SocketAddr> = addresses.map(Result::unwrap).collect();
    for address in &addresses {
        // Each node has heard where web is.
        eventually("web answers on every node", || {
            let page = cluster.fetch(&format!("http://{address}/cgi-bin/web"))?;
            is_good(&page).then_some(()).ok_or(page)
        });
    }
    addresses
}

/// Nobody who visits notices, and no container but those that `step` hits is another one.
fn quietly(cluster: &Cluster, visitor: &Visitor, what: &str, step: impl FnOnce(&Cluster)) {
    let began = Instant::now();
    let before = visitor.seen();
    step(cluster);
    // Those who came during it have been answered.
    eventually("visitors come and go", || {
        let pages = visitor.seen().pages - before.pages;
        (pages > 10).then_some(()).ok_or(format!("{pages} pages"))
    });
    let failures = visitor.seen().failures;
    let failures = &failures[before.failures.len()..];
    assert!(failures.is_empty(), "{what}: {failures:?}");
    println!("[tiers] {what}: {:.1} s", began.elapsed().as_secs_f32());
}

/// The same containers are there as before.
fn undisturbed(cluster: &Cluster, step: impl FnOnce()) {
    let before = containers(cluster);
    step();
    cluster.wait_until_well();
    assert_eq!(containers(cluster), before);
    eventually("all pods are ready", || {
        let pods = cluster.list("pods", SHOP);
        let unready: Vec<_> = pods.iter().filter(|pod| !is_ready(pod)).collect();
        for pod in &unready {
            println!("[tiers] not ready: {} {}", name(pod), pod["status"]);
        }
        unready
            .is_empty()
            .then_some(())
            .ok_or(format!("{unready:?}"))
    });
}

fn control_is_killed(cluster: &Cluster) {
    undisturbed(cluster, || {
        kill(cluster.layout().agents[0].pid);
        cluster.restart();
    });
}

fn a_carrier_is_killed(cluster: &Cluster) {
    let agent = &cluster.layout().agents[1];
    undisturbed(cluster, || {
        let killed = carrier_of(cluster, agent).expect("a carrier runs");
        kill(killed);
        eventually("another carrier runs", || {
            match carrier_of(cluster, agent) {
                Some(pid) if pid != killed => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    });
}

/// The carrier of a node. The folder of a node has the number of its agent.
fn carrier_of(cluster: &Cluster, agent: &Agent) -> Option<u32> {
    let number = agent.name.rsplit('-').next().unwrap();
    let folder = cluster.dir().join("agents").join(number);
    let output = Command::new("pgrep")
        .arg("-f")
        .arg(format!("barge-agent carrier .*{}/", folder.display()))
        .output()
        .expect("start pgrep");
    let pids = String::from_utf8_lossy(&output.stdout).into_owned();
    pids.lines().find_map(|line| line.parse().ok())
}

fn the_leader_is_killed(cluster: &Cluster) {
    undisturbed(cluster, || cluster.change_leader());
}

fn a_config_map_changes(cluster: &Cluster) {
    undisturbed(cluster, || {
        cluster.apply(&config("evening"));
        for pod in cluster.list("pods", "app=shop,tier=web") {
            let pid = pid_of(cluster, &pod);
            eventually("the file in the running container changes", || {
                let root = format!("/proc/{pid}/root");
                let read = Command::new("chroot")
                    .arg(root)
                    .args(["/bin/cat", "/config/greeting"])
                    .output();
                let text = String::from_utf8_lossy(&read.unwrap().stdout).into_owned();
                (text == "evening").then_some(()).ok_or(text)
            });
        }
    });
}

/// The first process of a pod's main container, on this machine.
fn pid_of(cluster: &Cluster, pod: &Value) -> u32 {
    let id = pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap();
    let id = id.trim_start_matches("containerd://");
    let agents = cluster.layout().agents;
    let mut pids = agents
        .iter()
        .flat_map(|agent| cluster.container_pids(agent));
    pids.find(|(task, _)| task == id).expect("it runs").1
}

/// Kills a process of a tier, and answers from when to when its pod was not there.
fn a_process_is_killed(cluster: &Cluster, tier: &str) -> (Instant, Instant) {
    let pod = cluster
        .list("pods", &format!("{SHOP},tier={tier}"))
        .remove(0);
    let mut expected = containers(cluster);
    let key = (name(&pod).to_owned(), "main".to_owned());
    let pid = pid_of(cluster, &pod);
    let began = Instant::now();
    kill(pid);
    let id = eventually("the container is started again and ready", || {
        let pod = cluster.get("pod", name(&pod));
        let status = &pod["status"]["containerStatuses"][0];
        match is_ready(&pod) && status["restartCount"] == 1 {
            true => Ok(status["containerID"].as_str().unwrap().to_owned()),
            false => Err(pod["status"].to_string()),
        }
    });
    let ended = Instant::now();
    expected.insert(key, (id, 1));
    assert_eq!(
        containers(cluster),
        expected,
        "only that one is another one"
    );
    (began, ended)
}

fn api_rolls(cluster: &Cluster) {
    let is_api = |(key, _): &(&(String, String), &(String, u64))| key.0.starts_with("api-");
    let before = containers(cluster);
    cluster.barge(&["rollout", "restart", "deployment/api"]);
    cluster.barge(&["rollout", "status", "deployment/api"]);
    cluster.ready_pods("app=shop,tier=api", 2);
    let after = containers(cluster);
    for (key, _) in after.iter().filter(is_api) {
        assert!(!before.contains_key(key), "{key:?} was there before");
    }
    let others = |all: &Containers| -> Containers {
        let others = all.iter().filter(|it| !is_api(it));
        others
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    assert_eq!(
        others(&after),
        others(&before),
        "only the tier that rolls has others"
    );
}

/// What is mounted for the cluster's machines.
fn mounts_of(cluster: &Cluster) -> Vec<String> {
    let folder = cluster.dir().display().to_string();
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    // An agent keeps its pods' files in file systems in memory, which it mounts when the first pod has some.
    let own = |point: &str| point.ends_with("/run/volumes") || point.ends_with("/run/secrets");
    let ours = points.filter(|point| point.contains(&folder) && !own(point));
    let mut ours: Vec<_> = ours.map(str::to_owned).collect();
    ours.sort();
    ours
}

/// After the deletion of all objects the machines are as they were before there were any.
fn nothing_is_left(cluster: &Cluster, mounts: &[String]) {
    cluster.barge(&["delete", "deployment", "web", "api", "database"]);
    eventually("nothing is left on the machines", || {
        let agents = cluster.layout().agents;
        let left: Vec<_> = agents
            .iter()
            .flat_map(|agent| cluster.container_pids(agent))
            .collect();
        let now = mounts_of(cluster);
        match left.is_empty() && now == mounts {
            true => Ok(()),
            false => Err(format!("{left:?} {now:?}")),
        }
    });
}
