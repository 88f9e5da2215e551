//! The ServiceAccounts service: tokens of service accounts, made and reviewed, and the keys that sign them. Any manager answers: making a token writes
//! nothing. Only the rotation of the key goes to the leader.

use std::sync::Arc;

use barge_proto::v1::{
    BoundPod, ClusterRecord, GetTokenKeysRequest, GetTokenKeysResponse, RequestTokenRequest,
    RequestTokenResponse, ReviewTokenRequest, ReviewTokenResponse, Role, RotateTokenKeyRequest,
    RotateTokenKeyResponse, Time, service_accounts_server::ServiceAccounts,
};
use barge_state::Kind;
use tonic::{Request, Response, Status};

use crate::{
    calls::leader::ToLeader,
    error::ApiError,
    pki::{Keyring, jws},
    runtime::clock,
    security::{
        auth::{Caller, Principal},
        issue::not_ready,
        rbac::Asked,
        tokens::{
            self, Claims, Holder, keys,
            mint::{self, Asker},
        },
    },
    store::Store,
};

/// What the service works with.
pub struct Parts {
    /// The state.
    pub store: Store,
    /// The way to the leader.
    pub to_leader: ToLeader,
    /// Opens the keys of tokens.
    pub keyring: Keyring,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct AccountsService(Arc<Parts>);

impl AccountsService {
    /// Puts the service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    fn cluster(&self) -> Result<Arc<ClusterRecord>, ApiError> {
        let cluster = self.0.store.read(|state| state.cluster().cloned());
        cluster.ok_or_else(not_ready)
    }

    /// Makes the token that was asked for.
    async fn make(
        &self,
        request: &RequestTokenRequest,
        asker: Asker<'_>,
    ) -> Result<RequestTokenResponse, ApiError> {
        let store = &self.0.store;
        let cluster = self.cluster()?;
        let issuer = tokens::issuer(cluster.uid());
        let now = clock::now().seconds;
        let plan = || store.read(|state| mint::claims(state, request, asker, &issuer, now));
        let mut claims = plan();
        if matches!(claims, Err(ApiError::NotFound(_) | ApiError::Denied(_))) {
            // This manager may be behind: an agent hears of its pods from another one.
            store.read_index().await?;
            claims = plan();
        }
        let claims = Claims {
            jti: clock::new_uid(),
            ..claims?
        };
        // The record may be newer now: a key that was made since counts.
        let signer = keys::signer(&*self.cluster()?, &self.0.keyring, now)?;
        let json = serde_json::to_vec(&claims)
            .map_err(|error| ApiError::Internal(format!("the claims of a token: {error}")))?;
        let token = signer.sign(&json)?;
        if token.len() > jws::MAX_TOKEN {
            let rule = "are so long that no manager would take the token";
            return Err(ApiError::invalid("audiences", rule));
        }
        Ok(RequestTokenResponse {
            token,
            issued: seconds(claims.iat),
            expires: seconds(claims.exp),
            bound_pod: bound_pod(&claims),
        })
    }

    fn review(&self, request: &ReviewTokenRequest) -> Result<ReviewTokenResponse, ApiError> {
        let cluster = self.cluster()?;
        let audiences = match request.audiences.as_slice() {
            [] => vec![tokens::issuer(cluster.uid())],
            some => some.to_vec(),
        };
        let not = |error: String| ReviewTokenResponse {
            error,
            ..ReviewTokenResponse::default()
        };
        let now = clock::now().seconds;
        let checked = tokens::check(&cluster, &request.token, &audiences, now);
        let (claims, audiences) = match checked {
            Ok(good) => good,
            Err(refused) => return Ok(not(refused.to_string())),
        };
        let account = self.0.store.read(|state| Holder::check(state, &claims));
        Ok(match account {
            Err(gone) => not(gone),
            Ok(account) => {
                let identity = account.identity();
                ReviewTokenResponse {
                    authenticated: true,
                    error: String::new(),
                    user: identity.user,
                    uid: account.named.uid,
                    groups: identity.groups,
                    audiences,
                    bound_pod: bound_pod(&claims),
                }
            }
        })
    }
}

fn seconds(seconds: i64) -> Option<Time> {
    Some(Time { seconds, nanos: 0 })
}

fn bound_pod(claims: &Claims) -> Option<BoundPod> {
    claims.bound.pod.as_ref().map(|pod| BoundPod {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    })
}

#[tonic::async_trait]
impl ServiceAccounts for AccountsService {
    async fn request_token(
        &self,
        request: Request<RequestTokenRequest>,
    ) -> Result<Response<RequestTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        if let Some(Principal {
            role: Role::Agent,
            uid,
        }) = &caller.principal
        {
            // As the other traffic of the cluster's own machines, it is not written down.
            caller.concerns.only_asks();
            let made = self.make(&request, Asker::Agent(uid)).await?;
            return Ok(Response::new(made));
        }
        let (namespace, name) = mint::account_of(&request);
        let concerned = format!("serviceaccount {namespace}/{name}");
        caller.concerns.note(|| concerned);
        caller.access.refreshed(&self.0.store).await?;
        let asked = Asked {
            verb: "create",
            resource: "serviceaccounts",
            part: "token",
            namespace,
            name,
            ..Asked::default()
        };
        let allowed = |state: &_| caller.access.check(state, [asked]);
        self.0.store.read(allowed)?;
        let made = self.make(&request, Asker::User).await?;
        Ok(Response::new(made))
    }

    async fn review_token(
        &self,
        request: Request<ReviewTokenRequest>,
    ) -> Result<Response<ReviewTokenResponse>, Status> {
        Caller::of(&request)?.concerns.only_asks();
        // A token that is refused here may be bound to a pod that this manager has not heard of.
        self.0.store.read_index().await.map_err(ApiError::from)?;
        Ok(Response::new(self.review(request.get_ref())?))
    }

    async fn get_token_keys(
        &self,
        _: Request<GetTokenKeysRequest>,
    ) -> Result<Response<GetTokenKeysResponse>, Status> {
        Ok(Response::new(published(&*self.cluster()?)))
    }

    async fn rotate_token_key(
        &self,
        request: Request<RotateTokenKeyRequest>,
    ) -> Result<Response<RotateTokenKeyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let here = |request: RotateTokenKeyRequest| {
            let (parts, by) = (self.0.clone(), caller.name());
            async move {
                let done = keys::rotate(&parts.store, &parts.keyring, &by, &request).await;
                done.map(|id| RotateTokenKeyResponse { id })
            }
        };
        let to_leader = &self.0.to_leader;
        to_leader.call(&caller, request.into_inner(), here).await
    }
}

/// What the cluster publishes of its keys.
#[must_use]
pub fn published(cluster: &ClusterRecord) -> GetTokenKeysResponse {
    let issuer = tokens::issuer(cluster.uid());
    let keys = cluster.token_keys.iter();
    let newest = cluster.token_keys.first();
    GetTokenKeysResponse {
        newest: newest.map(|key| key.id.clone()).unwrap_or_default(),
        jwks: jws::key_set(keys.map(|key| key.public_key.as_slice())),
        openid_configuration: tokens::openid_configuration(&issuer),
        issuer,
    }
}
