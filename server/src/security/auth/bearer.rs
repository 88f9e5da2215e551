//! Who shows a bearer token: that of a credential, or that of a service account.

use barge_client::token::parse_bearer_token;
use http::HeaderValue;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::{Access, AuthLayer, Bearer, Principal, TokenBearer};

impl AuthLayer {
    /// The credential or the token in this `authorization` header, and when a token ends.
    pub(super) async fn bearer(
        &self,
        header: &HeaderValue,
    ) -> Result<(Principal, Access, Option<i64>), Status> {
        let text = header.to_str().ok();
        let text = text.and_then(|text| text.strip_prefix("Bearer "));
        match text.map(|text| (text, parse_bearer_token(text))) {
            Some((_, Some((uid, secret)))) => {
                let (principal, access) = self.credential(uid, secret).await?;
                Ok((principal, access, None))
            }
            Some((text, None)) if text.matches('.').count() == 2 => self.token(text).await,
            _ => Err(Status::unauthenticated(
                "the authorization header is not a bearer token of Barge",
            )),
        }
    }

    /// The token of a service account. One that no key of the cluster signed costs the check of a signature, and asks no other manager.
    async fn token(&self, token: &str) -> Result<(Principal, Access, Option<i64>), Status> {
        let mut known = self.directory.token(token);
        if matches!(known, TokenBearer::Unknown(_)) {
            // This manager may be behind: the pod may be new.
            self.directory.refresh().await?;
            known = self.directory.token(token);
        }
        match known {
            TokenBearer::Holder(principal, access, until) => Ok((principal, access, Some(until))),
            TokenBearer::Refused(why) | TokenBearer::Unknown(why) => {
                Err(Status::unauthenticated(why))
            }
        }
    }

    /// The credential of this uid and secret.
    async fn credential(&self, uid: &str, secret: &str) -> Result<(Principal, Access), Status> {
        let secret_sha256 = Sha256::digest(secret);
        let mut known = self.directory.bearer(uid, &secret_sha256);
        if matches!(known, Bearer::Unknown) {
            // This manager may be behind.
            self.directory.refresh().await?;
            known = self.directory.bearer(uid, &secret_sha256);
        }
        match known {
            Bearer::Holder(principal, access) => Ok((principal, access)),
            Bearer::Expired => Err(Status::unauthenticated(
                "the bearer token has expired: `barge credential create` makes another",
            )),
            Bearer::Unknown => Err(Status::unauthenticated(
                "the bearer token is not valid (any more)",
            )),
        }
    }
}
