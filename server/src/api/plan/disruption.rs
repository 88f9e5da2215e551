//! Applying PodDisruptionBudgets.

use barge_proto::v1::PodDisruptionBudget;
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

impl Merge for PodDisruptionBudget {
    fn merged(_: &mut Planning<'_>, new: Self, old: Option<&Self>) -> Result<Self, ApiError> {
        Ok(Self {
            api_version: String::new(),
            kind: String::new(),
            metadata: merged_meta(new.metadata, old.map(Kind::meta)),
            spec: new.spec,
            // The leader's.
            status: old.and_then(|old| old.status.clone()),
        })
    }
}
