//! Applying Secrets, whose values are sealed by now, and ConfigMaps: they are what was merged.

use barge_proto::v1::{ConfigMap, Secret};
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

impl Merge for Secret {
    fn merged(_: &mut Planning<'_>, new: Self, old: Option<&Self>) -> Result<Self, ApiError> {
        Ok(Self {
            api_version: String::new(),
            kind: String::new(),
            metadata: merged_meta(new.metadata, old.map(Kind::meta)),
            ..new
        })
    }
}

impl Merge for ConfigMap {
    fn merged(_: &mut Planning<'_>, new: Self, old: Option<&Self>) -> Result<Self, ApiError> {
        Ok(Self {
            api_version: String::new(),
            kind: String::new(),
            metadata: merged_meta(new.metadata, old.map(Kind::meta)),
            ..new
        })
    }
}
