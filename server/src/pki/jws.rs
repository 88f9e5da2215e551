//! Signed tokens: JSON Web Signatures in their compact form (RFC 7515) with ES256 (RFC 7518), and the published form of their keys (RFC 7517).
//!
//! A token names its key, and nothing else about how it is checked is taken from it: every key here is for ES256.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::PkiError;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 << 10;
/// A point of P-256, uncompressed: 0x04, x, y.
const POINT: usize = 65;

/// A key that signs.
pub struct TokenSigner {
    pair: EcdsaKeyPair,
    id: String,
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenSigner({})", self.id)
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    typ: String,
    /// Extensions that must be understood (RFC 7515, 4.1.11). There are none here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

/// A published key.
#[derive(Debug, Serialize)]
struct Jwk {
    alg: &'static str,
    crv: &'static str,
    kid: String,
    kty: &'static str,
    r#use: &'static str,
    x: String,
    y: String,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// It is no token of this form.
    #[error("it is no JSON Web Token that ES256 signs")]
    Malformed,
    /// The key that it names is not known here.
    #[error("the key that it names is not (any longer) one of this cluster")]
    UnknownKey,
    /// Somebody else signed it, or it was changed.
    #[error("its signature is not by the key that it names")]
    BadSignature,
}

/// A new private key, PKCS#8 DER.
///
/// # Errors
/// The system has no randomness.
pub fn generate() -> Result<Vec<u8>, PkiError> {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let key = key.map_err(|_| PkiError::Malformed("no key could be drawn".to_owned()))?;
    Ok(key.as_ref().to_vec())
}

impl TokenSigner {
    /// The key that [`generate`] made.
    ///
    /// # Errors
    /// [`PkiError::Malformed`].
    pub fn open(pkcs8: &[u8]) -> Result<Self, PkiError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new())
            .map_err(|error| PkiError::Malformed(format!("the key of tokens: {error}")))?;
        let id = thumbprint(pair.public_key().as_ref());
        Ok(Self { pair, id })
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What checks its signatures.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// A token of these claims, in JSON.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn sign(&self, claims: &[u8]) -> Result<String, PkiError> {
        let header = Header {
            alg: "ES256".to_owned(),
            kid: self.id.clone(),
            typ: String::new(),
            crit: None,
        };
        let header = serde_json::to_vec(&header)
            .map_err(|error| PkiError::Malformed(format!("a token: {error}")))?;
        let mut token = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature =
            signature.map_err(|_| PkiError::Malformed("a token could not be signed".to_owned()))?;
        token.push('.');
        token.push_str(&BASE64.encode(signature.as_ref()));
        Ok(token)
    }
}

/// The claims of a token, in JSON, if one of the keys that `key` finds by id signed it.
///
/// # Errors
/// [`NotSigned`].
pub fn verify(
    token: &str,
    key: impl FnOnce(&str) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, NotSigned> {
    if token.len() > MAX_TOKEN {
        return Err(NotSigned::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(NotSigned::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(NotSigned::Malformed)?;
    let decode = |part: &str| BASE64.decode(part).map_err(|_| NotSigned::Malformed);
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| NotSigned::Malformed)?;
    if header.alg != "ES256" || header.crit.is_some() {
        return Err(NotSigned::Malformed);
    }
    let key = key(&header.kid).ok_or(NotSigned::UnknownKey)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(signed.as_bytes(), &decode(signature)?)
        .map_err(|_| NotSigned::BadSignature)?;
    decode(claims)
}

/// A JSON Web Key Set of these public keys.
#[must_use]
pub fn key_set<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> String {
    let keys = keys.into_iter().filter_map(jwk).collect::<Vec<_>>();
    serde_json::json!({ "keys": keys }).to_string()
}

fn jwk(public_key: &[u8]) -> Option<Jwk> {
    let (x, y) = coordinates(public_key)?;
    Some(Jwk {
        alg: "ES256",
        crv: "P-256",
        kid: thumbprint(public_key),
        kty: "EC",
        r#use: "sig",
        x,
        y,
    })
}

fn coordinates(public_key: &[u8]) -> Option<(String, String)> {
    let point = public_key.strip_prefix(&[4])?;
    let (x, y) = point.split_at_checked((POINT - 1) / 2)?;
    Some((BASE64.encode(x), BASE64.encode(y)))
}

/// RFC 7638: the digest of the key's required members, in the order of the alphabet.
fn thumbprint(public_key: &[u8]) -> String {
    let (x, y) = coordinates(public_key).unwrap_or_default();
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64.encode(Sha256::digest(members))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};

    use super::*;

    const CLAIMS: &str = r#"{"aud":["them"],"exp":4102444800,"sub":"it"}"#;

    fn signer() -> TokenSigner {
        TokenSigner::open(&generate().unwrap()).unwrap()
    }

    fn verified(token: &str, signer: &TokenSigner) -> Result<Vec<u8>, NotSigned> {
        verify(token, |id| {
            (id == signer.id()).then(|| signer.public_key().to_vec())
        })
    }

    #[test]
    fn another_implementation_takes_it_by_the_published_keys() {
        let (one, other) = (signer(), signer());
        let published: JwkSet =
            serde_json::from_str(&key_set([other.public_key(), one.public_key()])).unwrap();
        let token = one.sign(CLAIMS.as_bytes()).unwrap();
        let id = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        assert_eq!(id, one.id());
        let key = DecodingKey::from_jwk(published.find(&id).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["them"]);
        let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).unwrap();
        assert_eq!(claims.claims["sub"], "it");
        let wrong = DecodingKey::from_jwk(published.find(other.id()).unwrap()).unwrap();
        assert!(jsonwebtoken::decode::<serde_json::Value>(&token, &wrong, &validation).is_err());
    }

    /// Made with another implementation of RFC 7638.
    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        let point: Vec<u8> = std::iter::once(4).chain(0..64).collect();
        assert_eq!(
            thumbprint(&point),
            "0r62zgBj277RicA3LnaBKQ5_9RCDIomrlbpWjO0QTG0"
        );
    }

    #[test]
    fn what_was_changed_is_refused() {
        let one = signer();
        let token = one.sign(CLAIMS.as_bytes()).unwrap();
        assert_eq!(verified(&token, &one).unwrap(), CLAIMS.as_bytes());
        let parts: Vec<&str> = token.split('.').collect();
        let claims = BASE64.encode(CLAIMS.replace("it", "me"));
        let forged = format!("{}.{claims}.{}", parts[0], parts[2]);
        assert_eq!(verified(&forged, &one), Err(NotSigned::BadSignature));
        let other = signer();
        assert_eq!(verified(&token, &other), Err(NotSigned::UnknownKey));
        // Signed by another key that says that it is this one.
        let signed = verify(&token, |_| Some(other.public_key().to_vec()));
        assert_eq!(signed, Err(NotSigned::BadSignature));
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verified(&changed, &one).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_token_does_not_say_how_it_is_checked() {
        let one = signer();
        for header in [
            r#"{"alg":"none","kid":"KID"}"#,
            r#"{"alg":"HS256","kid":"KID"}"#,
            r#"{"alg":"ES256","kid":"KID","crit":["x"]}"#,
            r#"{"alg":"ES256"}"#,
            "[]",
        ] {
            let header = BASE64.encode(header.replace("KID", one.id()));
            for signature in ["", "AAAA"] {
                let token = format!("{header}.{}.{signature}", BASE64.encode(CLAIMS));
                assert_eq!(verified(&token, &one), Err(NotSigned::Malformed), "{token}");
            }
        }
        for bad in ["", ".", "..", "a.b.c", "bargeb1.uid.secret"] {
            assert_eq!(verified(bad, &one), Err(NotSigned::Malformed), "{bad:?}");
        }
        let long = "A".repeat(MAX_TOKEN + 1);
        assert_eq!(verified(&long, &one), Err(NotSigned::Malformed));
    }
}
