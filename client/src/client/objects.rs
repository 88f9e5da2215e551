//! Objects: apply, get, list, delete, scale, roll.

use barge_proto::{level, limits::REQUEST_BYTES};
use prost::Message;
use tonic::{Code, Streaming};

use super::{Client, attempt::Repeat};
use crate::{
    channel::{ApiChannel, MESSAGE_BYTES},
    error::ClientError,
    pipeline,
    v1::{
        ApplyRequest, ApplyResponse, DeleteRequest, DeletionPropagation, GetRequest, Kind,
        ListRequest, ListResponse, Object, RolloutHistoryRequest, RolloutRequest, ScaleRequest,
        TemplateRevision, UpdateRequest, UpdateResponse, WatchRequest, WatchResponse,
        api_client::ApiClient, rollout_request::Action as RolloutAction,
    },
};

/// Which objects: all of a kind, or those of a namespace, with certain labels, of an owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The kind.
    pub kind: Kind,
    /// Empty means all namespaces.
    pub namespace: String,
    /// As kubectl's: `app=nginx,tier!=db,env in (a,b),!x`; empty means all.
    pub labels: String,
    /// As kubectl's: `metadata.name=a,status.phase!=Running`; empty means all.
    pub fields: String,
    /// When set, only the object of this name. Watches only.
    pub name: String,
    /// When set, only objects that belong to the one with this uid, and events about it. Lists only.
    pub owner_uid: String,
}

impl Selection {
    /// All objects of a kind in a namespace; an empty one means all namespaces.
    #[must_use]
    pub fn of(kind: Kind, namespace: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            ..Self::default()
        }
    }
}

/// Objects as they were at a revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The objects, by namespace and name.
    pub objects: Vec<Object>,
    /// The revision, and where a watch should begin; that of the first objects when not all are of one.
    pub revision: u64,
    /// Whether all objects are of the revision. A list that lasts longer than managers keep it for goes on with what there is then, so
    /// later objects may be newer.
    pub consistent: bool,
}

/// What to heed when deleting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// When set, only this incarnation is deleted.
    pub uid: String,
    /// When set, only if it has not changed since this resourceVersion.
    pub resource_version: String,
    /// What becomes of what the object owns; by default it is ended in the background.
    pub propagation: DeletionPropagation,
    /// Answer as if, but change nothing.
    pub dry_run: bool,
    /// Seconds instead of the pod's own grace period.
    pub grace_period_seconds: Option<i64>,
}

/// How to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// In whose name fields are set; the cluster's default ("barge") when empty.
    pub field_manager: String,
    /// Take over fields that others set to other values, instead of failing with the reason `FIELD_CONFLICT`.
    pub force: bool,
    /// Answer as if, but change nothing: what would be refused is refused.
    pub dry_run: bool,
    /// Answer with outcomes and the revision alone, without objects: less work for both sides when the caller does not read them.
    pub omit_objects: bool,
    /// Send it over one stream with all others that ask for it, instead of with a call of its own: for programs that write a
    /// lot. They are carried out in no particular order.
    pub pipelined: bool,
}

/// What to heed when changing one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateOptions {
    /// In whose name fields are set; the cluster's default ("barge") when empty.
    pub field_manager: String,
    /// When set, only if the object has not changed since this resourceVersion.
    pub resource_version: String,
}

/// What a request id adds to a request, at most.
const REQUEST_ID_BYTES: usize = 64;

/// How often a list is begun again that cannot be gone on with.
const LIST_TRIES: usize = 3;

pub(super) fn api(channel: ApiChannel) -> ApiClient<ApiChannel> {
    ApiClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

impl Client {
    /// Creates or changes objects, all of them or none: what the same manager applied before and leaves out now goes, what
    /// others set stays.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn apply(
        &self,
        objects: Vec<Object>,
        options: &ApplyOptions,
    ) -> Result<ApplyResponse, ClientError> {
        let request = ApplyRequest {
            objects,
            request_id: None,
            dry_run: options.dry_run,
            field_manager: options.field_manager.clone(),
            force: options.force,
            omit_objects: options.omit_objects,
        };
        let size = request.encoded_len() + REQUEST_ID_BYTES;
        if size > REQUEST_BYTES {
            return Err(ClientError::TooLarge {
                size,
                max: REQUEST_BYTES,
            });
        }
        let pipelined = options.pipelined && size <= pipeline::LARGEST;
        let response = self
            .change_at(|manager, id| {
                let mut request = request.clone();
                request.request_id = Some(id);
                async move {
                    if pipelined {
                        match manager.pipeline().apply(request.clone()).await {
                            // A manager of an earlier version.
                            Err(status) if status.code() == Code::Unimplemented => {}
                            answer => return answer,
                        }
                    }
                    api(manager.channel).apply(request).await
                }
            })
            .await?;
        self.saw(response.revision);
        Ok(response)
    }

    /// Puts an object in the place of the one that it was read as: what it leaves out goes, whoever set it, and what differs
    /// belongs to the field manager from now on. Its resourceVersion must be the one that was read. With `dry_run` nothing changes.
    ///
    /// # Errors
    /// See [`ClientError`]; the reason `CONFLICT` when the object has changed since it was read.
    pub async fn update(
        &self,
        object: Object,
        field_manager: &str,
        dry_run: bool,
    ) -> Result<UpdateResponse, ClientError> {
        let request = UpdateRequest {
            object: Some(object),
            request_id: None,
            dry_run,
            field_manager: field_manager.to_owned(),
            level: level::NEWEST,
        };
        let size = request.encoded_len() + REQUEST_ID_BYTES;
        if size > REQUEST_BYTES {
            return Err(ClientError::TooLarge {
                size,
                max: REQUEST_BYTES,
            });
        }
        let response = self
            .change(|channel, id| {
                let mut request = request.clone();
                request.request_id = Some(id);
                async move { api(channel).update(request).await }
            })
            .await?;
        self.saw(response.revision);
        Ok(response)
    }

    /// The object of this kind and name, as of now. The namespace is empty for kinds without one.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::is_not_found`] when there is none.
    pub async fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Object, ClientError> {
        let request = GetRequest {
            kind: kind.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            stale: false,
            custom: None,
        };
        let response = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { api(channel).get(request).await }
            })
            .await?;
        self.saw(response.revision);
        response.object.ok_or(ClientError::Answer("the object"))
    }

    /// As [`Client::get`], with `None` for an object that does not exist.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn find(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, ClientError> {
        match self.get(kind, namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a selection, page by page. They are of one revision unless managers cannot keep it for as long as the list lasts
    /// (see [`Listing::consistent`]); each object is listed once, and the list ends however much is written meanwhile.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&self, selection: &Selection) -> Result<Listing, ClientError> {
        self.list_tried(selection, true).await
    }

    /// As [`Client::list`], all of one revision: what a watch goes on from.
    ///
    /// # Errors
    /// See [`ClientError`]; the reason `EXPIRED` when managers cannot keep the list for as long as it lasts.
    pub async fn list_consistent(&self, selection: &Selection) -> Result<Listing, ClientError> {
        self.list_tried(selection, false).await
    }

    async fn list_tried(
        &self,
        selection: &Selection,
        may_resume: bool,
    ) -> Result<Listing, ClientError> {
        let mut tries = 1;
        loop {
            match self.list_pages(selection, may_resume).await {
                Err(error) if error.reason() == Some("EXPIRED") && tries < LIST_TRIES => tries += 1,
                listed => return listed,
            }
        }
    }

    async fn list_pages(
        &self,
        selection: &Selection,
        may_resume: bool,
    ) -> Result<Listing, ClientError> {
        let mut request = ListRequest {
            kind: selection.kind.into(),
            namespace: selection.namespace.clone(),
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            owner_uid: selection.owner_uid.clone(),
            ..ListRequest::default()
        };
        let mut listing = Listing {
            objects: Vec::new(),
            revision: 0,
            consistent: true,
        };
        // Where the list was gone on with anew last: a manager that cannot go on from there either has the last word.
        let mut resumed = String::new();
        loop {
            let page = match self.list_page(request.clone()).await {
                Ok(page) => page,
                Err(error) => match error.resume() {
                    Some(token) if may_resume && token != resumed => {
                        listing.consistent = false;
                        token.clone_into(&mut resumed);
                        token.clone_into(&mut request.r#continue);
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            listing.objects.extend(page.objects);
            if listing.revision == 0 {
                listing.revision = page.revision;
            }
            // A page may be empty and not the last: managers look at a bounded number of objects for each.
            if page.r#continue.is_empty() {
                return Ok(listing);
            }
            request.r#continue = page.r#continue;
        }
    }

    /// One page of a list, which may be empty and not the last one.
    ///
    /// # Errors
    /// See [`ClientError`]; the reason `EXPIRED` when the pages before are not kept any more, with a token that goes on behind them
    /// with what there is now ([`crate::error::Refusal`]).
    pub async fn list_page(&self, request: ListRequest) -> Result<ListResponse, ClientError> {
        let page = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { api(channel).list(request).await }
            })
            .await?;
        self.saw(page.revision);
        Ok(page)
    }

    /// Asks for the cluster's revision as of now.
    pub(super) async fn learn_revision(&self) -> Result<(), ClientError> {
        let request = ListRequest {
            kind: Kind::Namespace.into(),
            limit: 1,
            ..ListRequest::default()
        };
        match self.list_page(request).await {
            Ok(_) => Ok(()),
            // Not every user may list namespaces; every user may ask for its own name.
            Err(error) if error.reason() == Some("DENIED") => {
                let who = self.who_am_i().await?;
                self.saw(who.revision);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Changes after a revision. Ends with the connection: [`Client::list_and_watch`] resumes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(
        &self,
        selection: &Selection,
        revision: u64,
    ) -> Result<Streaming<WatchResponse>, ClientError> {
        let request = WatchRequest {
            kind: selection.kind.into(),
            namespace: selection.namespace.clone(),
            label_selector: selection.labels.clone(),
            field_selector: selection.fields.clone(),
            revision,
            name: selection.name.clone(),
            custom: None,
        };
        self.call(Repeat::Safe, |channel| {
            let request = request.clone();
            async move { api(channel).watch(request).await }
        })
        .await
    }

    /// Deletes an object. Answers with it as it was, or as it is now while it ends gracefully.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Object, ClientError> {
        let request = DeleteRequest {
            kind: kind.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: options.uid.clone(),
            grace_period_seconds: options.grace_period_seconds,
            request_id: None,
            resource_version: options.resource_version.clone(),
            propagation: options.propagation.into(),
            dry_run: options.dry_run,
            custom: None,
        };
        let response = self
            .change(|channel, id| {
                let mut request = request.clone();
                request.request_id = Some(id);
                async move { api(channel).delete(request).await }
            })
            .await?;
        self.saw(response.revision);
        response.object.ok_or(ClientError::Answer("the object"))
    }

    /// Sets the number of replicas, and nothing else.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn scale(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        replicas: i32,
        options: &UpdateOptions,
    ) -> Result<Object, ClientError> {
        let request = ScaleRequest {
            kind: kind.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            replicas,
            request_id: None,
            field_manager: options.field_manager.clone(),
            resource_version: options.resource_version.clone(),
        };
        let response = self
            .change(|channel, id| {
                let mut request = request.clone();
                request.request_id = Some(id);
                async move { api(channel).scale(request).await }
            })
            .await?;
        self.saw(response.revision);
        response.object.ok_or(ClientError::Answer("the object"))
    }

    /// Pauses, resumes, restarts or rolls back.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rollout(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        action: RolloutAction,
        options: &UpdateOptions,
    ) -> Result<Object, ClientError> {
        let request = RolloutRequest {
            kind: kind.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            action: Some(action),
            field_manager: options.field_manager.clone(),
            resource_version: options.resource_version.clone(),
            ..RolloutRequest::default()
        };
        let response = self
            .change(|channel, id| {
                let mut request = request.clone();
                request.request_id = Some(id);
                async move { api(channel).rollout(request).await }
            })
            .await?;
        self.saw(response.revision);
        response.object.ok_or(ClientError::Answer("the object"))
    }

    /// The templates that an object has had and that are still kept, the oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rollout_history(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Vec<TemplateRevision>, ClientError> {
        let request = RolloutHistoryRequest {
            kind: kind.into(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let response = self
            .call(Repeat::Safe, |channel| {
                let request = request.clone();
                async move { api(channel).rollout_history(request).await }
            })
            .await?;
        self.saw(response.revision);
        Ok(response.revisions)
    }
}
