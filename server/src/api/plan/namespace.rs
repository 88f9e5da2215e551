//! Applying namespaces.

use barge_proto::{
    v1::{Namespace, NamespaceSpec, NamespaceStatus},
    validate::Levels,
};
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

impl Merge for Namespace {
    fn merged(
        planning: &mut Planning<'_>,
        new: Self,
        old: Option<&Self>,
    ) -> Result<Self, ApiError> {
        let mut merged = match old {
            Some(old) => old.clone(),
            None => Self {
                spec: Some(NamespaceSpec {}),
                status: Some(NamespaceStatus {
                    phase: "Active".to_owned(),
                }),
                ..Self::default()
            },
        };
        merged.metadata = merged_meta(new.metadata, old.map(Kind::meta));
        let (name, levels) = (merged.meta().name.clone(), Levels::of(merged.meta()));
        planning.namespaces.insert(name, levels);
        Ok(merged)
    }
}
