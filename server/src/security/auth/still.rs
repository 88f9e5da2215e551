//! Whether a caller is still a member and still has its right: asked again while a stream is open.

use barge_proto::kinds::KindRef;
use tonic::Status;

use super::{Caller, Directory, StateDirectory, layer::revoked};
use crate::{error::ApiError, security::rbac::Asked, store::Store};

/// What a stream shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// "watch"
    pub verb: &'static str,
    /// The kind of its objects.
    pub kind: KindRef,
    /// "log" or "exec" for what pods have beside themselves; otherwise empty.
    pub part: &'static str,
    /// Empty for all.
    pub namespace: String,
    /// Empty for all.
    pub name: String,
}

/// A question to be asked again and again, of the state of this manager.
///
/// # Errors
/// INTERNAL for a caller without an identity, who would not be let in.
pub fn still(
    store: Store,
    caller: &Caller,
    shown: Shown,
) -> Result<impl Fn() -> Result<(), Status> + Send + Sync + 'static, Status> {
    let principal = caller.principal.clone();
    let principal = principal.ok_or_else(|| Status::internal("the caller is not known"))?;
    let directory = StateDirectory(store);
    let caller = caller.clone();
    Ok(move || {
        caller.check_time()?;
        let Some(access) = directory.access(&principal) else {
            return Err(revoked(principal.role, &principal.uid));
        };
        let asked = Asked::on(shown.verb, &shown.kind, &shown.namespace, &shown.name);
        let asked = asked.part(shown.part);
        match directory.may(&access, &asked) {
            true => Ok(()),
            false => Err(ApiError::Denied(access.refusal(&asked.to_string())).into()),
        }
    })
}
