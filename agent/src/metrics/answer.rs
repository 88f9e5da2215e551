//! What a manager asks about, answered from the [`Store`].

use std::{collections::BTreeMap, time::Duration};

use barge_proto::v1::{
    AgentMetricsRequest, AgentMetricsResponse, ContainerMetrics, NetworkMetrics, NodeMetrics,
    PodMetrics, Time, TunnelChunk,
};
use prost::Message;

use super::{
    LONGEST, WINDOW,
    store::{Store, Taken},
};
use crate::{clock::to_time, desired::Desired, pods::spec};

/// Bytes in a chunk.
const CHUNK: usize = 64 * 1024;

/// The answer to a question, in chunks. `now_ms` is the time of day.
pub fn chunks(
    store: &Store,
    desired: &Desired,
    request: &AgentMetricsRequest,
    now_ms: i64,
) -> Vec<TunnelChunk> {
    let bytes = response(store, desired, request, now_ms).encode_to_vec();
    let parts = bytes.chunks(CHUNK).map(|data| TunnelChunk {
        data: data.to_vec(),
        ..TunnelChunk::default()
    });
    parts.collect()
}

fn response(
    store: &Store,
    desired: &Desired,
    request: &AgentMetricsRequest,
    now_ms: i64,
) -> AgentMetricsResponse {
    let window = match request.window_seconds {
        0 => WINDOW,
        seconds => Duration::from_secs(seconds.into()).min(LONGEST),
    };
    let mut pods = BTreeMap::new();
    for uid in &request.pod_uids {
        if let Some(pod) = desired.pods.get(uid) {
            let names = spec::all_containers(pod).map(|it| it.name.as_str());
            pods.insert(uid.clone(), of_pod(store, uid, names, window, now_ms));
        }
    }
    let node = request
        .pod_uids
        .is_empty()
        .then(|| of_node(store, window, now_ms));
    AgentMetricsResponse {
        pods,
        node: node.flatten(),
    }
}

fn of_pod<'a>(
    store: &Store,
    uid: &str,
    names: impl Iterator<Item = &'a str>,
    window: Duration,
    now_ms: i64,
) -> PodMetrics {
    let containers = names.filter_map(|name| {
        let taken = store.container(uid, name, window)?;
        let (cpu_millis, window_ms) = cpu(&taken);
        Some(ContainerMetrics {
            name: name.to_owned(),
            time: Some(time(&taken, now_ms)),
            window_ms,
            cpu_millis,
            memory_bytes: taken.memory,
            storage_bytes: taken.storage,
        })
    });
    let network = store.network(uid, window).map(|rates| NetworkMetrics {
        received: rates.received,
        sent: rates.sent,
    });
    PodMetrics {
        containers: containers.collect(),
        network,
        ..PodMetrics::default()
    }
}

fn of_node(store: &Store, window: Duration, now_ms: i64) -> Option<NodeMetrics> {
    let taken = store.machine(window)?;
    let (cpu_millis, window_ms) = cpu(&taken);
    Some(NodeMetrics {
        time: Some(time(&taken, now_ms)),
        window_ms,
        cpu_millis,
        memory_bytes: taken.memory,
        storage_bytes: taken.storage,
        storage_capacity_bytes: store.disk().map_or(0, |disk| disk.total),
        ..NodeMetrics::default()
    })
}

/// Thousandths of a core, and over how many milliseconds.
fn cpu(taken: &Taken) -> (u64, u32) {
    taken.cpu.map_or((0, 0), |average| {
        let millis = u32::try_from(average.window.as_millis()).unwrap_or(u32::MAX);
        (average.cpu_millis, millis.max(1))
    })
}

/// When the newest sample was taken: the time of day may have been set since.
fn time(taken: &Taken, now_ms: i64) -> Time {
    let age = i64::try_from(taken.age.as_millis()).unwrap_or(i64::MAX);
    to_time(now_ms.saturating_sub(age))
}
