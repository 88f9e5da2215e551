//! The ServiceAccount of a pod: which it is, and whether its token is mounted.

use crate::v1::{Pod, PodSpec, ServiceAccount};

/// The account of pods that name none. Every namespace has it, whether or not there is an object for it.
pub const DEFAULT: &str = "default";

/// The name of a pod's account, in the pod's namespace.
#[must_use]
pub fn of_pod(spec: &PodSpec) -> &str {
    match spec.service_account_name.as_str() {
        "" => DEFAULT,
        name => name,
    }
}

/// Whether it is the account that every namespace has.
#[must_use]
pub fn is_default(pod: &Pod) -> bool {
    pod.spec.as_ref().is_none_or(|spec| of_pod(spec) == DEFAULT)
}

/// Whether a pod gets a token of its account without asking for it: the pod decides, then its account, and both may say nothing. `account` is
/// absent for a namespace that has no object `default`.
#[must_use]
pub fn automounts(spec: &PodSpec, account: Option<&ServiceAccount>) -> bool {
    let account = account.and_then(|it| it.automount_service_account_token);
    spec.automount_service_account_token
        .or(account)
        .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_decides_and_then_its_account() {
        let pod = |said| PodSpec {
            automount_service_account_token: said,
            ..PodSpec::default()
        };
        let account = |said| ServiceAccount {
            automount_service_account_token: said,
            ..ServiceAccount::default()
        };
        for (said, by_account, expected) in [
            (None, None, true),
            (None, Some(None), true),
            (None, Some(Some(true)), true),
            (None, Some(Some(false)), false),
            (Some(true), Some(Some(false)), true),
            (Some(false), Some(Some(true)), false),
            (Some(false), None, false),
        ] {
            let account = by_account.map(account);
            let automounts = automounts(&pod(said), account.as_ref());
            assert_eq!(automounts, expected, "{said:?} {by_account:?}");
        }
    }

    #[test]
    fn a_pod_that_names_none_has_the_default() {
        let mut spec = PodSpec::default();
        assert_eq!(of_pod(&spec), "default");
        spec.service_account_name = "ci".into();
        assert_eq!(of_pod(&spec), "ci");
    }
}
