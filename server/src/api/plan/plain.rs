//! Applying kinds whose objects are what was merged. Of Secrets, the values are sealed by now; whether who applies roles and bindings
//! may give what they give is checked by [`crate::api::gate`].

use barge_proto::v1::{
    ClusterRole, ClusterRoleBinding, ConfigMap, CustomObject, RbacRole, RoleBinding, Secret,
    ServiceAccount,
};
use barge_state::Kind;

use super::{Merge, Planning, merged_meta};
use crate::error::ApiError;

macro_rules! as_merged {
    ($($kind:ident),*) => {
        $(impl Merge for $kind {
            fn merged(
                _: &mut Planning<'_>,
                mut new: Self,
                old: Option<&Self>,
            ) -> Result<Self, ApiError> {
                new.api_version.clear();
                new.kind.clear();
                new.metadata = merged_meta(new.metadata, old.map(Kind::meta));
                Ok(new)
            }
        })*
    };
}
as_merged!(
    Secret,
    ConfigMap,
    RbacRole,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
    ServiceAccount
);

/// What its fields mean is for whoever registered its kind. apiVersion and kind are those of the registered kind, fields are kept as
/// they were applied.
impl Merge for CustomObject {
    fn merged(_: &mut Planning<'_>, mut new: Self, old: Option<&Self>) -> Result<Self, ApiError> {
        new.metadata = merged_meta(new.metadata, old.map(Kind::meta));
        new.canonical()
            .map_err(|error| ApiError::invalid("json", error.to_string()))
    }
}
