//! The sealing key under a passphrase, for backups: the only form in which it leaves the managers' own folders.

use argon2::{Algorithm, Argon2, Params, Version};
use barge_proto::v1::PassphraseSealed;
use rand::Rng;

use super::{PkiError, Purpose, SealingKey};

/// What Argon2id costs, after RFC 9106: 64 MiB and three passes, about a tenth of a second.
const MEMORY_KIB: u32 = 64 << 10;
const ITERATIONS: u32 = 3;
const LANES: u32 = 4;
/// A file that asks for more than this is no backup of ours.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_ITERATIONS: u32 = 64;
const SALT: usize = 16;

/// Seals the key. Takes a tenth of a second and 64 MiB.
///
/// # Errors
/// The passphrase is empty.
pub fn seal(key: &SealingKey, passphrase: &str) -> Result<PassphraseSealed, PkiError> {
    if passphrase.is_empty() {
        return Err(PkiError::Malformed("the passphrase is empty".to_owned()));
    }
    let salt: [u8; SALT] = rand::rng().random();
    let sealed = PassphraseSealed {
        salt: salt.to_vec(),
        memory_kib: MEMORY_KIB,
        iterations: ITERATIONS,
        lanes: LANES,
        sealed: Vec::new(),
    };
    let wrapping = derive(&sealed, passphrase)?;
    Ok(PassphraseSealed {
        sealed: wrapping.seal(Purpose::SealingKey, key.as_bytes())?,
        ..sealed
    })
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`PkiError::Sealed`] for another passphrase.
pub fn open(sealed: &PassphraseSealed, passphrase: &str) -> Result<SealingKey, PkiError> {
    let key = derive(sealed, passphrase)?.open(Purpose::SealingKey, &sealed.sealed)?;
    SealingKey::try_from(key.as_slice())
}

fn derive(sealed: &PassphraseSealed, passphrase: &str) -> Result<SealingKey, PkiError> {
    let malformed = |error: argon2::Error| PkiError::Malformed(format!("the sealed key: {error}"));
    if sealed.memory_kib > MAX_MEMORY_KIB || sealed.iterations > MAX_ITERATIONS {
        return Err(PkiError::Malformed(format!(
            "the sealed key asks for {} KiB and {} passes",
            sealed.memory_kib, sealed.iterations
        )));
    }
    let params = Params::new(sealed.memory_kib, sealed.iterations, sealed.lanes, Some(32))
        .map_err(malformed)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &sealed.salt, &mut key)
        .map_err(malformed)?;
    SealingKey::try_from(key.as_slice())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn opens_with_the_same_passphrase_only() {
        let key = SealingKey::generate();
        let sealed = seal(&key, "correct horse").unwrap();
        assert_eq!(
            open(&sealed, "correct horse").unwrap().as_bytes(),
            key.as_bytes()
        );
        assert!(matches!(
            open(&sealed, "correct horsf"),
            Err(PkiError::Sealed)
        ));
        assert!(seal(&key, "").is_err());
    }

    #[test]
    fn a_hostile_file_does_not_cost_the_machine_its_memory() {
        let greedy = PassphraseSealed {
            salt: vec![0; 16],
            memory_kib: u32::MAX,
            iterations: 1,
            lanes: 1,
            sealed: Vec::new(),
        };
        assert!(matches!(open(&greedy, "x"), Err(PkiError::Malformed(_))));
    }
}
