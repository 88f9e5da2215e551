//! Which ConfigMaps, Secrets and ServiceAccount a pod uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    accounts,
    v1::{Container, EnvVarSource, LocalObjectReference, PodSpec, Volume},
};

/// The annotation of a Deployment that asks, with the value `true`, to be rolled when a ConfigMap or Secret changes that its pods use.
pub const ROLL: &str = "barge.dev/roll-on-config-change";

/// The kinds of what pods use by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// A ServiceAccount.
    ServiceAccount,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ConfigMap, Self::Secret, Self::ServiceAccount];

    /// As manifests name the kind.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::ServiceAccount => "ServiceAccount",
        }
    }
}

/// What a pod uses, by kind and name; all of it is in the pod's namespace. Optional references count, too.
#[must_use]
pub fn used(spec: &PodSpec) -> BTreeSet<(Source, &str)> {
    let mut used: BTreeSet<_> = references(spec).map(|it| it.object).collect();
    used.insert((Source::ServiceAccount, accounts::of_pod(spec)));
    let secrets = pull_secrets(spec, &[]).map(|name| (Source::Secret, name));
    used.extend(secrets);
    used
}

/// The ConfigMaps and Secrets that the containers of a pod see, as variables or files; `true` for those without which the pod does not start.
#[must_use]
pub fn configuration(spec: &PodSpec) -> BTreeMap<(Source, &str), bool> {
    let mut needed = BTreeMap::new();
    for Reference { object, optional } in references(spec) {
        *needed.entry(object).or_default() |= !optional;
    }
    needed
}

/// A place in a pod that names an object.
struct Reference<'a> {
    object: (Source, &'a str),
    /// Whether the pod does without it.
    optional: bool,
}

impl<'a> Reference<'a> {
    fn config_map(name: &'a str, optional: Option<bool>) -> Self {
        Self {
            object: (Source::ConfigMap, name),
            optional: optional.unwrap_or_default(),
        }
    }

    fn secret(name: &'a str, optional: Option<bool>) -> Self {
        Self {
            object: (Source::Secret, name),
            optional: optional.unwrap_or_default(),
        }
    }
}

fn references(spec: &PodSpec) -> impl Iterator<Item = Reference<'_>> {
    let containers = spec.all_containers().flat_map(of_container);
    containers.chain(spec.volumes.iter().flat_map(of_volume))
}

/// The names of the Secrets whose credentials a pod's images are pulled with, in the order in which they are tried: the pod's own, or, of a pod that
/// names none, those of its service account. All are in the pod's namespace. One that does not exist is passed over.
pub fn pull_secrets<'a>(
    spec: &'a PodSpec,
    of_account: &'a [LocalObjectReference],
) -> impl Iterator<Item = &'a str> {
    let named = match spec.image_pull_secrets.as_slice() {
        [] => of_account,
        own => own,
    };
    named.iter().map(|secret| secret.name.as_str())
}

/// What the files of a volume come from.
fn of_volume(volume: &Volume) -> impl Iterator<Item = Reference<'_>> {
    let config_maps = volume.config_map.iter();
    let secrets = volume.secret.iter();
    let projected = volume.projected.iter().flat_map(|it| &it.sources);
    let projected = projected.flat_map(|source| {
        let config_map = source.config_map.iter();
        let secret = source.secret.iter();
        config_map
            .map(|it| Reference::config_map(&it.name, it.optional))
            .chain(secret.map(|it| Reference::secret(&it.name, it.optional)))
    });
    config_maps
        .map(|it| Reference::config_map(&it.name, it.optional))
        .chain(secrets.map(|it| Reference::secret(&it.secret_name, it.optional)))
        .chain(projected)
}

/// What the environment of a container uses.
fn of_container(container: &Container) -> impl Iterator<Item = Reference<'_>> {
    let whole = container.env_from.iter().flat_map(|from| {
        let config_map = from.config_map_ref.iter();
        let secret = from.secret_ref.iter();
        config_map
            .map(|it| Reference::config_map(&it.name, it.optional))
            .chain(secret.map(|it| Reference::secret(&it.name, it.optional)))
    });
    let sources = container.env.iter().flat_map(|it| &it.value_from);
    whole.chain(sources.flat_map(of_source))
}

fn of_source(source: &EnvVarSource) -> impl Iterator<Item = Reference<'_>> {
    let config_map = source.config_map_key_ref.iter();
    let secret = source.secret_key_ref.iter();
    config_map
        .map(|it| Reference::config_map(&it.name, it.optional))
        .chain(secret.map(|it| Reference::secret(&it.name, it.optional)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{
        ConfigMapEnvSource, ConfigMapProjection, ConfigMapVolumeSource, EnvFromSource, EnvVar,
        ProjectedVolumeSource, SecretEnvSource, SecretKeySelector, SecretProjection,
        SecretVolumeSource, VolumeProjection,
    };

    #[test]
    fn every_reference_counts_once() {
        let from = |config_map: &str, secret: &str| EnvFromSource {
            config_map_ref: (!config_map.is_empty()).then(|| ConfigMapEnvSource {
                name: config_map.into(),
                optional: Some(true),
            }),
            secret_ref: (!secret.is_empty()).then(|| SecretEnvSource {
                name: secret.into(),
                optional: None,
            }),
            ..EnvFromSource::default()
        };
        let key = SecretKeySelector {
            name: "db".into(),
            key: "password".into(),
            optional: None,
        };
        let container = Container {
            env_from: vec![from("web", ""), from("", "db"), from("web", "")],
            env: vec![EnvVar {
                name: "PASSWORD".into(),
                value_from: Some(EnvVarSource {
                    secret_key_ref: Some(key),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            }],
            ..Container::default()
        };
        let spec = PodSpec {
            containers: vec![container.clone(), container],
            ..PodSpec::default()
        };
        let account = (Source::ServiceAccount, "default");
        let expected = [(Source::ConfigMap, "web"), (Source::Secret, "db"), account];
        assert_eq!(used(&spec), expected.into());
        // The Secret is there as an optional one and as one that is needed.
        let needed = [
            ((Source::ConfigMap, "web"), false),
            ((Source::Secret, "db"), true),
        ];
        assert_eq!(configuration(&spec), needed.into());
        assert_eq!(used(&PodSpec::default()), [account].into());
    }

    #[test]
    fn volumes_count_too() {
        let projected = ProjectedVolumeSource {
            sources: vec![
                VolumeProjection {
                    config_map: Some(ConfigMapProjection {
                        name: "ca".into(),
                        ..ConfigMapProjection::default()
                    }),
                    ..VolumeProjection::default()
                },
                VolumeProjection {
                    secret: Some(SecretProjection {
                        name: "key".into(),
                        ..SecretProjection::default()
                    }),
                    ..VolumeProjection::default()
                },
            ],
            ..ProjectedVolumeSource::default()
        };
        let volume = |config_map: &str, secret: &str| Volume {
            config_map: (!config_map.is_empty()).then(|| ConfigMapVolumeSource {
                name: config_map.into(),
                ..ConfigMapVolumeSource::default()
            }),
            secret: (!secret.is_empty()).then(|| SecretVolumeSource {
                secret_name: secret.into(),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        };
        let both = Volume {
            projected: Some(projected),
            ..Volume::default()
        };
        let spec = PodSpec {
            volumes: vec![volume("web", ""), volume("", "db"), both],
            ..PodSpec::default()
        };
        let expected = [
            (Source::ConfigMap, "ca"),
            (Source::ConfigMap, "web"),
            (Source::Secret, "db"),
            (Source::Secret, "key"),
            (Source::ServiceAccount, "default"),
        ];
        assert_eq!(used(&spec), expected.into());
    }

    #[test]
    fn a_pod_that_names_pull_secrets_does_without_those_of_its_account() {
        let secrets = |names: &[&str]| {
            let names = names.iter();
            let secrets = names.map(|name| LocalObjectReference {
                name: (*name).into(),
            });
            secrets.collect::<Vec<_>>()
        };
        let account = secrets(&["of-account"]);
        let mut spec = PodSpec::default();
        assert!(pull_secrets(&spec, &account).eq(["of-account"]));
        spec.image_pull_secrets = secrets(&["b", "a"]);
        assert!(pull_secrets(&spec, &account).eq(["b", "a"]));
        let account = (Source::ServiceAccount, "default");
        let expected = [(Source::Secret, "a"), (Source::Secret, "b"), account];
        assert_eq!(used(&spec), expected.into());
    }
}
