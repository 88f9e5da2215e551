//! The Access service: callers ask for their own rights. Any manager answers, after a read index.

use barge_proto::v1::{
    AccessReviewRequest, AccessReviewResponse, CredentialRecord, ListRulesRequest,
    ListRulesResponse, PolicyRule, WhoAmIRequest, WhoAmIResponse, access_server,
};
use barge_state::{Kind, State};
use tonic::{Request, Response, Status};

use crate::{
    error::ApiError,
    security::{
        auth::{Access, Caller},
        rbac::{Asked, Identity, Review, review::everything},
        tokens::Holder,
    },
    store::Store,
};

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct AccessService(pub Store);

#[tonic::async_trait]
impl access_server::Access for AccessService {
    async fn review(
        &self,
        request: Request<AccessReviewRequest>,
    ) -> Result<Response<AccessReviewResponse>, Status> {
        let access = Caller::of(&request)?.access;
        let request = request.into_inner();
        for (field, value) in [("verb", &request.verb), ("resource", &request.resource)] {
            if value.is_empty() {
                return Err(ApiError::invalid(field, "is required").into());
            }
        }
        let asked = Asked {
            verb: &request.verb,
            group: &request.group,
            resource: &request.resource,
            part: &request.subresource,
            namespace: &request.namespace,
            name: &request.name,
        };
        access.refreshed(&self.0).await?;
        let (allowed, revision) = self
            .0
            .read(|state| (access.may(state, &asked), state.revision()));
        let reason = match allowed {
            true => String::new(),
            false => access.refusal(&asked.to_string()),
        };
        Ok(Response::new(AccessReviewResponse {
            allowed,
            reason,
            revision,
        }))
    }

    async fn list_rules(
        &self,
        request: Request<ListRulesRequest>,
    ) -> Result<Response<ListRulesResponse>, Status> {
        let access = Caller::of(&request)?.access;
        access.refreshed(&self.0).await?;
        let namespace = request.into_inner().namespace;
        let rules = self.0.read(|state| rules(state, &access, &namespace));
        Ok(Response::new(ListRulesResponse { rules }))
    }

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let principal = Caller::of(&request)?.principal;
        let uid = principal.map(|principal| principal.uid).unwrap_or_default();
        self.0
            .read(|state| who(state, &uid))
            .map(Response::new)
            .ok_or_else(|| ApiError::NotFound("the credential is gone".to_owned()).into())
    }
}

fn rules(state: &State, access: &Access, namespace: &str) -> Vec<PolicyRule> {
    match access {
        Access::Everything => vec![everything()],
        Access::Bound(who) => Review::new(state, who).rules(namespace),
        Access::Nothing => Vec::new(),
    }
}

fn who(state: &State, uid: &str) -> Option<WhoAmIResponse> {
    if let Some(holder) = Holder::parse(uid) {
        let account = holder.account(state)?;
        let Identity { user, groups } = account.identity();
        return Some(WhoAmIResponse {
            user,
            groups,
            credential: "token".to_owned(),
            uid: account.named.uid,
            revision: state.revision(),
        });
    }
    let credential = state.by_uid::<CredentialRecord>(uid)?;
    let Identity { user, groups } = Identity::of(credential);
    Some(WhoAmIResponse {
        user,
        groups,
        credential: credential.meta().name.clone(),
        uid: uid.to_owned(),
        revision: state.revision(),
    })
}
