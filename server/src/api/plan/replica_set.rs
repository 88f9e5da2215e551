//! Applying ReplicaSets.

use barge_proto::v1::{ReplicaSet, Revision};
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

impl Merge for ReplicaSet {
    fn merged(
        planning: &mut Planning<'_>,
        new: Self,
        old: Option<&Self>,
    ) -> Result<Self, ApiError> {
        if old.is_none() {
            // Revisions of Deployments are shown by the same names. One that is shown was refused before.
            let (namespace, name) = (&new.meta().namespace, &new.meta().name);
            if planning.state.get::<Revision>(namespace, name).is_some() {
                return Err(ApiError::Precondition(format!(
                    "replicaset/{name}: pods of a Deployment that is gone have a template of this name: take another name, or delete these pods first"
                )));
            }
            planning.draft.absent::<Revision>(namespace, name);
        }
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
