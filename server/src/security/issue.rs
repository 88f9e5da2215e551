//! Signing certificates: with the root's key, which lies sealed in the state and is opened for as long as it takes.

use std::time::{Duration, SystemTime};

use barge_client::{
    identity::Identity,
    renew::{RenewError, Request},
};
use barge_proto::v1::RenewResponse;

use crate::{
    error::ApiError,
    pki::{Authority, Keyring, Purpose, RequestedKey, Subject, chain},
    store::Store,
};

/// Signs for this manager. Cheap to clone.
#[derive(Clone)]
pub struct Issuer {
    store: Store,
    keyring: Keyring,
    lifetime: Duration,
}

impl Issuer {
    /// Signs by what `store` and `keyring` hold, certificates that live so long.
    #[must_use]
    pub fn new(store: Store, keyring: Keyring, lifetime: Duration) -> Self {
        Self {
            store,
            keyring,
            lifetime,
        }
    }

    /// What this manager has of the sealing key.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// A certificate for the holder of `key` that ends with `left`, if that ends, and the roots to trust. Who asks has
    /// made sure that it is for `subject`.
    ///
    /// # Errors
    /// NO_QUORUM while this manager has no state; PRECONDITION while it is locked; INTERNAL when the sealing
    /// key does not open the root's key.
    pub fn issue(
        &self,
        subject: &Subject,
        key: &RequestedKey,
        left: Option<Duration>,
    ) -> Result<RenewResponse, ApiError> {
        let cluster = self
            .store
            .read(|state| state.cluster().cloned())
            .ok_or_else(not_ready)?;
        let root = cluster.roots.first().ok_or_else(not_ready)?;
        let ca_key = self
            .keyring
            .key()?
            .open(Purpose::AuthorityKey, &cluster.sealed_ca_key)?;
        let certificate = Authority::open(root, &ca_key)?.issue(
            subject,
            key,
            SystemTime::now(),
            left.map_or(self.lifetime, |left| left.min(self.lifetime)),
        )?;
        Ok(RenewResponse {
            certificate_chain: chain(&cluster, certificate)
                .into_iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            roots: cluster.roots.clone(),
        })
    }

    /// This manager's own next identity. A manager whose certificate has expired, and whom no other would answer, needs nobody
    /// for that, and comes back by itself; any other makes sure first that it knows which root signs.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub async fn renew(&self, identity: &Identity) -> Result<Identity, RenewError> {
        let refused = |error: ApiError| RenewError::Refused(error.to_string());
        if identity.validity()?.check(SystemTime::now()).is_ok() {
            self.store
                .read_index()
                .await
                .map_err(|error| refused(error.into()))?;
        }
        let leaf = identity.chain.first().map(|leaf| leaf.as_ref());
        let subject = Subject::from_certificate(leaf.unwrap_or_default())
            .map_err(|error| refused(error.into()))?;
        let request = Request::new()?;
        let key = RequestedKey::from_csr(&request.csr).map_err(|error| refused(error.into()))?;
        let response = self.issue(&subject, &key, None).map_err(refused)?;
        request.complete(identity, response)
    }
}

/// What is said until the first entries have arrived.
pub fn not_ready() -> ApiError {
    ApiError::NoQuorum("this manager has not caught up yet".to_owned())
}
