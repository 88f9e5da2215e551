//! How the values of Secrets are sealed in the state: each by itself, for its namespace, name and key.

use barge_proto::v1::Secret;

use crate::pki::{PkiError, Purpose, SealingKey};

/// A value does not open: the key is another cluster's, or the record is damaged.
#[derive(Debug, thiserror::Error)]
#[error("secret/{name}: {key}: {source}")]
pub struct Damaged {
    name: String,
    key: String,
    source: PkiError,
}

/// Opens all values of a Secret of the state.
///
/// # Errors
/// [`Damaged`]; some values may be open then.
pub fn open(sealing_key: &SealingKey, secret: &mut Secret) -> Result<(), Damaged> {
    let (namespace, name) = place(secret);
    for (key, value) in &mut secret.data {
        *value = sealing_key
            .open(purpose(&namespace, &name, key), value)
            .map_err(|source| Damaged {
                name: name.clone(),
                key: key.clone(),
                source,
            })?;
    }
    Ok(())
}

/// Namespace and name of a Secret.
#[must_use]
pub fn place(secret: &Secret) -> (String, String) {
    let metadata = secret.metadata.clone().unwrap_or_default();
    (metadata.namespace, metadata.name)
}

/// What a value is sealed for.
#[must_use]
pub fn purpose<'a>(namespace: &'a str, name: &'a str, key: &'a str) -> Purpose<'a> {
    Purpose::Secret {
        namespace,
        name,
        key,
    }
}
