//! Applying nodes: machines join by themselves, people label and cordon them.

use barge_proto::v1::Node;
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

impl Merge for Node {
    fn merged(_: &mut Planning<'_>, new: Self, old: Option<&Self>) -> Result<Self, ApiError> {
        let Some(old) = old else {
            let name = &new.meta().name;
            return Err(ApiError::Precondition(format!(
                "node {name} does not exist, and nodes are not created by apply: `barge-agent run --join` on the machine \
                 makes it join"
            )));
        };
        let wanted = new.spec.unwrap_or_default();
        let mut merged = old.clone();
        merged.metadata = merged_meta(new.metadata, Some(old.meta()));
        merged.spec.get_or_insert_default().unschedulable = wanted.unschedulable;
        Ok(merged)
    }
}
