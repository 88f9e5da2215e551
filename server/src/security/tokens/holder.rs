//! Whose a token is, and whether that is still there.

use std::fmt;

use barge_proto::{
    accounts,
    v1::{Namespace, PodRecord, ServiceAccount},
};
use barge_state::{Kind, State, service_account_user};

use super::{Claims, claims::Named};
use crate::{
    error::ApiError,
    security::rbac::{
        Identity,
        identity::{AUTHENTICATED, SERVICE_ACCOUNTS},
    },
};

/// What the uid of a principal begins with that is known by a token.
const PREFIX: &str = "sa:";

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Where it is.
    pub namespace: String,
    /// Its name and uid. An account `default` that has no object has the uid of its namespace.
    pub named: Named,
}

impl Account {
    /// The account of this name. Every namespace has the account `default`.
    ///
    /// # Errors
    /// NOT_FOUND; CONFLICT while it is being deleted.
    pub fn find(state: &State, namespace: &str, name: &str) -> Result<Self, ApiError> {
        let named = |uid: &str| Self {
            namespace: namespace.to_owned(),
            named: Named {
                name: name.to_owned(),
                uid: uid.to_owned(),
            },
        };
        match state.get::<ServiceAccount>(namespace, name) {
            Some(found) if found.is_being_deleted() => Err(ApiError::Conflict(format!(
                "serviceaccount {namespace}/{name} is being deleted: wait until it is gone and create it again"
            ))),
            Some(found) => Ok(named(found.uid())),
            None => {
                let namespace_uid = state
                    .get::<Namespace>("", namespace)
                    .filter(|_| name == accounts::DEFAULT)
                    .map(|found| named(found.uid()));
                namespace_uid.ok_or_else(|| {
                    ApiError::NotFound(format!(
                        "error looking up service account {namespace}/{name}: it does not exist; create it first"
                    ))
                })
            }
        }
    }

    /// The account of this uid, while it is not being deleted.
    #[must_use]
    pub fn by_uid(state: &State, uid: &str) -> Option<Self> {
        let (namespace, name) = match state.by_uid::<ServiceAccount>(uid) {
            Some(found) if found.is_being_deleted() => return None,
            Some(found) => {
                let meta = found.meta();
                (meta.namespace.clone(), meta.name.clone())
            }
            None => {
                let namespace = state.by_uid::<Namespace>(uid)?.meta().name.clone();
                (namespace, accounts::DEFAULT.to_owned())
            }
        };
        Some(Self {
            namespace,
            named: Named {
                name,
                uid: uid.to_owned(),
            },
        })
    }

    /// The user and groups that bindings name.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            user: service_account_user(&self.namespace, &self.named.name),
            groups: vec![
                SERVICE_ACCOUNTS.to_owned(),
                format!("{SERVICE_ACCOUNTS}:{}", self.namespace),
                AUTHENTICATED.to_owned(),
            ],
        }
    }
}

/// The account and pod of a token, by their uids, as the uid of a principal has them: "sa:ACCOUNT" or "sa:ACCOUNT:POD".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    account: String,
    pod: Option<String>,
}

impl Holder {
    /// Of a token.
    #[must_use]
    pub fn of(claims: &Claims) -> Self {
        Self {
            account: claims.bound.serviceaccount.uid.clone(),
            pod: claims.bound.pod.as_ref().map(|pod| pod.uid.clone()),
        }
    }

    /// As a principal's uid has it; `None` for one that is not known by a token.
    #[must_use]
    pub fn parse(uid: &str) -> Option<Self> {
        let rest = uid.strip_prefix(PREFIX)?;
        let (account, pod) = match rest.split_once(':') {
            Some((account, pod)) => (account, Some(pod)),
            None => (rest, None),
        };
        let well = |uid: &str| !uid.is_empty() && !uid.contains(':');
        (well(account) && pod.is_none_or(well)).then(|| Self {
            account: account.to_owned(),
            pod: pod.map(str::to_owned),
        })
    }

    /// The account alone.
    #[must_use]
    pub fn without_pod(self) -> Self {
        Self { pod: None, ..self }
    }

    /// The account, while it and the pod are there.
    #[must_use]
    pub fn account(&self, state: &State) -> Option<Account> {
        let account = Account::by_uid(state, &self.account)?;
        let has_pod = self.pod.as_ref().is_none_or(|uid| {
            let pod = state.by_uid::<PodRecord>(uid);
            pod.is_some_and(|pod| pod.namespace() == account.namespace)
        });
        has_pod.then_some(account)
    }

    /// The account that the claims name, while it and the pod are there.
    ///
    /// # Errors
    /// A sentence that says what is not there.
    pub fn check(state: &State, claims: &Claims) -> Result<Account, String> {
        let named = &claims.bound.serviceaccount;
        let holder = Self::of(claims);
        match holder.account(state) {
            Some(account)
                if account.namespace == claims.bound.namespace && account.named == *named =>
            {
                Ok(account)
            }
            _ => {
                let pod = claims.bound.pod.as_ref();
                let pod = pod.map_or(String::new(), |pod| format!(", or its pod {}", pod.name));
                Err(format!(
                    "the token is not valid (any more): the service account {}/{}{pod} is gone",
                    claims.bound.namespace, named.name
                ))
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.account)?;
        match &self.pod {
            Some(pod) => write!(f, ":{pod}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_a_principal_s_uid() {
        for (text, pod) in [("sa:a", None), ("sa:a:p", Some("p"))] {
            let holder = Holder::parse(text).unwrap();
            assert_eq!(holder.to_string(), text);
            assert_eq!(holder.pod.as_deref(), pod);
        }
        for bad in ["", "a", "sa:", "sa::p", "sa:a:", "sa:a:p:q", "8f0e"] {
            assert_eq!(Holder::parse(bad), None, "{bad:?}");
        }
    }
}
