#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use barge_proto::v1::{
    AgentMetricsRequest, AgentMetricsResponse, Container as ContainerOfPod, ObjectMeta, Pod,
    PodSpec,
};
use prost::Message;
use tokio::time::timeout;

use super::*;
use crate::{
    clock::SystemClock,
    desired::Desired,
    metrics::{answer, store::Disk},
    runtime::Usage,
    testing::Scripted,
};

/// For what takes moments.
const LONG: Duration = Duration::from_secs(30);

fn running(name: &str) -> Container {
    Container {
        id: format!("p1-{name}-0"),
        pod_uid: "p1".into(),
        name: name.into(),
        attempt: 0,
        image_id: String::new(),
        image: String::new(),
        state: ContainerState::Running {
            pid: 1,
            started_at_ms: 0,
        },
    }
}

fn desired(names: &[&str]) -> Desired {
    let containers = names.iter().map(|name| ContainerOfPod {
        name: (*name).to_owned(),
        ..ContainerOfPod::default()
    });
    let pod = Pod {
        metadata: Some(ObjectMeta {
            uid: "p1".into(),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: containers.collect(),
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    Desired {
        pods: BTreeMap::from([("p1".to_owned(), Arc::new(pod))]),
        ..Desired::default()
    }
}

fn ask(store: &Store, desired: &Desired, uids: &[&str]) -> AgentMetricsResponse {
    let request = AgentMetricsRequest {
        pod_uids: uids.iter().map(|uid| (*uid).to_owned()).collect(),
        window_seconds: 15,
    };
    let chunks = answer::chunks(store, desired, &request, 1_700_000_000_000);
    let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.data).collect();
    AgentMetricsResponse::decode(bytes.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_measured_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Scripted::new(Arc::new(SystemClock));
    let (store, stop) = (Store::default(), CancellationToken::new());
    let options = Options {
        runtime: runtime.clone(),
        store: store.clone(),
        proc: "/proc".into(),
        data_dir: folder.path().to_owned(),
    };
    let desired = desired(&["web", "side"]);
    let sampling = tokio::spawn(run(options, stop.clone()));
    store.observe("p1", &[running("side"), running("web")]);
    // One that hangs is not measured, and holds up nothing.
    runtime.hang_meter("p1-side-0", true);
    let begin = std::time::Instant::now();
    let answered = async {
        loop {
            // A core, by the clock that the samples are taken by.
            let cpu_us = u64::try_from(begin.elapsed().as_micros()).unwrap();
            runtime.uses(
                "p1-web-0",
                Usage {
                    cpu_us,
                    memory: 5 << 20,
                },
            );
            let answer = ask(&store, &desired, &["p1", "unknown"]);
            let containers = &answer.pods["p1"].containers;
            if let [web] = containers.as_slice()
                && web.window_ms > 1500
            {
                return answer;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let answer = timeout(LONG, answered).await.unwrap();
    assert_eq!(answer.pods.len(), 1, "the other one is not of this node");
    let web = &answer.pods["p1"].containers[0];
    assert_eq!((web.name.as_str(), web.memory_bytes), ("web", 5 << 20));
    assert!((900..=1100).contains(&web.cpu_millis), "{web:?}");
    assert!(answer.node.is_none() && answer.pods["p1"].network.is_none());
    let machine = async {
        loop {
            let answer = ask(&store, &desired, &[]);
            if let Some(node) = answer.node.filter(|node| node.storage_capacity_bytes > 0) {
                return node;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let node = timeout(LONG, machine).await.unwrap();
    assert!(node.memory_bytes > 0 && node.storage_bytes > 0 && node.window_ms > 0);
    runtime.hang_meter("p1-side-0", false);
    let both = async {
        while ask(&store, &desired, &["p1"]).pods["p1"].containers.len() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, both).await.unwrap();
    stop.cancel();
    timeout(LONG, sampling).await.unwrap().unwrap();
}

#[test]
fn the_disk_is_told_with_the_machine() {
    let store = Store::default();
    store.put_machine(Usage {
        cpu_us: 1,
        memory: 2,
    });
    store.put_disk(Disk { used: 3, total: 4 });
    let node = ask(&store, &Desired::default(), &[]).node.unwrap();
    let expected = (0, 2, 3, 4);
    let of = |it: &barge_proto::v1::NodeMetrics| {
        let disk = (it.storage_bytes, it.storage_capacity_bytes);
        (it.window_ms, it.memory_bytes, disk.0, disk.1)
    };
    assert_eq!(of(&node), expected);
}
