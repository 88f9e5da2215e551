//! The values of Secrets: sealed in the state, and so in the log, in snapshots and backups; open in requests and answers. The API opens
//! the values of each object that it merges or shows here, and seals the values of each object that it proposes.

use std::collections::BTreeMap;

use barge_proto::{
    limits::OBJECT_BYTES,
    v1::{ApplyRequest, Kind, Object, WatchResponse, object},
};
use prost::Message;

use super::commit::digest;
use crate::{
    error::ApiError,
    pki::Keyring,
    security::sealed::{self, place, purpose},
};

type Data = BTreeMap<String, Vec<u8>>;

/// Seals and opens with the cluster's key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault(Keyring);

impl Vault {
    /// With this key.
    #[must_use]
    pub fn new(keyring: Keyring) -> Self {
        Self(keyring)
    }

    /// An object of the state as it is shown. Other kinds are what they are.
    ///
    /// # Errors
    /// PRECONDITION while this manager is locked; INTERNAL when a value does not open: the key is another cluster's, or the record
    /// is damaged.
    pub fn open(&self, mut object: Object) -> Result<Object, ApiError> {
        if let Some(object::Kind::Secret(secret)) = &mut object.kind {
            sealed::open(&self.0.key()?, secret)
                .map_err(|error| ApiError::Internal(error.to_string()))?;
        }
        Ok(object)
    }

    /// As [`Vault::open`], of several.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_all(&self, objects: Vec<Object>) -> Result<Vec<Object>, ApiError> {
        objects.into_iter().map(|it| self.open(it)).collect()
    }

    /// What a watcher sees of a change.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_change(&self, change: WatchResponse) -> Result<WatchResponse, ApiError> {
        Ok(WatchResponse {
            object: change.object.map(|object| self.open(object)).transpose()?,
            ..change
        })
    }

    /// An object as it is proposed. Values that did not change keep their ciphertext, so that what is the same
    /// is seen to be the same: `open` and `sealed` are the object that is there, in both forms.
    ///
    /// # Errors
    /// PRECONDITION while this manager is locked; INVALID when it is too large, sealed.
    pub fn seal(
        &self,
        mut object: Object,
        open: Option<&Object>,
        sealed: Option<&Object>,
    ) -> Result<Object, ApiError> {
        let Some(object::Kind::Secret(secret)) = &mut object.kind else {
            return Ok(object);
        };
        let (namespace, name) = place(secret);
        let sealing_key = self.0.key()?;
        let (open, sealed) = (open.and_then(data), sealed.and_then(data));
        for (key, value) in &mut secret.data {
            let same = open.is_some_and(|open| open.get(key) == Some(value));
            let kept = sealed.filter(|_| same).and_then(|sealed| sealed.get(key));
            *value = match kept {
                Some(kept) => kept.clone(),
                None => sealing_key.seal(purpose(&namespace, &name, key), value)?,
            };
        }
        let size = object.encoded_len();
        match size > OBJECT_BYTES {
            true => Err(ApiError::invalid(
                object.to_string(),
                format!(
                    "{size} bytes when it is sealed are too many: at most {OBJECT_BYTES} are allowed"
                ),
            )),
            false => Ok(object),
        }
    }

    /// The digest by which a repeated request is recognised. For a request with Secrets it needs the sealing key, so that values cannot be guessed with it.
    ///
    /// # Errors
    /// PRECONDITION for a request with Secrets, while this manager is locked.
    pub fn digest(&self, request: &ApplyRequest) -> Result<Vec<u8>, ApiError> {
        let secret = |object: &Object| object.kind() == Kind::Secret;
        match request.objects.iter().any(secret) {
            true => Ok(self.0.key()?.digest(&request.encode_to_vec()).to_vec()),
            false => Ok(digest(request)),
        }
    }
}

/// An object without the values of a Secret.
#[must_use]
pub fn without_values(mut object: Object) -> Object {
    if let Some(object::Kind::Secret(secret)) = &mut object.kind {
        secret.data.clear();
        secret.string_data.clear();
    }
    object
}

fn data(object: &Object) -> Option<&Data> {
    match &object.kind {
        Some(object::Kind::Secret(secret)) => Some(&secret.data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pki::{SealingKey, keyring::KeyFile};
    use barge_proto::v1::{ObjectMeta, Secret};

    fn vault() -> Vault {
        let key = KeyFile::Clear(SealingKey::generate());
        Vault::new(Keyring::new(Path::new(""), key))
    }

    fn secret(name: &str, data: &[(&str, &str)]) -> Object {
        let data = data.iter();
        Object::from(Secret {
            metadata: Some(ObjectMeta {
                name: name.into(),
                namespace: "shop".into(),
                ..ObjectMeta::default()
            }),
            data: data
                .map(|(key, value)| ((*key).into(), value.as_bytes().to_vec()))
                .collect(),
            ..Secret::default()
        })
    }

    #[test]
    fn what_is_sealed_opens_again_under_its_own_name_only() {
        let vault = vault();
        let plain = secret("db", &[("user", "ann"), ("password", "hunter2")]);
        let sealed = vault.seal(plain.clone(), None, None).unwrap();
        let bytes = sealed.encode_to_vec();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(vault.open(sealed.clone()).unwrap(), plain);
        let mut moved = sealed;
        moved.metadata_mut().unwrap().name = "web".into();
        let error = vault.open(moved).unwrap_err().to_string();
        assert!(error.starts_with("secret/web: password:"), "{error}");
    }

    #[test]
    fn values_that_stay_keep_their_ciphertext() {
        let vault = vault();
        let open = secret("db", &[("user", "ann"), ("password", "1")]);
        let sealed = vault.seal(open.clone(), None, None).unwrap();
        let same = vault.seal(open.clone(), Some(&open), Some(&sealed));
        assert_eq!(same.unwrap(), sealed);
        let changed = secret("db", &[("user", "ann"), ("password", "2")]);
        let changed = vault.seal(changed, Some(&open), Some(&sealed)).unwrap();
        let (before, after) = (data(&sealed).unwrap(), data(&changed).unwrap());
        assert_eq!(before["user"], after["user"]);
        assert_ne!(before["password"], after["password"]);
    }

    #[test]
    fn many_small_values_are_not_too_many_for_the_log() {
        let keys: Vec<_> = (0..40_000).map(|n| n.to_string()).collect();
        let data: Vec<_> = keys.iter().map(|key| (key.as_str(), "")).collect();
        let vault = vault();
        let error = vault.seal(secret("db", &data), None, None).unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }
}
