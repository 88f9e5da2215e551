//! The user and groups of a new credential, and the rights that its maker needs.

use barge_proto::v1::{
    CreateCredentialRequest, CredentialIdentity, ServiceAccount, ServiceAccountRef,
};
use barge_state::{BINDINGS, Kind, State};

use crate::{
    error::ApiError,
    security::{
        auth::Access,
        rbac::{
            Asked,
            identity::{AUTHENTICATED, MASTERS, SERVICE_ACCOUNTS, master},
        },
    },
};

/// Groups of one credential.
const MAX_GROUPS: usize = 32;
const MAX_GROUP: usize = 253;

/// Whether it asks for an administrator's credential and nothing else, which exists at every feature level.
#[must_use]
pub fn is_plain_master(request: &CreateCredentialRequest) -> bool {
    request.groups == [MASTERS] && request.service_account.is_empty()
}

/// Whose the credential is to be; absent for an administrator's in a cluster whose managers do not all know of bindings.
///
/// # Errors
/// INVALID for groups or a service account that none has; NOT_FOUND for a service account that is not there.
pub fn identity(
    state: &State,
    request: &CreateCredentialRequest,
) -> Result<Option<CredentialIdentity>, ApiError> {
    if is_plain_master(request) {
        return Ok(master(state.feature_level()));
    }
    check_level(state, request)?;
    Ok(Some(CredentialIdentity {
        groups: groups(&request.groups)?,
        service_account: account(state, &request.service_account)?,
    }))
}

/// Refuses what older managers would take for an administrator's credential.
///
/// # Errors
/// PRECONDITION.
pub fn check_level(state: &State, request: &CreateCredentialRequest) -> Result<(), ApiError> {
    match is_plain_master(request) || state.feature_level() >= BINDINGS {
        true => Ok(()),
        false => Err(ApiError::Precondition(
            "every credential is an administrator's until all managers are upgraded: upgrade them first, or ask for --admin"
                .to_owned(),
        )),
    }
}

fn groups(asked: &[String]) -> Result<Vec<String>, ApiError> {
    if asked.len() > MAX_GROUPS {
        let rule = format!("{}, at most {MAX_GROUPS} are possible", asked.len());
        return Err(ApiError::invalid("groups", rule));
    }
    let mut groups: Vec<String> = Vec::new();
    for group in asked {
        let plain = |c: char| !c.is_whitespace() && !c.is_control();
        if group.is_empty() || group.len() > MAX_GROUP || !group.chars().all(plain) {
            let rule = format!("{group:?}: 1 to {MAX_GROUP} characters, without spaces");
            return Err(ApiError::invalid("groups", rule));
        }
        if group == AUTHENTICATED || group.starts_with(SERVICE_ACCOUNTS) {
            let rule = format!("{group:?}: it follows from what a credential is");
            return Err(ApiError::invalid("groups", rule));
        }
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    Ok(groups)
}

fn account(state: &State, asked: &str) -> Result<Option<ServiceAccountRef>, ApiError> {
    if asked.is_empty() {
        return Ok(None);
    }
    let Some((namespace, name)) = asked.split_once('/') else {
        let rule = format!("{asked:?}: NAMESPACE/NAME is expected");
        return Err(ApiError::invalid("service_account", rule));
    };
    let found = state.get::<ServiceAccount>(namespace, name);
    let found = found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "serviceaccount {namespace}/{name} does not exist: create it first"
        ))
    })?;
    if found.is_being_deleted() {
        return Err(ApiError::Conflict(format!(
            "serviceaccount {namespace}/{name} is being deleted: wait until it is gone and create it again"
        )));
    }
    Ok(Some(ServiceAccountRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: found.uid().to_owned(),
    }))
}

/// Checks that the caller may make a credential for this user: the verb impersonate, as Kubernetes has it, on the user or service
/// account, and on each group that the caller is not in.
///
/// # Errors
/// DENIED, naming all that is not allowed.
pub fn check(
    access: &Access,
    state: &State,
    name: &str,
    identity: Option<&CredentialIdentity>,
) -> Result<(), ApiError> {
    let own = match access {
        Access::Everything => return Ok(()),
        Access::Bound(who) => who.groups.as_slice(),
        Access::Nothing => &[],
    };
    let impersonate = |resource, name| Asked {
        verb: "impersonate",
        resource,
        name,
        ..Asked::default()
    };
    // Below the level of bindings, whom it is for is an administrator.
    let masters = [MASTERS.to_owned()];
    let groups = identity.map_or(masters.as_slice(), |it| it.groups.as_slice());
    let account = identity.and_then(|it| it.service_account.as_ref());
    let user = match account {
        Some(account) => Asked {
            namespace: &account.namespace,
            ..impersonate("serviceaccounts", &account.name)
        },
        None => impersonate("users", name),
    };
    let groups = groups.iter().filter(|group| !own.contains(group));
    let groups = groups.map(|group| impersonate("groups", group));
    let refused = groups.chain([user]).filter(|it| !access.may(state, it));
    access.refuse(refused.map(|it| access.refusal(&format!("{it} named {}", it.name))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use barge_proto::v1::{ClusterRecord, ObjectMeta};

    use super::*;
    use crate::{security::rbac::Identity, store::transaction::Draft};

    fn state(level: u32) -> State {
        let meta = |namespace: &str, name: &str| {
            Some(ObjectMeta {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                uid: format!("uid-{name}"),
                ..ObjectMeta::default()
            })
        };
        let mut draft = Draft::new();
        draft.put(ClusterRecord {
            metadata: meta("", "cluster"),
            feature_level: level,
            ..ClusterRecord::default()
        });
        let mut state = State::default();
        state.apply(1, draft.build("test".to_owned(), None));
        let mut draft = Draft::new();
        draft.put(ServiceAccount {
            metadata: meta("shop", "ci"),
            ..ServiceAccount::default()
        });
        state.apply(1, draft.build("test".to_owned(), None));
        state
    }

    fn request(groups: &[&str], service_account: &str) -> CreateCredentialRequest {
        CreateCredentialRequest {
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            service_account: service_account.to_owned(),
            ..CreateCredentialRequest::default()
        }
    }

    #[test]
    fn what_older_managers_do_not_know_waits_for_the_upgrade() {
        let old = state(BINDINGS - 1);
        assert_eq!(identity(&old, &request(&[MASTERS], "")).unwrap(), None);
        assert!(identity(&old, &request(&[], "")).is_err());
        let new = state(BINDINGS);
        let none = identity(&new, &request(&[], "")).unwrap().unwrap();
        assert!(none.groups.is_empty());
        let all = identity(&new, &request(&[MASTERS], "")).unwrap().unwrap();
        assert_eq!(all.groups, [MASTERS]);
    }

    #[test]
    fn what_none_has_is_named() {
        let state = state(BINDINGS);
        for bad in ["", "a b", AUTHENTICATED, "system:serviceaccounts:shop"] {
            assert!(identity(&state, &request(&[bad], "")).is_err(), "{bad}");
        }
        for bad in ["ci", "shop/none", "other/ci"] {
            assert!(identity(&state, &request(&[], bad)).is_err(), "{bad}");
        }
        let account = identity(&state, &request(&[], "shop/ci")).unwrap().unwrap();
        assert_eq!(account.service_account.unwrap().uid, "uid-ci");
    }

    #[test]
    fn nobody_becomes_another_by_a_credential() {
        let state = state(BINDINGS);
        let bob = Access::Bound(Arc::new(Identity {
            user: "bob".to_owned(),
            groups: vec!["devs".to_owned()],
        }));
        let of =
            |groups: &[&str], account: &str| identity(&state, &request(groups, account)).unwrap();
        for whose in [
            of(&["devs"], ""),
            of(&[MASTERS], ""),
            of(&[], "shop/ci"),
            None,
        ] {
            assert!(check(&bob, &state, "carol", whose.as_ref()).is_err());
            assert_eq!(
                check(&Access::Everything, &state, "carol", whose.as_ref()),
                Ok(())
            );
        }
        let refused = check(&bob, &state, "carol", of(&[MASTERS], "").as_ref());
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("bob may not impersonate groups named system:masters"),
            "{refused}"
        );
        assert!(
            refused.contains("bob may not impersonate users named carol"),
            "{refused}"
        );
    }
}
