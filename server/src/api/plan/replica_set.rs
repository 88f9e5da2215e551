//! Applying ReplicaSets.

use barge_proto::v1::ReplicaSet;
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

impl Merge for ReplicaSet {
    fn merged(_: &mut Planning<'_>, new: Self, old: Option<&Self>) -> Result<Self, ApiError> {
        let mut spec = new.spec.unwrap_or_default();
        let before = old.and_then(|old| old.spec.as_ref());
        // A manifest that leaves the number out leaves it to whoever scales.
        spec.replicas = spec
            .replicas
            .or(before.and_then(|before| before.replicas))
            .or(Some(1));
        Ok(Self {
            api_version: String::new(),
            kind: String::new(),
            metadata: merged_meta(new.metadata, old.map(Kind::meta)),
            spec: Some(spec),
            // The leader's.
            status: old.and_then(|old| old.status.clone()),
        })
    }
}
