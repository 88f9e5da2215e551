//! A container's security context together with its pod's: the container's wins where both say something.

use barge_proto::v1::{Container, Pod, SeccompProfile};

use crate::runtime::{Seccomp, Security};

/// What holds for a container. Ids were checked by the managers; what does not fit is 0's opposite, nobody.
pub fn of(pod: &Pod, container: &Container) -> Security {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone());
    let of_pod = of_pod.unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let plain = |names: Vec<String>| -> Vec<String> {
        let names = names.iter();
        names
            .map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned())
            .collect()
    };
    let (add, drop) = (plain(capabilities.add), plain(capabilities.drop));
    let privileged = own.privileged.unwrap_or(false);
    let gains = privileged || add.iter().any(|name| name == "SYS_ADMIN" || name == "ALL");
    let groups = of_pod.supplemental_groups.iter().chain(&of_pod.fs_group);
    let sysctls = of_pod.sysctls.into_iter();
    Security {
        run_as_user: own.run_as_user.or(of_pod.run_as_user).map(id),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(id),
        run_as_non_root: own
            .run_as_non_root
            .or(of_pod.run_as_non_root)
            .unwrap_or(false),
        groups: groups.map(|group| id(*group)).collect(),
        only_these_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        escalation: own.allow_privilege_escalation.unwrap_or(gains),
        add,
        drop,
        seccomp: seccomp(own.seccomp_profile.or(of_pod.seccomp_profile)),
        sysctls: sysctls
            .map(|it| (it.name.replace('/', "."), it.value))
            .collect(),
    }
}

fn id(id: i64) -> u32 {
    /// As the kernel calls an id that has no meaning (`overflowuid`).
    const NOBODY: u32 = 65_534;
    u32::try_from(id).unwrap_or(NOBODY)
}

fn seccomp(profile: Option<SeccompProfile>) -> Seccomp {
    match profile {
        Some(profile) if profile.r#type == "Unconfined" => Seccomp::Unconfined,
        Some(profile) if profile.r#type == "Localhost" => {
            Seccomp::Profile(profile.localhost_profile)
        }
        _ => Seccomp::Usual,
    }
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::{Capabilities, PodSecurityContext, PodSpec, SecurityContext, Sysctl};

    use super::*;

    fn of_both(pod: PodSecurityContext, container: SecurityContext) -> Security {
        let pod = Pod {
            spec: Some(PodSpec {
                security_context: Some(pod),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        let container = Container {
            security_context: Some(container),
            ..Container::default()
        };
        of(&pod, &container)
    }

    #[test]
    fn no_context_says_nothing() {
        let pod = Pod::default();
        assert_eq!(of(&pod, &Container::default()), Security::default());
        let empty = of_both(PodSecurityContext::default(), SecurityContext::default());
        assert_eq!(empty, Security::default());
    }

    #[test]
    fn the_container_wins_over_its_pod() {
        let pod = PodSecurityContext {
            run_as_user: Some(1),
            run_as_group: Some(2),
            run_as_non_root: Some(true),
            supplemental_groups: vec![5],
            supplemental_groups_policy: Some("Strict".into()),
            fs_group: Some(7),
            seccomp_profile: Some(SeccompProfile {
                r#type: "Unconfined".into(),
                ..SeccompProfile::default()
            }),
            sysctls: vec![Sysctl {
                name: "net/ipv4/tcp_syncookies".into(),
                value: "0".into(),
            }],
            ..PodSecurityContext::default()
        };
        let of_pod = of_both(pod.clone(), SecurityContext::default());
        assert_eq!(
            (of_pod.run_as_user, of_pod.run_as_group),
            (Some(1), Some(2))
        );
        assert!(of_pod.run_as_non_root && of_pod.only_these_groups);
        assert_eq!(of_pod.groups, [5, 7]);
        assert_eq!(of_pod.seccomp, Seccomp::Unconfined);
        assert_eq!(of_pod.sysctls["net.ipv4.tcp_syncookies"], "0");
        let own = SecurityContext {
            run_as_user: Some(0),
            run_as_non_root: Some(false),
            seccomp_profile: Some(SeccompProfile {
                r#type: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..SecurityContext::default()
        };
        let both = of_both(pod, own);
        assert_eq!((both.run_as_user, both.run_as_group), (Some(0), Some(2)));
        assert!(!both.run_as_non_root);
        assert_eq!(both.seccomp, Seccomp::Usual);
    }

    #[test]
    fn rights_are_gained_only_where_that_is_asked_for() {
        let escalation =
            |own: SecurityContext| of_both(PodSecurityContext::default(), own).escalation;
        assert!(!escalation(SecurityContext::default()));
        assert!(escalation(SecurityContext {
            allow_privilege_escalation: Some(true),
            ..SecurityContext::default()
        }));
        assert!(escalation(SecurityContext {
            privileged: Some(true),
            ..SecurityContext::default()
        }));
        assert!(escalation(SecurityContext {
            capabilities: Some(Capabilities {
                add: vec!["CAP_SYS_ADMIN".into()],
                drop: vec![],
            }),
            ..SecurityContext::default()
        }));
    }
}
