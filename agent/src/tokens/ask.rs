//! Asks managers for tokens.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use barge_proto::v1::{
    BoundPod, RequestTokenRequest, service_accounts_client::ServiceAccountsClient,
};
use rand::seq::SliceRandom;
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Status, transport::Channel};

use super::{TokenRequest, seconds};
use crate::{
    managers::{Managers, cause},
    session::Open,
};

/// For one manager to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Managers that are asked in one try: the one of the session, and others.
const MANAGERS: usize = 3;

/// A token, as a manager made it.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The token.
    pub value: String,
    /// How long it is good from now on.
    pub life: Duration,
}

/// Where tokens come from.
#[async_trait]
pub trait Ask: Send + Sync + 'static {
    /// Gets a token. A failure is a sentence for people.
    async fn ask(&self, request: &TokenRequest) -> Result<Answer, String>;

    /// Nothing is asked for now.
    fn rest(&self) {}
}

/// Asks the manager that the session is with, over the session's own connection, and others when that one cannot.
pub struct FromManagers {
    managers: Arc<dyn Managers>,
    chosen: watch::Receiver<Option<String>>,
    session: watch::Receiver<Open>,
    /// To the other manager that was asked last; closed when nothing is asked for.
    open: Mutex<Option<(String, Channel)>>,
}

impl FromManagers {
    /// `chosen` names the manager that the session is to be with, `session` has the connection while it is.
    pub fn new(
        managers: Arc<dyn Managers>,
        chosen: watch::Receiver<Option<String>>,
        session: watch::Receiver<Open>,
    ) -> Self {
        Self {
            managers,
            chosen,
            session,
            open: Mutex::default(),
        }
    }

    /// Whom to ask, in order.
    fn addresses(&self) -> Vec<String> {
        let chosen = self.chosen.borrow().clone();
        let mut others = self.managers.addresses();
        others.extend(self.managers.by_hand());
        others.retain(|address| Some(address) != chosen.as_ref());
        others.shuffle(&mut rand::rng());
        let all = chosen.into_iter().chain(others);
        all.take(MANAGERS).collect()
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        if let Some((to, channel)) = &*self.session.borrow()
            && to == address
        {
            return Ok(channel.clone());
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((to, channel)) = &*open
            && to == address
        {
            return Ok(channel.clone());
        }
        let channel = self.managers.channel(address)?;
        *open = Some((address.to_owned(), channel.clone()));
        Ok(channel)
    }

    async fn of(&self, address: &str, request: &TokenRequest) -> Result<Answer, Status> {
        let channel = self.channel(address).map_err(Status::unavailable)?;
        let wanted = RequestTokenRequest {
            namespace: request.namespace.clone(),
            name: request.account.clone(),
            audiences: match request.audience.as_str() {
                "" => Vec::new(),
                audience => vec![audience.to_owned()],
            },
            expiration_seconds: request.expiration_seconds,
            bound_pod: Some(BoundPod {
                name: request.pod.clone(),
                uid: request.pod_uid.clone(),
            }),
        };
        let mut client = ServiceAccountsClient::new(channel);
        let made = timeout(PATIENCE, client.request_token(wanted)).await;
        let made = made.map_err(|_| Status::unavailable("no answer within 10 s"))??;
        let made = made.into_inner();
        let ends = made.expires.unwrap_or_default().seconds;
        let begins = made.issued.unwrap_or_default().seconds;
        Ok(Answer {
            value: made.token,
            // By the manager's clock alone: this machine's may be wrong.
            life: seconds(ends.saturating_sub(begins)),
        })
    }
}

#[async_trait]
impl Ask for FromManagers {
    async fn ask(&self, request: &TokenRequest) -> Result<Answer, String> {
        let mut why = "no manager is known".to_owned();
        for address in self.addresses() {
            match self.of(&address, request).await {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    why = format!("{address}: {}", cause(&status));
                    if is_final(&status) {
                        break;
                    }
                }
            }
        }
        Err(why)
    }

    fn rest(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether every manager would say the same. A locked one refuses with FAILED_PRECONDITION, and one of an older version does not know the call.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::NotFound | Code::PermissionDenied
    )
}
