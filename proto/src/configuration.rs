//! Which ConfigMaps and Secrets a pod uses.

use std::collections::BTreeSet;

use crate::v1::{Container, EnvVarSource, LocalObjectReference, PodSpec};

/// The two kinds that hold configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Source {
    /// As manifests name the kind.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// What a pod uses, by kind and name; all of it is in the pod's namespace. Optional references count, too.
#[must_use]
pub fn used(spec: &PodSpec) -> BTreeSet<(Source, &str)> {
    let mut used = BTreeSet::new();
    for container in spec.all_containers() {
        used.extend(of_container(container));
    }
    let secrets = pull_secrets(spec, &[]).map(|name| (Source::Secret, name));
    used.extend(secrets);
    used
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

/// What the environment of a container uses.
fn of_container(container: &Container) -> impl Iterator<Item = (Source, &str)> {
    let whole = container.env_from.iter().flat_map(|from| {
        let config_map = from.config_map_ref.iter();
        let secret = from.secret_ref.iter();
        config_map
            .map(|it| (Source::ConfigMap, it.name.as_str()))
            .chain(secret.map(|it| (Source::Secret, it.name.as_str())))
    });
    let sources = container.env.iter().flat_map(|it| &it.value_from);
    whole.chain(sources.flat_map(of_source))
}

fn of_source(source: &EnvVarSource) -> impl Iterator<Item = (Source, &str)> {
    let config_map = source.config_map_key_ref.iter();
    let secret = source.secret_key_ref.iter();
    config_map
        .map(|it| (Source::ConfigMap, it.name.as_str()))
        .chain(secret.map(|it| (Source::Secret, it.name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{
        ConfigMapEnvSource, EnvFromSource, EnvVar, SecretEnvSource, SecretKeySelector,
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
        let expected = [(Source::ConfigMap, "web"), (Source::Secret, "db")];
        assert_eq!(used(&spec), expected.into());
        assert!(used(&PodSpec::default()).is_empty());
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
        let expected = [(Source::Secret, "a"), (Source::Secret, "b")];
        assert_eq!(used(&spec), expected.into());
    }
}
