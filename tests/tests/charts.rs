//! Charts as people render them: applied as they are, they run, answer, and applying them again changes nothing.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path};

use barge_tests::{
    Cluster, Machine,
    cluster::{Agent, is_ready},
    eventually,
};
use serde_json::Value;

/// Each is what the scaffold of a chart renders to: with its default values, with every value printed and empty, and with values set.
const CHARTS: [&str; 3] = ["chart-defaults", "chart-empties", "chart-values"];
/// Where programs look for what their account has.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn path(chart: &str) -> String {
    format!("{}/fixtures/{chart}.yaml", env!("CARGO_MANIFEST_DIR"))
}

/// The name of the chart's objects, and what its page says.
fn what_it_serves(chart: &str) -> (&'static str, &'static str) {
    match chart {
        "chart-defaults" => ("storefront", "Welcome to nginx"),
        "chart-empties" => ("bare", "Welcome to nginx"),
        _ => ("strict", "my-app 1.0"),
    }
}

#[test]
fn charts_run_as_they_are_rendered() {
    let before = Machine::look();
    let cluster = Cluster::up("charts", 1, 1);
    let agent = cluster.layout().agents.remove(0);
    for chart in CHARTS {
        let (name, page) = what_it_serves(chart);
        let path = path(chart);
        let created = cluster.barge(&["apply", "--wait", "-f", &path]);
        for line in created.lines().filter(|line| line.contains('/')) {
            assert!(line.ends_with(" created"), "{created}");
        }
        let deployment = cluster.get("deployment", name);
        let replicas = &deployment["spec"]["replicas"];
        assert_eq!(&deployment["status"]["availableReplicas"], replicas);
        answers(&cluster, &agent, name, page);
        let labels = format!("app.kubernetes.io/name={name}");
        let pods = cluster.ready_pods(&labels, replicas.as_u64().unwrap() as usize);
        for pod in &pods {
            has_its_account(&cluster, &agent, pod);
        }
        let again = cluster.barge(&["apply", "-f", &path]);
        for line in again.lines() {
            assert!(line.ends_with(" unchanged"), "{again}");
        }
        assert_eq!(
            cluster.ready_pods(&labels, pods.len()).len(),
            pods.len(),
            "the same pods"
        );
    }
    the_hook_has_passed(&cluster);
    strict(&cluster, &agent);
    for chart in CHARTS {
        cluster.barge(&["delete", "-f", &path(chart)]);
    }
    eventually("nothing of the charts is left", || {
        let left = cluster.container_pids(&agent);
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    });
    cluster.down();
    drop(cluster);
    assert_eq!(Machine::look().differences(&before), [""; 0]);
}

/// At the address of its Service.
fn answers(cluster: &Cluster, agent: &Agent, name: &str, page: &str) {
    let service = cluster.get("service", name);
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    eventually(&format!("{name} answers at its Service"), || {
        let text = cluster.fetch_on(agent, &format!("http://{address}/"))?;
        text.contains(page).then_some(()).ok_or(text)
    });
}

/// The processes of a pod's containers.
fn pids(cluster: &Cluster, agent: &Agent, pod: &Value) -> Vec<u32> {
    let all = cluster.container_pids(agent);
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
    let pid = |status: &Value| {
        let id = status["containerID"].as_str()?;
        let id = id.trim_start_matches("containerd://");
        all.iter().find(|(task, _)| task == id).map(|(_, pid)| *pid)
    };
    statuses.iter().filter_map(pid).collect()
}

fn has_its_account(cluster: &Cluster, agent: &Agent, pod: &Value) {
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap();
    assert!(cluster.get("serviceaccount", account)["metadata"]["uid"].is_string());
    let pids = pids(cluster, agent, pod);
    assert_eq!(pids.len(), 1, "{pod}");
    let file = |name: &str| {
        // Links in it are the container's own: the folder of the files that they lead to lies beside them.
        let folder = format!("/proc/{}/root{ACCOUNT}", pids[0]);
        let data = fs::read_link(Path::new(&folder).join("..data")).unwrap();
        let path = Path::new(&folder).join(data).join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    eventually("its token is there", || {
        let token = file("token");
        let parts = token.split('.').count();
        (parts == 3).then_some(()).ok_or(token)
    });
    assert_eq!(file("namespace"), "default");
    assert!(file("ca.crt").contains("BEGIN CERTIFICATE"));
}

/// The test pod of the chart, which its tool runs as a hook, is a pod: it has looked at its token and ended well.
fn the_hook_has_passed(cluster: &Cluster) {
    let pod = cluster.get("pod", "storefront-test-connection");
    assert_eq!(pod["status"]["phase"], "Succeeded", "{pod}");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    assert!(!is_ready(&pod));
}

/// What the values of the chart asked for is so.
fn strict(cluster: &Cluster, agent: &Agent) {
    let pods = cluster.ready_pods("app.kubernetes.io/name=strict", 2);
    for pod in &pods {
        let pid = pids(cluster, agent, pod)[0];
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            line.unwrap_or_default()
                .split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(line("Uid:"), "1000 1000 1000 1000");
        assert_eq!(line("Gid:"), "1000 1000 1000 1000");
        assert_eq!(line("Groups:"), "2000");
        assert_eq!(line("CapBnd:"), "0000000000000000");
        assert_eq!(line("NoNewPrivs:"), "1");
        assert_eq!(line("Seccomp:"), "2");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
        let options = |at: &str| {
            let mount = mounts
                .lines()
                .find(|line| line.split(' ').nth(1) == Some(at));
            mount
                .and_then(|line| line.split(' ').nth(3))
                .unwrap_or_default()
                .to_owned()
        };
        assert!(options("/").starts_with("ro"), "{mounts}");
        assert!(options("/tmp").starts_with("rw"), "{mounts}");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let variable = format!("POD_NAME={}", pod["metadata"]["name"].as_str().unwrap());
        assert!(String::from_utf8_lossy(&environment).contains(&variable));
        let secret = format!("/proc/{pid}/root/etc/secret");
        let data = fs::read_link(Path::new(&secret).join("..data")).unwrap();
        let password = fs::read(Path::new(&secret).join(data).join("password")).unwrap();
        assert_eq!(password, b"correct-horse");
    }
}
