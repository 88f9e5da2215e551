//! The Api service: the objects of the cluster, for people and programs. Any manager answers reads and watches ([`read`],
//! [`watch`]), opens the values of Secrets ([`vault`]) and checks rights by the bindings ([`gate`]). Writes go to the leader. The leader
//! plans them by its state ([`plan`], [`delete`], [`scale`], [`rollout`]) and proposes the plan on the condition that the state
//! did not change meanwhile ([`commit`]). [`ownership`] keeps the owners of fields.

use std::sync::Arc;

use barge_proto::{
    kinds::Registry,
    level,
    v1::{
        ApplyRequest, ApplyResponse, ApplyStreamRequest, ApplyStreamResponse, DeleteRequest,
        DeleteResponse, GetRequest, GetResponse, ListRequest, ListResponse, Object,
        RolloutHistoryRequest, RolloutHistoryResponse, RolloutRequest, RolloutResponse,
        ScaleRequest, ScaleResponse, UpdateRequest, UpdateResponse, WatchRequest, WatchResponse,
        api_client::ApiClient, api_server,
    },
};
use barge_state::State;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use self::{apply::Way, pipeline::Layers, read::Pins, vault::Vault};
use crate::{
    calls::{
        leader::{Repeat, ToLeader},
        names,
        shares::{Share, Shares},
        streams::{holding, until_stopped, while_allowed},
    },
    error::ApiError,
    net::reserved::ReservedPorts,
    observe::spans,
    security::auth::Caller,
    store::Store,
};

pub mod access;
pub mod accounts;
pub mod apply;
pub mod commit;
pub mod credentials;
pub mod delete;
pub mod gate;
pub mod ownership;
pub mod pipeline;
pub mod plan;
pub mod read;
pub mod rollout;
pub mod scale;
pub mod vault;
pub mod watch;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct ApiService {
    store: Store,
    to_leader: ToLeader,
    shares: Shares,
    vault: Vault,
    reserved: Arc<ReservedPorts>,
    layers: Layers,
    pins: Pins,
    kinds: Registry,
    stop: CancellationToken,
}

impl ApiService {
    /// Puts the service together; `stop` ends its watches. Run [`ApiService::sweep`] beside it.
    #[must_use]
    pub fn new(
        store: Store,
        to_leader: ToLeader,
        shares: Shares,
        vault: Vault,
        reserved: ReservedPorts,
        layers: Layers,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            to_leader,
            shares,
            vault,
            reserved: Arc::new(reserved),
            layers,
            pins: Pins::default(),
            kinds: Registry::default(),
            stop,
        }
    }

    /// With the kinds of this registry; without, there are the built-in ones.
    #[must_use]
    pub fn with_kinds(self, kinds: Registry) -> Self {
        Self { kinds, ..self }
    }

    /// Drops expired pins of lists, until the service is stopped.
    pub fn sweep(&self) -> impl Future<Output = ()> + Send + use<> {
        self.pins
            .clone()
            .sweep(self.store.clone(), self.stop.clone())
    }

    /// Checks that all managers know the fields of these objects.
    async fn understood(&self, objects: &[Object]) -> Result<(), ApiError> {
        let level = objects.iter().map(level::of_object).max().unwrap_or(0);
        let known = || self.store.read(State::feature_level);
        if level <= known() {
            return Ok(());
        }
        // It may have risen, and this manager not have heard of it.
        self.store.read_index().await?;
        check_level(level, known())
    }

    /// Applies here or at the leader.
    async fn applied(
        &self,
        caller: &Caller,
        mut request: ApplyRequest,
        way: Way,
    ) -> Result<ApplyResponse, Status> {
        for object in &request.objects {
            caller
                .concerns
                .note(|| names::of_object(&self.kinds, object));
        }
        if request.dry_run {
            caller.concerns.only_asks();
        }
        // Sent on to an older manager that leads, they would lose what it does not know.
        self.understood(&request.objects).await?;
        let repeat = Repeat::of(request.request_id.as_ref(), request.dry_run);
        // What is asked is told from what was asked before by the rest of the request.
        let id = request.request_id.take();
        self.to_leader
            .run(
                caller,
                Arc::new(request),
                repeat,
                |request| {
                    let (store, kinds, access) = (&self.store, &self.kinds, &caller.access);
                    let (vault, reserved) = (&self.vault, &*self.reserved);
                    let edge = apply::Edge {
                        vault,
                        reserved,
                        kinds,
                    };
                    let id = id.as_ref();
                    async move {
                        gate::check_wanted(access, store, kinds, &request.objects).await?;
                        let by = caller.name();
                        let answer =
                            apply::apply(store, edge, by, access, (&request, way), id).await?;
                        Ok(gate::shown_results(access, store, answer))
                    }
                },
                |channel, request| {
                    let request = request.map(|request| ApplyRequest {
                        request_id: id.clone(),
                        ..ApplyRequest::clone(&request)
                    });
                    async move {
                        match way {
                            Way::Merged => ApiClient::new(channel).apply(request).await,
                            Way::Replacing(level) => {
                                let request = request.map(|it| as_update(it, level));
                                let answer = ApiClient::new(channel).update(request).await?;
                                Ok(answer.map(|it| ApplyResponse {
                                    results: it.result.into_iter().collect(),
                                    revision: it.revision,
                                    warnings: it.warnings,
                                }))
                            }
                        }
                    }
                },
            )
            .await
    }
}

/// Refuses what not all managers know.
///
/// # Errors
/// PRECONDITION.
fn check_level(level: u32, known: u32) -> Result<(), ApiError> {
    match level <= known {
        true => Ok(()),
        false => Err(ApiError::Precondition(format!(
            "this needs feature level {level}, the cluster is at {known}: upgrade all managers first"
        ))),
    }
}

/// An update of the one object of the request, by a program that knows the fields up to `level`.
fn as_update(request: ApplyRequest, level: u32) -> UpdateRequest {
    UpdateRequest {
        level,
        object: request.objects.into_iter().next(),
        request_id: request.request_id,
        dry_run: request.dry_run,
        field_manager: request.field_manager,
    }
}

#[tonic::async_trait]
impl api_server::Api for ApiService {
    type ApplyStreamStream = ReceiverStream<Result<ApplyStreamResponse, Status>>;
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let answer = self.applied(&caller, request, Way::Merged).await?;
        Ok(Response::new(answer))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let level = match request.level {
            0 => level::PODS,
            level => level,
        };
        let request = ApplyRequest {
            objects: request.object.into_iter().collect(),
            request_id: request.request_id,
            dry_run: request.dry_run,
            field_manager: request.field_manager,
            ..ApplyRequest::default()
        };
        let mut answer = self
            .applied(&caller, request, Way::Replacing(level))
            .await?;
        Ok(Response::new(UpdateResponse {
            result: answer.results.pop(),
            revision: answer.revision,
            warnings: answer.warnings,
        }))
    }

    async fn apply_stream(
        &self,
        request: Request<Streaming<ApplyStreamRequest>>,
    ) -> Result<Response<Self::ApplyStreamStream>, Status> {
        let caller = Caller::of(&request)?;
        // Its requests are written down, each by itself.
        caller.concerns.only_asks();
        let stream = self.shares.stream(&caller)?;
        let share = request.extensions().get::<Arc<Share>>().cloned();
        if let Some(share) = &share {
            share.is_stream();
        }
        // Not the stream's own span: its requests are sampled one by one, and it may last for days.
        let origin = spans::origin(request.metadata().as_ref());
        let (answers, sent) = mpsc::channel(1);
        tokio::spawn(pipeline::run(
            self.clone(),
            caller,
            share,
            stream,
            origin,
            request.into_inner(),
            answers,
        ));
        Ok(Response::new(ReceiverStream::new(sent)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let access = Caller::of(&request)?.access;
        let request = request.into_inner();
        let info = names::resolve(&self.kinds, request.kind, request.custom.as_ref())?;
        if !request.stale {
            self.store.read_index().await.map_err(ApiError::from)?;
        }
        let mut answer = self.store.read(|state| {
            let place = (request.namespace.as_str(), request.name.as_str());
            gate::check_one(&access, state, "get", (&info, ""), place)?;
            read::get(state, &info, &request)
        })?;
        answer.object = answer.object.map(|it| self.vault.open(it)).transpose()?;
        Ok(Response::new(answer))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let caller = Caller::of(&request)?;
        let access = &caller.access;
        let request = request.into_inner();
        if !access.is_everything() {
            if !request.stale {
                access.refreshed(&self.store).await?;
            }
            let info = names::resolve(&self.kinds, request.kind, request.custom.as_ref())?;
            let name = gate::name_selected(request.kind, &request.field_selector);
            let place = (request.namespace.as_str(), name.as_str());
            self.store
                .read(|state| gate::check(access, state, "list", (&info, ""), place))?;
        }
        let by = caller.name();
        let mut answer = read::list(&self.store, &self.pins, &self.kinds, &by, &request).await?;
        let shown = answer.objects.into_iter();
        let shown = shown.map(|it| gate::shown(access, &self.store, it));
        answer.objects = self.vault.open_all(shown.collect())?;
        Ok(Response::new(answer))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        caller.concerns.note(|| {
            let (namespace, name) = (&request.namespace, &request.name);
            names::of_request(
                &self.kinds,
                request.kind,
                request.custom.as_ref(),
                namespace,
                name,
            )
        });
        if request.dry_run {
            caller.concerns.only_asks();
        }
        let here = |request: DeleteRequest| {
            let (store, by, access) = (self.store.clone(), caller.name(), caller.access.clone());
            let kinds = self.kinds.clone();
            async move {
                let place = (request.namespace.as_str(), request.name.as_str());
                let info = names::resolve(&kinds, request.kind, request.custom.as_ref())?;
                gate::check_fresh(&access, &store, "delete", (&info, ""), place).await?;
                delete::delete(&store, &kinds, by, request).await
            }
        };
        self.to_leader.call(&caller, request, here).await
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(&request)?;
        let share = self.shares.stream(&caller)?;
        let request = request.into_inner();
        let access = caller.access.clone();
        access.refreshed(&self.store).await?;
        let still = watch::right(self.store.clone(), &self.kinds, &caller, &request)?;
        still()?;
        let stream = watch::open(&self.store, &self.vault, &self.kinds, &access, &request).await?;
        let stream = while_allowed(stream, !access.is_everything(), still);
        let shared = holding(share, stream);
        Ok(Response::new(until_stopped(shared, &self.stop)))
    }

    async fn scale(
        &self,
        request: Request<ScaleRequest>,
    ) -> Result<Response<ScaleResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        caller.concerns.note(|| {
            let (namespace, name) = (&request.namespace, &request.name);
            names::of_request(&self.kinds, request.kind, None, namespace, name)
        });
        let here = |request: ScaleRequest| {
            let (store, by, access) = (self.store.clone(), caller.name(), caller.access.clone());
            async move {
                let (_, info) = names::kind(request.kind)?;
                let what = (info, "scale");
                let place = (request.namespace.as_str(), request.name.as_str());
                gate::check_fresh(&access, &store, "patch", what, place).await?;
                let mut answer = scale::scale(&store, by, request).await?;
                let object = answer.object.take();
                answer.object =
                    object.map(|it| store.read(|state| gate::scaled(&access, state, it)));
                Ok(answer)
            }
        };
        self.to_leader.call(&caller, request, here).await
    }

    async fn rollout(
        &self,
        request: Request<RolloutRequest>,
    ) -> Result<Response<RolloutResponse>, Status> {
        let caller = Caller::of(&request)?;
        let here = |request: RolloutRequest| {
            let (store, by, access) = (self.store.clone(), caller.name(), caller.access.clone());
            async move {
                let place = (request.namespace.as_str(), request.name.as_str());
                let (_, info) = names::kind(request.kind)?;
                gate::check_fresh(&access, &store, "patch", (info, ""), place).await?;
                rollout::change(&store, by, request).await
            }
        };
        self.to_leader
            .call(&caller, request.into_inner(), here)
            .await
    }

    async fn rollout_history(
        &self,
        request: Request<RolloutHistoryRequest>,
    ) -> Result<Response<RolloutHistoryResponse>, Status> {
        let access = Caller::of(&request)?.access;
        let request = request.into_inner();
        self.store.read_index().await.map_err(ApiError::from)?;
        let answer = self.store.read(|state| {
            let place = (request.namespace.as_str(), request.name.as_str());
            let (_, info) = names::kind(request.kind)?;
            gate::check_one(&access, state, "get", (info, ""), place)?;
            rollout::history(state, &request)
        })?;
        Ok(Response::new(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_not_all_managers_know_is_refused_before_it_is_sent_on() {
        assert!(check_level(8, 8).is_ok());
        assert!(check_level(0, 1).is_ok());
        let refused = check_level(8, 7).unwrap_err().to_string();
        assert!(refused.contains("upgrade all managers first"), "{refused}");
    }
}
