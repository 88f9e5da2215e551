//! Join tokens: `barge1-<64 hex>-<id>-<secret>`, where the hex is the SHA-256 of the CA certificate's DER.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

const VERSION: &str = "barge1";

/// A join token. It pins the cluster's CA, so that the joiner knows whom it talks to before it says a word.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the CA certificate's DER.
    pub ca_digest: [u8; 32],
    /// The public part, by which it is listed and revoked.
    pub id: String,
    /// The secret part.
    pub secret: String,
}

impl Token {
    /// The part that is sent to the manager: `<id>-<secret>`.
    #[must_use]
    pub fn wire(&self) -> String {
        format!("{}-{}", self.id, self.secret)
    }
}

/// The digest by which tokens pin a CA certificate (DER).
#[must_use]
pub fn ca_digest(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

const BEARER: &str = "bargeb1";

/// A bearer token: what a program sends instead of showing a certificate.
#[must_use]
pub fn bearer_token(uid: &str, secret: &str) -> String {
    format!("{BEARER}.{uid}.{secret}")
}

/// Whether it may be the token of a credential, or of a service account (a JSON Web Token).
#[must_use]
pub fn is_bearer_token(token: &str) -> bool {
    let is_part = |part: &str| {
        let url_safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !part.is_empty() && part.bytes().all(url_safe)
    };
    let parts: Vec<_> = token.split('.').collect();
    parse_bearer_token(token).is_some() || (parts.len() == 3 && parts.into_iter().all(is_part))
}

/// The uid of the credential and the secret of a bearer token; `None` when it is none.
#[must_use]
pub fn parse_bearer_token(token: &str) -> Option<(&str, &str)> {
    let (uid, secret) = token
        .strip_prefix(BEARER)?
        .strip_prefix('.')?
        .split_once('.')?;
    let is_word = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    (is_word(uid) && is_word(secret)).then_some((uid, secret))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('-');
        if parts.next() != Some(VERSION) {
            return Err(TokenError::Version);
        }
        let (Some(digest), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        for part in [id, secret] {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(TokenError::Parts);
            }
        }
        Ok(Self {
            ca_digest: parse_digest(digest).ok_or(TokenError::Digest)?,
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, start) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[start..start + 2], 16).ok()?;
    }
    Some(digest)
}

/// The whole token, secret included.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}-{}-{}", hex(&self.ca_digest), self.wire())
    }
}

// The secret must not reach a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why a text is not a token. The text itself is not repeated: it may be a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// It does not begin with the version.
    #[error("not a join token: it should begin with \"barge1-\"")]
    Version,
    /// It has too few, too many or damaged parts.
    #[error(
        "damaged join token: it should be barge1-<64 hex digits>-<id>-<secret>; was it copied whole?"
    )]
    Parts,
    /// The digest of the CA is not 64 hexadecimal digits.
    #[error(
        "damaged join token: its CA digest should be 64 hexadecimal digits; was it copied whole?"
    )]
    Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let token = Token {
            ca_digest: ca_digest(b"ca"),
            id: "k3j9".into(),
            secret: "s0mesecret".into(),
        };
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        assert_eq!(format!(" {token}\n").parse::<Token>().unwrap(), token);
        assert_eq!(token.wire(), "k3j9-s0mesecret");
        assert!(!format!("{token:?}").contains("s0mesecret"));
    }

    #[test]
    fn bearer_tokens_come_apart_again() {
        let token = bearer_token("0f-1", "s3cret");
        assert_eq!(parse_bearer_token(&token), Some(("0f-1", "s3cret")));
        for bad in [
            "",
            "bargeb1",
            "bargeb1.a",
            "bargeb1..s",
            "bargeb1.a.",
            "bargeb1.a.b c",
            "x.a.b",
        ] {
            assert_eq!(parse_bearer_token(bad), None, "{bad}");
        }
    }

    #[test]
    fn refuses_what_is_damaged() {
        let digest = "ab".repeat(32);
        let parse = |text: String| text.parse::<Token>().unwrap_err();
        assert_eq!(parse("K10abc::server:x".into()), TokenError::Version);
        assert_eq!(parse(format!("barge1-{digest}-id")), TokenError::Parts);
        assert_eq!(parse(format!("barge1-{digest}-id-s-x")), TokenError::Parts);
        assert_eq!(parse(format!("barge1-{digest}--s")), TokenError::Parts);
        assert_eq!(parse(format!("barge1-{digest}-i d-s")), TokenError::Parts);
        assert_eq!(
            parse(format!("barge1-{}-id-s", &digest[1..])),
            TokenError::Digest
        );
        assert_eq!(
            parse(format!("barge1-+{}-id-s", &digest[1..])),
            TokenError::Digest
        );
        // Not on a character boundary: must not panic.
        assert_eq!(
            parse(format!("barge1-{}é-id-s", &digest[..62])),
            TokenError::Digest
        );
    }
}
