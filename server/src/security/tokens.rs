//! Tokens of service accounts: their [`claims`], whom they are made for ([`mint`]), whose they are ([`holder`]), and the [`keys`] that sign them.
//!
//! A token is not stored anywhere. Whoever checks one needs the public key, and the state, which says whether the account and the pod that the token names
//! are still there.

use barge_proto::v1::ClusterRecord;
use barge_state::Kind;

use crate::pki::jws;

pub mod claims;
pub mod holder;
pub mod keys;
pub mod mint;

pub use claims::{Claims, Refused};
pub use holder::Holder;

/// The claims of a token that is by one of the cluster's keys, for one of `audiences`, and within its time; and which of the audiences those are. Whether
/// what it is bound to is still there is another question ([`Holder::check`]).
///
/// # Errors
/// [`Refused`].
pub fn check(
    cluster: &ClusterRecord,
    token: &str,
    audiences: &[String],
    now: i64,
) -> Result<(Claims, Vec<String>), Refused> {
    let key = |id: &str| keys::public_key(&cluster.token_keys, id);
    let json = jws::verify(token, key)?;
    Claims::check(&json, &issuer(cluster.uid()), audiences, now)
}

/// What tokens say who made them: the same for as long as the cluster lives. It is also the audience of the managers.
#[must_use]
pub fn issuer(cluster_id: &str) -> String {
    format!("https://barge.local/{cluster_id}")
}

/// What OpenID Connect Discovery 1.0 wants to know of an issuer, in JSON.
#[must_use]
pub fn openid_configuration(issuer: &str) -> String {
    serde_json::json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
    .to_string()
}
