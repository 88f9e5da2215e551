//! The identity of a caller for bindings: a user and groups.

use barge_proto::v1::{CredentialIdentity, CredentialRecord, ServiceAccount};
use barge_state::{BINDINGS, Kind, State, service_account_user};

/// Its members may do everything, whatever bindings say: removing the last binding must not lock out all users.
pub const MASTERS: &str = "system:masters";
/// The group of all users with a credential.
pub const AUTHENTICATED: &str = "system:authenticated";
/// All service accounts; those of a namespace have it after a colon.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// The user and groups of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name of a credential, or "system:serviceaccount:NAMESPACE:NAME".
    pub user: String,
    /// All of them.
    pub groups: Vec<String>,
}

impl Identity {
    /// Whose a credential is.
    #[must_use]
    pub fn of(credential: &CredentialRecord) -> Self {
        let identity = credential.identity.as_ref();
        let mut groups = identity.map_or_else(
            || vec![MASTERS.to_owned()],
            |identity| identity.groups.clone(),
        );
        let account = identity.and_then(|identity| identity.service_account.as_ref());
        if let Some(account) = account {
            groups.push(SERVICE_ACCOUNTS.to_owned());
            groups.push(format!("{SERVICE_ACCOUNTS}:{}", account.namespace));
        }
        groups.push(AUTHENTICATED.to_owned());
        Self {
            user: user(credential),
            groups,
        }
    }
}

/// The user whose a credential is.
#[must_use]
pub fn user(credential: &CredentialRecord) -> String {
    let identity = credential.identity.as_ref();
    match identity.and_then(|identity| identity.service_account.as_ref()) {
        Some(account) => service_account_user(&account.namespace, &account.name),
        None => credential.meta().name.clone(),
    }
}

/// Whether a credential may do everything.
#[must_use]
pub fn is_master(credential: &CredentialRecord) -> bool {
    let identity = credential.identity.as_ref();
    identity.is_none_or(|identity| identity.groups.iter().any(|group| group == MASTERS))
}

/// Whether a credential's service account, if it is one's, is still the one that it was made for, and is
/// not being deleted.
#[must_use]
pub fn has_account(state: &State, credential: &CredentialRecord) -> bool {
    let identity = credential.identity.as_ref();
    let Some(account) = identity.and_then(|identity| identity.service_account.as_ref()) else {
        return true;
    };
    let found = state.by_uid::<ServiceAccount>(&account.uid);
    found.is_some_and(|account| !account.is_being_deleted())
}

/// What an administrator's credential says of itself in a cluster of this level.
#[must_use]
pub fn master(level: u32) -> Option<CredentialIdentity> {
    (level >= BINDINGS).then(|| CredentialIdentity {
        groups: vec![MASTERS.to_owned()],
        service_account: None,
    })
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::{ObjectMeta, ServiceAccountRef};

    use super::*;

    fn credential(identity: Option<CredentialIdentity>) -> CredentialRecord {
        CredentialRecord {
            metadata: Some(ObjectMeta {
                name: "it".to_owned(),
                ..ObjectMeta::default()
            }),
            identity,
            ..CredentialRecord::default()
        }
    }

    #[test]
    fn credentials_from_before_are_administrators() {
        assert!(is_master(&credential(None)));
        assert!(is_master(&credential(master(BINDINGS))));
        assert!(!is_master(&credential(Some(CredentialIdentity::default()))));
        let old = Identity::of(&credential(None));
        assert_eq!((old.user.as_str(), old.groups.len()), ("it", 2));
        assert_eq!(master(BINDINGS - 1), None);
    }

    #[test]
    fn a_service_account_ends_with_its_record() {
        let account = ServiceAccountRef {
            namespace: "shop".to_owned(),
            name: "ci".to_owned(),
            uid: "gone".to_owned(),
        };
        let it = credential(Some(CredentialIdentity {
            groups: vec![],
            service_account: Some(account),
        }));
        let Identity { user, groups } = Identity::of(&it);
        assert_eq!(user, "system:serviceaccount:shop:ci");
        let all = [
            SERVICE_ACCOUNTS,
            "system:serviceaccounts:shop",
            AUTHENTICATED,
        ];
        assert_eq!(groups, all);
        assert!(!has_account(&State::default(), &it));
        assert!(has_account(&State::default(), &credential(None)));
    }
}
