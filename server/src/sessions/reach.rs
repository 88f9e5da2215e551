//! The way to the agent of a pod: it is connected to this manager, or to another one, which all others are asked for.

use barge_proto::{
    kinds::KindRef,
    v1::{Kind, OpenStream, PodRecord, open_stream::What},
};
use barge_state::{Kind as _, PackedPod, State};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

use super::{Sessions, Tunnels, tunnels::Tunnel};
use crate::{
    calls::names,
    error::{ApiError, reason_of},
    net::Dialer,
    runtime::clock::PATIENCE,
    security::auth::{
        Caller,
        still::{Shown, still},
    },
    store::Store,
};

/// Names the container of a pod that is meant when none is named. Kubernetes' own.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Reaches agents. Cheap to clone.
#[derive(Clone)]
pub struct Reach {
    /// The state.
    pub store: Store,
    /// The agents that are connected here.
    pub sessions: Sessions,
    /// The streams that are waited for.
    pub tunnels: Tunnels,
    /// The way to the other managers.
    pub dialer: Dialer,
    /// Where this manager is reached.
    pub advertise: String,
}

impl Reach {
    /// Whether the caller may (still) use this part of a pod ("log", "exec"): a question to be asked again and again.
    ///
    /// # Errors
    /// As [`still`].
    pub fn right(
        &self,
        caller: &Caller,
        (verb, part): (&'static str, &'static str),
        namespace: &str,
        pod: &str,
    ) -> Result<impl Fn() -> Result<(), Status> + Send + Sync + 'static, Status> {
        let (_, kind) = names::kind(Kind::Pod.into())?;
        let shown = Shown {
            verb,
            kind: KindRef::Builtin(kind),
            part,
            namespace: names::namespace(kind, namespace).to_owned(),
            name: pod.to_owned(),
        };
        still(self.store.clone(), caller, shown)
    }

    /// Asks the agent of a node, if it is connected to this manager, for a stream.
    ///
    /// # Errors
    /// NO_SUCH_SESSION when it is not connected here, or does not open the stream in time; OVERLOADED.
    pub async fn here(&self, node_uid: &str, what: What) -> Result<Tunnel, ApiError> {
        let mut expected = self.tunnels.expect(node_uid)?;
        let open = OpenStream {
            stream_id: expected.stream_id.clone(),
            what: Some(what),
        };
        self.sessions.open_stream(node_uid, open)?;
        match timeout(PATIENCE, expected.arrived()).await {
            Ok(tunnel) => tunnel,
            Err(_) => Err(ApiError::NoSuchSession(
                "the agent did not open the stream in time".to_owned(),
            )),
        }
    }

    /// Asks all other managers; the one with the agent answers.
    ///
    /// # Errors
    /// What the manager with the agent says, or NO_SUCH_SESSION.
    pub async fn elsewhere<T, F>(
        &self,
        node_uid: &str,
        ask: impl Fn(Channel) -> Result<F, Status>,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        // A connection for this stream alone: a client that does not read it holds up nothing else.
        let dialer = self.dialer.apart();
        let mut asked = FuturesUnordered::new();
        for address in self.store.addresses() {
            if address == self.advertise {
                continue;
            }
            let channel = dialer
                .channel(&address)
                .map_err(|error| ApiError::Internal(error.to_string()))?;
            asked.push(timeout(PATIENCE, ask(channel)?));
        }
        let mut failure = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Ok(output)) => return Ok(output),
                Ok(Err(status)) if reason_of(&status).as_deref() == Some("NO_SUCH_SESSION") => {}
                // Where the agent is and fails is worth more than where it is not.
                Ok(Err(status)) if reason_of(&status).is_some() => failure = Some(status),
                Ok(Err(status)) => tracing::debug!(%status, "a manager did not answer"),
                Err(_) => tracing::debug!("a manager did not answer in time"),
            }
        }
        Err(failure.unwrap_or_else(|| {
            Status::from(ApiError::NoSuchSession(format!(
                "the agent of node {} is not connected to any manager that answers",
                self.node_name(node_uid)
            )))
        }))
    }

    fn node_name(&self, uid: &str) -> String {
        self.store.read(|state| {
            state
                .by_uid::<barge_proto::v1::Node>(uid)
                .map_or_else(|| uid.to_owned(), |node| node.meta().name.clone())
        })
    }
}

/// Where a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its node.
    pub node_uid: String,
    /// Of the pod.
    pub pod_uid: String,
}

/// Finds a pod that is bound.
///
/// # Errors
/// NOT_FOUND, or PRECONDITION while it is not bound.
pub fn find_pod(state: &State, namespace: &str, name: &str) -> Result<Place, ApiError> {
    bound(state, namespace, name).map(place)
}

/// Finds a container of a pod that is bound: without a name, the only one, or the one that the pod's annotation names.
///
/// # Errors
/// As [`find_pod`]; NOT_FOUND for a container that it has not, INVALID when it has several.
pub fn find_container(
    state: &State,
    namespace: &str,
    name: &str,
    wanted: &str,
) -> Result<(Place, String), ApiError> {
    let record = bound(state, namespace, name)?;
    let pod = state.pod(record);
    let annotation = pod.metadata.as_ref().and_then(|meta| {
        let named = meta.annotations.get(DEFAULT_CONTAINER)?;
        Some(named.as_str()).filter(|_| wanted.is_empty())
    });
    let spec = pod.spec.as_ref();
    let containers = spec.map_or(&[][..], |spec| &spec.containers);
    let all = spec.into_iter().flat_map(|spec| spec.all_containers());
    let names: Vec<_> = all.map(|it| it.name.as_str()).collect();
    let container = match (annotation.unwrap_or(wanted), containers) {
        ("", [only]) => only.name.as_str(),
        ("", _) => {
            return Err(ApiError::invalid(
                "container",
                format!(
                    "pod {name} has several, choose one of: {}",
                    names.join(", ")
                ),
            ));
        }
        (wanted, _) if names.contains(&wanted) => wanted,
        (wanted, _) => {
            return Err(ApiError::NotFound(format!(
                "pod {name} has no container {wanted}{}; it has: {}",
                match annotation {
                    Some(_) => format!(", which its annotation {DEFAULT_CONTAINER} names"),
                    None => String::new(),
                },
                names.join(", ")
            )));
        }
    };
    Ok((place(record), container.to_owned()))
}

fn bound<'a>(state: &'a State, namespace: &str, name: &str) -> Result<&'a PackedPod, ApiError> {
    let namespace = match namespace {
        "" => names::DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let record = state
        .get::<PodRecord>(namespace, name)
        .ok_or_else(|| ApiError::NotFound(format!("pod {namespace}/{name} does not exist")))?;
    match record.is_bound() {
        true => Ok(record),
        false => Err(ApiError::Precondition(format!(
            "pod {namespace}/{name} is not bound to a node yet"
        ))),
    }
}

fn place(record: &PackedPod) -> Place {
    Place {
        node_uid: record.node_uid().to_owned(),
        pod_uid: record.uid().to_owned(),
    }
}
