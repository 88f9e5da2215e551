//! Applying roles, bindings and service accounts: they are what was merged. Whether the applier has the rights that it gives is checked
//! by [`crate::api::gate`].

use barge_proto::v1::{ClusterRole, ClusterRoleBinding, RbacRole, RoleBinding, ServiceAccount};
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

macro_rules! as_merged {
    ($($kind:ident),*) => {
        $(impl Merge for $kind {
            fn merged(
                _: &mut Planning<'_>,
                new: Self,
                old: Option<&Self>,
            ) -> Result<Self, ApiError> {
                Ok(Self {
                    api_version: String::new(),
                    kind: String::new(),
                    metadata: merged_meta(new.metadata, old.map(Kind::meta)),
                    ..new
                })
            }
        })*
    };
}
as_merged!(RbacRole, ClusterRole, RoleBinding, ClusterRoleBinding);

impl Merge for ServiceAccount {
    fn merged(_: &mut Planning<'_>, new: Self, old: Option<&Self>) -> Result<Self, ApiError> {
        Ok(Self {
            metadata: merged_meta(new.metadata, old.map(Kind::meta)),
            ..Self::default()
        })
    }
}
