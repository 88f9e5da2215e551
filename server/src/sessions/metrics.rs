//! The Metrics service: what pods and nodes take, from their agents. Nothing of it is in the state. Any manager finds the pods and nodes that are meant in its state ([`find`]),
//! and has their agents asked ([`ask`]): those that are connected to it by itself, all others by the managers that they are connected to.

use std::collections::{BTreeMap, HashMap};

use barge_proto::{
    kinds::KindRef,
    quantity,
    v1::{
        AgentMetricsRequest, AgentQuestion, Kind, NodeMetrics, NodeMetricsRequest,
        NodeMetricsResponse, PodMetrics, PodMetricsRequest, PodMetricsResponse, metrics_server,
    },
};
use tonic::{Request, Response, Status};

use self::find::{FoundNode, FoundPod};
use crate::{
    calls::names,
    error::ApiError,
    security::{auth::Caller, rbac::Asked},
    store::Store,
};

pub mod ask;
mod find;
mod parts;
mod warnings;

pub use ask::Asker;
use warnings::Warnings;

/// The longest time over which an agent can average, in seconds.
const LONGEST: u32 = 3600;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct MetricsService {
    /// The state.
    pub store: Store,
    /// Asks agents.
    pub asker: Asker,
}

#[tonic::async_trait]
impl metrics_server::Metrics for MetricsService {
    async fn pods(
        &self,
        request: Request<PodMetricsRequest>,
    ) -> Result<Response<PodMetricsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let window = window(request.window_seconds)?;
        self.store.read_index().await.map_err(ApiError::from)?;
        self.may(&caller, Kind::Pod, &request.namespace, &request.name)?;
        let mut warnings = Warnings::default();
        let pods = find::pods(&self.store, request, &mut warnings).await?;
        let mut questions = BTreeMap::<&str, Vec<String>>::new();
        for pod in &pods {
            let asked = questions.entry(&pod.node_uid).or_default();
            asked.push(pod.uid.clone());
        }
        let questions = questions
            .into_iter()
            .map(|(node, pods)| question(node, pods, window));
        let answers = self.asker.ask(questions.collect()).await;
        let pods = self.put_together(pods, answers, &mut warnings);
        Ok(Response::new(PodMetricsResponse {
            pods,
            warnings: warnings.sentences(),
        }))
    }

    async fn nodes(
        &self,
        request: Request<NodeMetricsRequest>,
    ) -> Result<Response<NodeMetricsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let window = window(request.window_seconds)?;
        self.store.read_index().await.map_err(ApiError::from)?;
        self.may(&caller, Kind::Node, "", &request.name)?;
        let mut warnings = Warnings::default();
        let nodes = find::nodes(&self.store, &request, &mut warnings)?;
        let questions = nodes
            .iter()
            .map(|node| question(&node.uid, Vec::new(), window));
        let mut answers = self.asker.ask(questions.collect()).await;
        let measured = nodes.into_iter().filter_map(|node| {
            let name = node.name.clone();
            match answers.remove(&node.uid)?.map(|answer| answer.node) {
                Ok(Some(metrics)) => Some(with_allocatable(node, metrics)),
                Ok(None) => {
                    warnings.no_samples_of_node(&name);
                    None
                }
                Err(error) => {
                    warnings.silent(&error, &name);
                    None
                }
            }
        });
        let nodes = measured.collect();
        Ok(Response::new(NodeMetricsResponse {
            nodes,
            warnings: warnings.sentences(),
        }))
    }
}

impl MetricsService {
    /// Whether the caller may read this. Whoever may list nodes may know what they take.
    fn may(
        &self,
        caller: &Caller,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        let (_, info) = names::kind(kind.into())?;
        let kind_ref = KindRef::Builtin(info);
        let plain = Asked::on("list", &kind_ref, namespace, name);
        let asked = Asked::on("list", &kind_ref, namespace, name).part("metrics");
        self.store.read(|state| {
            if kind == Kind::Node && caller.access.may(state, &plain) {
                return Ok(());
            }
            caller.access.check(state, [asked])
        })
    }

    fn put_together(
        &self,
        pods: Vec<FoundPod>,
        mut answers: HashMap<String, ask::Answer>,
        warnings: &mut Warnings,
    ) -> Vec<PodMetrics> {
        let mut names = HashMap::<String, String>::new();
        let mut measured = Vec::with_capacity(pods.len());
        for pod in pods {
            let node = names.entry(pod.node_uid.clone()).or_insert_with(|| {
                let uid = pod.node_uid.as_str();
                self.store.read(|state| find::node_name(state, uid))
            });
            let found = match answers.get_mut(&pod.node_uid) {
                Some(Ok(answer)) => answer.pods.remove(&pod.uid),
                Some(Err(error)) => {
                    warnings.silent(error, node);
                    continue;
                }
                None => None,
            };
            match found.filter(|metrics| !metrics.containers.is_empty()) {
                Some(metrics) => measured.push(PodMetrics {
                    namespace: pod.namespace,
                    name: pod.name,
                    node: node.clone(),
                    ..metrics
                }),
                None => warnings.no_samples_of_pod(&pod.namespace, &pod.name),
            }
        }
        measured
    }
}

fn question(node_uid: &str, pod_uids: Vec<String>, window_seconds: u32) -> AgentQuestion {
    AgentQuestion {
        node_uid: node_uid.to_owned(),
        request: Some(AgentMetricsRequest {
            pod_uids,
            window_seconds,
        }),
    }
}

/// The seconds to average over; 0 leaves that to the agents.
fn window(seconds: u32) -> Result<u32, ApiError> {
    match seconds {
        0..=LONGEST => Ok(seconds),
        _ => Err(ApiError::invalid(
            "window_seconds",
            format!("{seconds}: nodes remember at most {LONGEST} seconds"),
        )),
    }
}

fn with_allocatable(node: FoundNode, metrics: NodeMetrics) -> NodeMetrics {
    let amount = |read: Result<i64, quantity::QuantityError>| {
        read.ok().and_then(|it| u64::try_from(it).ok()).unwrap_or(0)
    };
    let (cpu, memory) = (node.allocatable.get("cpu"), node.allocatable.get("memory"));
    NodeMetrics {
        name: node.name,
        allocatable_cpu_millis: cpu.map_or(0, |it| amount(quantity::parse_milli(it))),
        allocatable_memory_bytes: memory.map_or(0, |it| amount(quantity::parse_whole(it))),
        ..metrics
    }
}
