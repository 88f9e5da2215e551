//! Keeping a certificate valid: while the process runs, a task asks a manager for the next certificate in the second half of the current one's life.

use std::time::{Duration, SystemTime};

use barge_proto::v1::{RenewRequest, RenewResponse, credentials_client::CredentialsClient};
use rand::Rng;
use rcgen::KeyPair;
use tokio::{sync::watch, time::sleep};
use tonic::transport::Channel;

use crate::{
    error,
    identity::{Identity, IdentityError, KeptIdentity, NotValid, SubjectError},
    join::certificate_request,
    tls::{TlsError, client_config},
};

/// The clock is looked at this often: it may be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(30);
/// Between two tries, at least and at most.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(3600);
/// For one manager to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The roots that an identity should hold, and how soon it renews when it holds others. The cluster says so while its CA is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Of [`Identity::roots_sha256`]; absent until the cluster has named them.
    pub roots_sha256: Option<[u8; 32]>,
    /// It renews at a random point of this time.
    pub within: Duration,
}

impl Wanted {
    fn differs(&self, identity: &Identity) -> bool {
        self.roots_sha256
            .is_some_and(|wanted| wanted != identity.roots_sha256())
    }
}

/// A key of ours, and the request for a certificate for it.
#[derive(Debug)]
pub struct Request {
    key: KeyPair,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
}

impl Request {
    /// Makes a new key.
    ///
    /// # Errors
    /// The system's random source fails.
    pub fn new() -> Result<Self, RenewError> {
        let key = KeyPair::generate()?;
        Ok(Self {
            csr: certificate_request(&key)?,
            key,
        })
    }

    /// The key, PKCS#8, PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Takes a certificate for the key into an identity, in place of the one before.
    ///
    /// # Errors
    /// The certificate is not for this key, not of the identity, or not valid by this machine's clock.
    pub fn complete(
        &self,
        identity: &Identity,
        response: RenewResponse,
    ) -> Result<Identity, RenewError> {
        let certificates = |all: Vec<Vec<u8>>| all.into_iter().map(Into::into).collect::<Vec<_>>();
        let renewed = Identity {
            key: self.key_pem(),
            chain: certificates(response.certificate_chain),
            roots: certificates(response.roots),
            ..identity.clone()
        };
        renewed.validity()?.check(SystemTime::now())?;
        let subject = renewed.subject()?;
        if subject != identity.subject()? {
            return Err(RenewError::Another(subject.uid));
        }
        // Proves that key, certificate and roots are of use.
        client_config(&renewed)?;
        Ok(renewed)
    }
}

/// Renews `identity` over a channel.
///
/// # Errors
/// What the manager says, and what is wrong with its answer.
pub async fn renew(identity: &Identity, channel: Channel) -> Result<Identity, RenewError> {
    let request = Request::new()?;
    let mut message = tonic::Request::new(RenewRequest {
        csr: request.csr.clone(),
    });
    message.set_timeout(ANSWER);
    let response = tokio::time::timeout(ANSWER, CredentialsClient::new(channel).renew(message))
        .await
        .map_err(|_| RenewError::Refused(format!("no answer within {} s", ANSWER.as_secs())))?
        .map_err(|status| RenewError::Refused(error::cause(&status)))?;
    request.complete(identity, response.into_inner())
}

/// Keeps an identity valid until it is dropped: waits for its time, or for other roots to be wanted, has `issue` get the next
/// one, and keeps it. A failure is logged and tried again. Connections follow the identity
/// ([`KeptIdentity::subscribe`]).
pub async fn keep<F, R>(kept: KeptIdentity, mut wanted: watch::Receiver<Wanted>, issue: F)
where
    F: Fn(Identity) -> R,
    R: Future<Output = Result<Identity, RenewError>>,
{
    // The wish that was answered, or waited for, last.
    let mut waited = Wanted::default();
    loop {
        let identity = kept.current();
        let validity = match identity.validity() {
            Ok(validity) => validity,
            Err(error) => {
                tracing::error!(%error, "the certificate cannot be renewed");
                return;
            }
        };
        let now = SystemTime::now();
        let wish = *wanted.borrow_and_update();
        let other_roots = wish.differs(&identity);
        if !other_roots && !validity.is_due(now) {
            let left = validity.renewal().duration_since(now).unwrap_or_default();
            until_changed(&mut wanted, left.min(LOOK)).await;
            continue;
        }
        if other_roots && wish != waited {
            waited = wish;
            let within = wish.within.mul_f64(rand::rng().random_range(0.0..=1.0));
            if !until_changed(&mut wanted, within).await {
                continue;
            }
        }
        let failed = match issue(Identity::clone(&identity)).await {
            // The manager that issued it may lag behind the one that named the wanted roots, or be ahead of it.
            Ok(renewed)
                if other_roots && renewed.roots == identity.roots && !validity.is_due(now) =>
            {
                RenewError::Refused("the manager does not know of the other roots yet".to_owned())
            }
            Ok(renewed) => match take(kept.clone(), renewed).await {
                Ok(()) => {
                    tracing::info!("the certificate was renewed");
                    if wanted.borrow().differs(&kept.current()) {
                        until_changed(&mut wanted, SOONEST).await;
                    }
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        match validity.check(now) {
            Ok(()) => {
                tracing::warn!(error = %failed, "the certificate was not renewed; trying again")
            }
            Err(invalid) => {
                tracing::error!(error = %failed, "the {invalid}, and it was not renewed; trying again");
            }
        }
        let left = validity.until.duration_since(now).unwrap_or_default();
        let pause = match other_roots {
            true => pause(left).min(SOONEST.max(wish.within)),
            false => pause(left),
        };
        until_changed(&mut wanted, pause).await;
    }
}

/// Waits so long, or until other roots are wanted; answers whether the time has passed.
async fn until_changed(wanted: &mut watch::Receiver<Wanted>, wait: Duration) -> bool {
    tokio::select! {
        () = sleep(wait) => true,
        changed = wanted.changed() => {
            if changed.is_err() {
                // The sender is gone: no other roots will be wanted.
                sleep(wait).await;
            }
            changed.is_err()
        }
    }
}

/// Keeps the key and certificates of `renewed`; addresses may have changed meanwhile and stay.
async fn take(kept: KeptIdentity, renewed: Identity) -> Result<(), RenewError> {
    let change = move || {
        kept.change(|identity| {
            identity.key = renewed.key;
            identity.chain = renewed.chain;
            identity.roots = renewed.roots;
        })
    };
    // Waits for the disk.
    match tokio::task::spawn_blocking(change).await {
        Ok(changed) => Ok(changed?),
        Err(error) => Err(RenewError::Refused(error.to_string())),
    }
}

/// How long to wait after a failure: about ten more tries until the end, spread over machines.
fn pause(left: Duration) -> Duration {
    (left / 10)
        .clamp(SOONEST, LATEST)
        .mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// A manager refused, or none answered.
    #[error("{0}")]
    Refused(String),
    /// The certificate belongs to another identity.
    #[error("the certificate that came is of {0}")]
    Another(String),
    /// The new certificate and this machine's clock do not agree.
    #[error("the new {0}: correct the clock that is wrong")]
    Clock(#[from] NotValid),
    /// The answer holds no certificate of a cluster.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// Key, certificate or roots cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The identity could not be kept.
    #[error(transparent)]
    Kept(#[from] IdentityError),
    /// A key or a request could not be made.
    #[error("make a key: {0}")]
    Key(#[from] rcgen::Error),
}

#[cfg(test)]
mod tests;
