#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use barge_proto::v1::{
    ConfigMap, ConfigMapEnvSource, ConfigMapKeySelector, EnvFromSource, EnvVar, ObjectMeta,
    PodSpec, ResourceRequirements, Secret, SecretEnvSource, SecretKeySelector, Service,
    ServicePort, ServiceSpec,
};

use super::*;
use crate::{configuration::Configuration, desired::Desired, pods::Links};

fn meta(name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        namespace: "shop".into(),
        name: name.into(),
        ..ObjectMeta::default()
    })
}

/// ConfigMap `web` and Secret `db`, on a node with four cores.
fn desired() -> Desired {
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let web = ConfigMap {
        metadata: meta("web"),
        data: [
            text("COLOR", "blue"),
            text("a=b", "x"),
            text("REF", "$(COLOR)"),
        ]
        .into(),
        binary_data: [("BINARY".to_owned(), vec![1])].into(),
        ..ConfigMap::default()
    };
    let db = Secret {
        metadata: meta("db"),
        data: [
            ("COLOR".to_owned(), b"red".to_vec()),
            ("raw".to_owned(), vec![0xff]),
        ]
        .into(),
        ..Secret::default()
    };
    Desired {
        configuration: Configuration::kept(vec![web], vec![db], true),
        ..Desired::default()
    }
}

fn made_with(container: Container, desired: &Desired) -> Result<Environment, String> {
    let mut metadata = meta("web-1").unwrap();
    metadata.labels = [("app".to_owned(), "web".to_owned())].into();
    let pod = Pod {
        metadata: Some(metadata),
        spec: Some(PodSpec {
            node_name: "n1".into(),
            containers: vec![container.clone()],
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    let given = Given::to(&pod, desired);
    let quantity = |value: &str| Quantity {
        value: value.to_owned(),
    };
    let allocatable = [
        ("cpu".to_owned(), quantity("4")),
        ("memory".to_owned(), quantity("8Gi")),
    ];
    let around = Around {
        allocatable: &allocatable.into(),
        pod: &pod,
        given: &given,
        host_ip: "192.0.2.1",
        ips: &["10.244.0.7".parse().unwrap()],
    };
    environment(&container, around)
}

fn made(container: Container) -> Result<Environment, String> {
    made_with(container, &desired())
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: value.into(),
        value_from: None,
    }
}

fn sourced(name: &str, source: EnvVarSource) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: String::new(),
        value_from: Some(source),
    }
}

fn all_of(config_map: &str, optional: bool) -> EnvFromSource {
    EnvFromSource {
        config_map_ref: Some(ConfigMapEnvSource {
            name: config_map.into(),
            optional: Some(optional),
        }),
        ..EnvFromSource::default()
    }
}

fn all_of_db(prefix: &str) -> EnvFromSource {
    EnvFromSource {
        prefix: prefix.into(),
        secret_ref: Some(SecretEnvSource {
            name: "db".into(),
            optional: None,
        }),
        ..EnvFromSource::default()
    }
}

fn key_of_web(key: &str, optional: bool) -> EnvVarSource {
    EnvVarSource {
        config_map_key_ref: Some(ConfigMapKeySelector {
            name: "web".into(),
            key: key.into(),
            optional: Some(optional),
        }),
        ..EnvVarSource::default()
    }
}

fn key_of_secret(name: &str, key: &str, optional: bool) -> EnvVarSource {
    EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: name.into(),
            key: key.into(),
            optional: Some(optional),
        }),
        ..EnvVarSource::default()
    }
}

fn with(env_from: Vec<EnvFromSource>, env: Vec<EnvVar>) -> Container {
    Container {
        name: "web".into(),
        env_from,
        env,
        ..Container::default()
    }
}

fn value<'a>(made: &'a Environment, name: &str) -> Option<&'a str> {
    made.variables.get(name).map(String::as_str)
}

#[test]
fn later_ones_win_and_only_plain_values_are_expanded() {
    let container = with(
        vec![all_of("web", false), all_of_db("")],
        vec![
            plain("SHADE", "dark $(COLOR)"),
            sourced("COPY", key_of_web("REF", false)),
            plain("COLOR", "green $(LATER)"),
            plain("LATER", "$(COLOR)"),
        ],
    );
    let made = made(container).unwrap();
    assert_eq!(value(&made, "SHADE"), Some("dark red"));
    assert_eq!(value(&made, "REF"), Some("$(COLOR)"));
    assert_eq!(value(&made, "COPY"), Some("$(COLOR)"));
    assert_eq!(value(&made, "COLOR"), Some("green $(LATER)"));
    assert_eq!(value(&made, "LATER"), Some("green $(LATER)"));
    assert_eq!(value(&made, "BINARY"), None);
}

#[test]
fn keys_that_can_be_no_variables_are_skipped_and_named() {
    let made = made(with(vec![all_of("web", false), all_of_db("DB_")], vec![])).unwrap();
    assert_eq!(value(&made, "DB_COLOR"), Some("red"));
    let [web, db] = made.skipped.as_slice() else {
        unreachable!("{:?}", made.skipped)
    };
    assert!(
        web.contains("ConfigMap \"web\"") && web.ends_with(": a=b"),
        "{web}"
    );
    assert!(
        db.contains("Secret \"db\"") && db.ends_with(": DB_raw"),
        "{db}"
    );
}

#[test]
fn what_is_missing_is_said_unless_it_is_optional() {
    let optional = with(
        vec![all_of("none", true)],
        vec![
            sourced("A", key_of_web("none", true)),
            sourced("B", key_of_secret("none", "a", true)),
        ],
    );
    assert_eq!(made(optional).unwrap(), Environment::default());
    for (container, expected) in [
        (
            with(vec![all_of("none", false)], vec![]),
            "envFrom[0]: ConfigMap \"none\" does not exist: create it in the pod's namespace, and the container starts",
        ),
        (
            with(vec![], vec![sourced("A", key_of_web("none", false))]),
            "variable \"A\": ConfigMap \"web\" has no key \"none\": add it, and the container starts",
        ),
        (
            with(
                vec![],
                vec![sourced("A", key_of_secret("db", "raw", false))],
            ),
            "variable \"A\": the value of \"raw\" in Secret \"db\" is not text, and variables can hold nothing else",
        ),
    ] {
        assert_eq!(made(container).unwrap_err(), expected);
    }
}

#[test]
fn after_a_boot_without_managers_even_what_is_optional_is_waited_for() {
    let booted = Desired {
        configuration: Configuration::kept(vec![], vec![], false),
        ..desired()
    };
    let container = with(
        vec![],
        vec![sourced("A", key_of_secret("db", "COLOR", true))],
    );
    let error = made_with(container, &booted).unwrap_err();
    assert!(error.contains("it was booted since"), "{error}");
}

#[test]
fn fields_and_amounts_are_told_as_kubernetes_does() {
    let field = |path: &str| EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            api_version: "v1".into(),
            field_path: path.into(),
        }),
        ..EnvVarSource::default()
    };
    for (path, expected) in [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "n1"),
        ("status.hostIP", "192.0.2.1"),
        ("status.podIPs", "10.244.0.7"),
    ] {
        let made = made(with(vec![], vec![sourced("A", field(path))])).unwrap();
        assert_eq!(value(&made, "A"), Some(expected), "{path}");
    }
    let quantity = |value: &str| Quantity {
        value: value.to_owned(),
    };
    for (resource, divisor, expected) in [
        ("limits.cpu", "0", "1"),
        ("limits.cpu", "1m", "250"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", "1Mi", "8192"),
        ("requests.memory", "1", "0"),
        ("limits.memory", "1E", "1"),
    ] {
        let amount = ResourceFieldSelector {
            resource: resource.into(),
            divisor: Some(quantity(divisor)),
            ..ResourceFieldSelector::default()
        };
        let source = EnvVarSource {
            resource_field_ref: Some(amount),
            ..EnvVarSource::default()
        };
        let mut container = with(vec![], vec![sourced("A", source)]);
        container.resources = Some(ResourceRequirements {
            limits: [("cpu".to_owned(), quantity("250m"))].into(),
            ..ResourceRequirements::default()
        });
        let made = made(container).unwrap();
        assert_eq!(value(&made, "A"), Some(expected), "{resource} / {divisor}");
    }
}

fn large(key: &str, value: &str) -> Desired {
    let large = ConfigMap {
        metadata: meta("large"),
        data: [(key.to_owned(), value.to_owned())].into(),
        ..ConfigMap::default()
    };
    Desired {
        configuration: Configuration::kept(vec![large], vec![], true),
        ..Desired::default()
    }
}

fn from_large(prefix: String) -> EnvFromSource {
    EnvFromSource {
        prefix,
        config_map_ref: Some(ConfigMapEnvSource {
            name: "large".into(),
            optional: None,
        }),
        ..EnvFromSource::default()
    }
}

/// Each of these takes a TiB and more when it is made before it is counted.
#[test]
fn references_that_multiply_are_refused() {
    let doubled = (1..31).map(|n| {
        let before = format!("$(a{})", n - 1);
        plain(&format!("a{n}"), &format!("{before}{before}"))
    });
    let first = plain("a0", &"x".repeat(1024));
    let why = made(Container {
        env: std::iter::once(first).chain(doubled).collect(),
        ..Container::default()
    });
    let why = why.unwrap_err();
    assert!(
        why.contains("variable \"a7\": it is 131076 bytes") && why.contains("at most 131072"),
        "{why}"
    );
    let many = (0..100_000).map(|_| plain("b", "$(a)"));
    let why = made(Container {
        env: std::iter::once(plain("a", &"x".repeat(100 << 10)))
            .chain(many)
            .collect(),
        ..Container::default()
    });
    let why = why.unwrap_err();
    assert!(
        why.contains("variable \"b\": with it the environment"),
        "{why}"
    );
}

#[test]
fn objects_that_are_named_many_times_are_refused() {
    let many = |desired: &Desired, count: usize| {
        let env_from = (0..count).map(|n| from_large(format!("P{n}_")));
        let container = Container {
            env_from: env_from.collect(),
            ..Container::default()
        };
        made_with(container, desired)
    };
    let value = "x".repeat(100 << 10);
    assert_eq!(many(&large("A", &value), 20).unwrap().variables.len(), 20);
    let why = many(&large("A", &value), 100_000).unwrap_err();
    assert!(
        why.contains("envFrom[20]: variable \"P20_A\": with it"),
        "{why}"
    );
    // What can be no variable takes time, and its names take room.
    let value = "x".repeat(1 << 20);
    let why = many(&large("A=B", &value), 100_000).unwrap_err();
    assert!(
        why.contains("envFrom[15]: with ConfigMap \"large\""),
        "{why}"
    );
    let why = many(&large("A", &value), 1).unwrap_err();
    assert!(why.contains("it is 1048582 bytes long"), "{why}");
}

#[test]
fn arguments_and_environment_share_one_room() {
    let container = |count: usize| Container {
        env: vec![plain("A", &"x".repeat(100 << 10))],
        args: vec!["$(A)".to_owned(); count],
        ..Container::default()
    };
    let spec = |container: &Container| {
        let environment = made(container.clone())?;
        let image = crate::runtime::Image {
            name: "i".into(),
            id: "i@d".into(),
        };
        spec::container_spec(&Pod::default(), container, 0, image, environment).map(|_| ())
    };
    assert_eq!(spec(&container(19)), Ok(()));
    let why = spec(&container(400_000)).unwrap_err();
    assert!(
        why.contains("args[19]: with it") && why.contains("at most 2097152"),
        "{why}"
    );
}

#[test]
fn services_of_the_namespace_are_variables_that_others_may_refer_to_and_replace() {
    let service = Arc::new(Service {
        metadata: meta("cache"),
        spec: Some(ServiceSpec {
            cluster_ip: "10.96.0.11".into(),
            ports: vec![ServicePort {
                port: 6379,
                ..ServicePort::default()
            }],
            ..ServiceSpec::default()
        }),
        ..Service::default()
    });
    let mut desired = desired();
    desired.links = Links::of([service].iter());
    let container = Container {
        env: vec![
            plain("URL", "redis://$(CACHE_SERVICE_HOST):$(CACHE_SERVICE_PORT)"),
            plain("CACHE_PORT", "6379"),
        ],
        ..Container::default()
    };
    let made = made_with(container, &desired).unwrap();
    assert_eq!(made.variables["URL"], "redis://10.96.0.11:6379");
    assert_eq!(made.variables["CACHE_PORT"], "6379");
    assert_eq!(made.variables["CACHE_PORT_6379_TCP_ADDR"], "10.96.0.11");
    // It asks for none.
    let pod = Pod {
        metadata: meta("web-1"),
        spec: Some(PodSpec {
            enable_service_links: Some(false),
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    assert!(Given::to(&pod, &desired).links().is_empty());
}
