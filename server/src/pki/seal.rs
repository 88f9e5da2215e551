//! Authenticated encryption of secrets before they enter the replicated state, so that log, snapshots and
//! backups hold ciphertext only.

use std::borrow::Cow;

use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use rand::Rng;
use sha2::{Digest, Sha256};

use super::PkiError;

/// Layout of sealed data: one byte of version, the nonce, then the ciphertext with its tag.
const VERSION: u8 = 1;
/// XChaCha20's nonce is long enough to be drawn at random for ever.
const NONCE_LEN: usize = 24;

/// What sealed data is for. It is authenticated with the data: what was sealed for one purpose does not open
/// for another, so a secret cannot be moved to a place where it would be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// The signing root's private key, in the cluster's record.
    AuthorityKey,
    /// The sealing key itself, in a backup.
    SealingKey,
    /// The passphrase of scheduled backups, in the cluster's record.
    BackupPassphrase,
    /// A key that signs tokens, in the cluster's record.
    TokenKey {
        /// The key's id.
        id: &'a str,
    },
    /// One value of a Secret: it opens under this name and key only.
    Secret {
        /// Of the Secret.
        namespace: &'a str,
        /// Of the Secret.
        name: &'a str,
        /// Of the value in it.
        key: &'a str,
    },
}

impl Purpose<'_> {
    fn label(self) -> Cow<'static, [u8]> {
        let label: &'static [u8] = match self {
            Self::AuthorityKey => b"barge/v1/ca-key",
            Self::SealingKey => b"barge/v1/sealing-key",
            Self::BackupPassphrase => b"barge/v1/backup-passphrase",
            Self::TokenKey { id } => return format!("barge/v1/token-key/{id}").into_bytes().into(),
            // None of the three can hold a slash.
            Self::Secret {
                namespace,
                name,
                key,
            } => {
                return format!("barge/v1/secret/{namespace}/{name}/{key}")
                    .into_bytes()
                    .into();
            }
        };
        label.into()
    }
}

/// The 256-bit key that every manager holds in a file of its own and that never enters the state.
#[derive(Clone)]
pub struct SealingKey([u8; 32]);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl SealingKey {
    /// Draws a new key.
    #[must_use]
    pub fn generate() -> Self {
        Self(rand::rng().random())
    }

    /// The key as it is kept in its file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Encrypts `plain` for one purpose.
    ///
    /// # Errors
    /// Only when the data is longer than the cipher allows (256 GiB).
    pub fn seal(&self, purpose: Purpose<'_>, plain: &[u8]) -> Result<Vec<u8>, PkiError> {
        let nonce: [u8; NONCE_LEN] = rand::rng().random();
        let sealed = self
            .cipher()
            .encrypt(
                XNonce::from_slice(&nonce),
                Payload {
                    msg: plain,
                    aad: &purpose.label(),
                },
            )
            .map_err(|_| PkiError::Sealed)?;
        let mut out = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Decrypts what [`SealingKey::seal`] made for the same purpose.
    ///
    /// # Errors
    /// [`PkiError::Sealed`] when key, purpose or data differ.
    pub fn open(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Result<Vec<u8>, PkiError> {
        let (header, body) = sealed
            .split_at_checked(1 + NONCE_LEN)
            .ok_or(PkiError::Sealed)?;
        if header[0] != VERSION {
            return Err(PkiError::Sealed);
        }
        self.cipher()
            .decrypt(
                XNonce::from_slice(&header[1..]),
                Payload {
                    msg: body,
                    aad: &purpose.label(),
                },
            )
            .map_err(|_| PkiError::Sealed)
    }

    /// A digest that only holders of the key can make or compare: unlike a plain one, it does not betray what was digested to
    /// those who can guess it.
    #[must_use]
    pub fn digest(&self, data: &[u8]) -> [u8; 32] {
        let key = Sha256::new()
            .chain_update(b"barge/v1/digest")
            .chain_update(self.0)
            .finalize();
        Sha256::new()
            .chain_update(key)
            .chain_update(Sha256::digest(data))
            .finalize()
            .into()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(&self.0))
    }
}

impl TryFrom<&[u8]> for SealingKey {
    type Error = PkiError;

    fn try_from(bytes: &[u8]) -> Result<Self, PkiError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| PkiError::Malformed("a sealing key has 32 bytes".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn opens_with_the_same_key_only() {
        let key = SealingKey::generate();
        let sealed = key.seal(Purpose::AuthorityKey, b"secret").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(key.open(Purpose::AuthorityKey, &sealed).unwrap(), b"secret");
        assert!(
            SealingKey::generate()
                .open(Purpose::AuthorityKey, &sealed)
                .is_err()
        );
    }

    #[test]
    fn opens_for_the_same_purpose_only() {
        let key = SealingKey::generate();
        let of = |namespace, name, key| Purpose::Secret {
            namespace,
            name,
            key,
        };
        let sealed = key.seal(of("shop", "db", "password"), b"x").unwrap();
        assert_eq!(
            key.open(of("shop", "db", "password"), &sealed).unwrap(),
            b"x"
        );
        for other in [
            of("shop", "db", "user"),
            of("shop", "web", "password"),
            of("other", "db", "password"),
            Purpose::AuthorityKey,
        ] {
            assert!(key.open(other, &sealed).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_digest_needs_the_key() {
        let key = SealingKey::generate();
        assert_eq!(key.digest(b"x"), key.digest(b"x"));
        assert_ne!(key.digest(b"x"), key.digest(b"y"));
        assert_ne!(key.digest(b"x"), SealingKey::generate().digest(b"x"));
    }

    #[test]
    fn never_repeats_itself() {
        let key = SealingKey::generate();
        assert_ne!(
            key.seal(Purpose::AuthorityKey, b"x").unwrap(),
            key.seal(Purpose::AuthorityKey, b"x").unwrap()
        );
    }

    #[test]
    fn every_bit_is_authenticated() {
        let key = SealingKey::generate();
        let sealed = key.seal(Purpose::AuthorityKey, b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(key.open(Purpose::AuthorityKey, &bad).is_err(), "byte {at}");
        }
        for len in 0..sealed.len() {
            assert!(key.open(Purpose::AuthorityKey, &sealed[..len]).is_err());
        }
    }
}
