//! A backup of a cluster with many pods, made from one without: bound to 5,000 nodes, running, and as their agents would
//! have reported them.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    path::Path,
};

use anyhow::Context;
use barge_client::{
    backup::{self, Writer},
    v1::{
        Condition, ContainerState, ContainerStateRunning, ContainerStatus, Deployment,
        DeploymentStatus, Node, NodeAddress, NodeSpec, NodeStatus, ObjectMeta, OwnerReference,
        PodRecord, PodStatus, Quantity, Record, Revision, StatusVersion, Time, record,
    },
};
use prost::Message;

const NODES: usize = 5_000;
/// When all of this began.
const START: i64 = 1_790_000_000;

/// Writes `to`: what is in `from`, nodes, and the pods of its Deployments.
pub fn write(from: &Path, to: &Path, pods: usize) -> anyhow::Result<()> {
    let (mut deployments, mut revisions, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let sort = |found| match found {
        record::Record::Deployment(found) => deployments.push(found),
        record::Record::Revision(found) => revisions.push(found),
        other => others.push(other),
    };
    let summary = backup::read(BufReader::new(File::open(from)?), sort, drop)?;
    let mut header = summary.header;
    let first = header.revision;
    header.revision += (NODES + 2 * pods + deployments.len()) as u64;
    let mut writer = Writer::begin(BufWriter::new(File::create(to)?), header)?;
    let mut put = |body| {
        let record = Record { record: Some(body) };
        writer.record(record.encode_to_vec())
    };
    for other in others {
        put(other)?;
    }
    for number in 0..NODES {
        put(record::Record::Node(node(number)))?;
    }
    let each = pods / deployments.len().max(1);
    for (number, mut deployment) in deployments.into_iter().enumerate() {
        let owner = deployment.metadata.clone().unwrap_or_default();
        let owned = |revision: &&Revision| {
            let metadata = revision.metadata.iter();
            let mut owners = metadata.flat_map(|metadata| &metadata.owner_references);
            owners.any(|found| found.uid == owner.uid)
        };
        let revision = revisions
            .iter()
            .find(owned)
            .context("a Deployment without a template")?;
        for pod in number * each..(number + 1) * each {
            put(record::Record::Pod(running(pod, &owner, revision, first)))?;
        }
        rolled_out(&mut deployment, each);
        put(record::Record::Deployment(deployment))?;
    }
    for revision in revisions {
        put(record::Record::Revision(revision))?;
    }
    writer.finish()?;
    Ok(())
}

fn rolled_out(deployment: &mut Deployment, replicas: usize) {
    let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
    deployment.spec.get_or_insert_default().replicas = Some(replicas);
    let generation = deployment
        .metadata
        .as_ref()
        .map_or(1, |metadata| metadata.generation);
    let status = deployment.status.take().unwrap_or_default();
    deployment.status = Some(DeploymentStatus {
        observed_generation: generation,
        replicas,
        updated_replicas: replicas,
        ready_replicas: replicas,
        available_replicas: replicas,
        ..status
    });
}

/// As random ones are: nothing is gained from their likeness.
fn uid(kind: u64, number: usize) -> String {
    let one = spread(kind << 48 | number as u64);
    let two = spread(one);
    let (a, b, c) = (one >> 32, one >> 16 & 0xffff, one & 0xfff);
    format!(
        "{a:08x}-{b:04x}-4{c:03x}-a{:03x}-{:012x}",
        two & 0xfff,
        two >> 16
    )
}

/// splitmix64's step.
fn spread(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn at(seconds: usize) -> Option<Time> {
    Some(Time {
        seconds: START + seconds as i64,
        // What a clock gives is not round.
        nanos: (spread(seconds as u64) % 1_000_000_000) as i32,
    })
}

/// By the clock of an agent, which counts milliseconds.
fn reported(seconds: usize) -> Option<Time> {
    at(seconds).map(|time| Time {
        nanos: time.nanos / 1_000_000 * 1_000_000,
        ..time
    })
}

fn condition(name: &str, at: Option<Time>) -> Condition {
    Condition {
        r#type: name.to_owned(),
        status: "True".to_owned(),
        last_transition_time: at,
        ..Condition::default()
    }
}

fn node(number: usize) -> Node {
    let amounts = [("cpu", "64"), ("memory", "256Gi"), ("pods", "1000")];
    let amounts = amounts.map(|(name, value)| {
        let value = value.to_owned();
        (name.to_owned(), Quantity { value })
    });
    let name = format!("node-{number:04}");
    let (high, low) = (number / 256, number % 256);
    let address = |kind: &str, address: String| NodeAddress {
        r#type: kind.to_owned(),
        address,
    };
    Node {
        metadata: Some(ObjectMeta {
            name: name.clone(),
            uid: uid(1, number),
            labels: [("kubernetes.io/hostname".to_owned(), name.clone())].into(),
            resource_version: "1".to_owned(),
            generation: 1,
            creation_timestamp: at(0),
            ..ObjectMeta::default()
        }),
        spec: Some(NodeSpec {
            pod_cidr: format!("10.{}.{low}.0/24", 100 + high),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            capacity: amounts.clone().into(),
            allocatable: amounts.into(),
            conditions: vec![condition("Ready", at(1))],
            addresses: vec![
                address("InternalIP", format!("172.16.{high}.{low}")),
                address("Hostname", name),
            ],
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

/// A pod as its agent reports it.
fn running(number: usize, owner: &ObjectMeta, revision: &Revision, first: u64) -> PodRecord {
    let metadata = revision.metadata.clone().unwrap_or_default();
    let suffix: String = (0..5)
        .scan(number, |rest, _| {
            let letter = char::from(b'a' + (*rest % 26) as u8);
            *rest /= 26;
            Some(letter)
        })
        .collect();
    let node = spread(number as u64) as usize % NODES;
    let begun = number / 100;
    let image = format!("registry.example.com/team/{}", owner.name);
    PodRecord {
        metadata: Some(ObjectMeta {
            name: format!("{}-{suffix}", metadata.name),
            namespace: metadata.namespace.clone(),
            uid: uid(2, number),
            resource_version: (first + 1 + 2 * number as u64).to_string(),
            generation: 1,
            creation_timestamp: at(begun),
            owner_references: vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }],
            ..ObjectMeta::default()
        }),
        template_uid: metadata.uid,
        node_uid: uid(1, node),
        bound: at(begun + 1),
        lost: None,
        reported: Some(StatusVersion {
            incarnation: 1_790_000_000_123,
            counter: number as u64,
        }),
        status: Some(PodStatus {
            phase: "Running".to_owned(),
            pod_ip: format!(
                "10.{}.{}.{}",
                100 + node / 256,
                node % 256,
                2 + number / NODES % 250
            ),
            start_time: reported(begun + 1),
            conditions: ["Initialized", "Ready", "ContainersReady"]
                .map(|name| condition(name, reported(begun + 3)))
                .to_vec(),
            container_statuses: vec![ContainerStatus {
                name: "main".to_owned(),
                ready: true,
                started: Some(true),
                image: format!("{image}:1.0"),
                image_id: format!("{image}@sha256:{:064x}", spread(number as u64 / 1000)),
                container_id: format!("containerd://{}-main-0", uid(2, number)),
                state: Some(ContainerState {
                    running: Some(ContainerStateRunning {
                        started_at: reported(begun + 2),
                    }),
                    ..ContainerState::default()
                }),
                ..ContainerStatus::default()
            }],
            ..PodStatus::default()
        }),
        ..PodRecord::default()
    }
}
