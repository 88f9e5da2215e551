#![allow(clippy::unwrap_used)]

use barge_proto::v1::{
    ConfigMap, ConfigMapProjection, ConfigMapVolumeSource, DownwardApiProjection,
    DownwardApiVolumeFile, DownwardApiVolumeSource, KeyToPath, ObjectFieldSelector, ObjectMeta,
    PodSecurityContext, PodSpec, ProjectedVolumeSource, Quantity, ResourceFieldSelector,
    ResourceRequirements, Secret, SecretProjection, SecretVolumeSource, VolumeProjection,
};

use super::*;
use crate::tokens::Tokens;
use crate::{configuration::Configuration, desired::Desired, pods::given::Given};

fn meta(name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        namespace: "shop".into(),
        name: name.into(),
        ..ObjectMeta::default()
    })
}

fn quantity(value: &str) -> Quantity {
    Quantity {
        value: value.into(),
    }
}

/// ConfigMap `web` and Secret `db`.
fn desired() -> Desired {
    let web = ConfigMap {
        metadata: meta("web"),
        data: [("color".to_owned(), "blue".to_owned())].into(),
        binary_data: [("logo".to_owned(), vec![0xff])].into(),
        ..ConfigMap::default()
    };
    let db = Secret {
        metadata: meta("db"),
        data: [("password".to_owned(), b"hunter2".to_vec())].into(),
        ..Secret::default()
    };
    Desired {
        configuration: Configuration::kept(vec![web], vec![db], true),
        ..Desired::default()
    }
}

fn pod(volumes: Vec<Volume>) -> Pod {
    let mut metadata = meta("web-1").unwrap();
    metadata.labels = [
        ("app".to_owned(), "web".to_owned()),
        ("tier".to_owned(), "a\"b\\\n\u{1}é".to_owned()),
    ]
    .into();
    Pod {
        metadata: Some(metadata),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".into(),
                resources: Some(ResourceRequirements {
                    limits: [("memory".to_owned(), quantity("64Mi"))].into(),
                    ..ResourceRequirements::default()
                }),
                ..Container::default()
            }],
            volumes,
            security_context: Some(PodSecurityContext {
                fs_group: Some(2000),
                ..PodSecurityContext::default()
            }),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

fn no_account(tokens: &Tokens) -> Account<'_> {
    Account {
        tokens,
        automounts: false,
        roots: "",
    }
}

fn made(volume: Volume) -> Result<VolumeSource, String> {
    let pod = pod(vec![volume]);
    let given = Given::to(&pod, &desired());
    let around = Around {
        pod: &pod,
        given: &given,
        host_ip: "10.0.0.1",
        ips: &[],
        allocatable: &BTreeMap::new(),
    };
    let tokens = Tokens::default();
    let (volumes, whole) = of_pod(&pod, around, no_account(&tokens));
    whole?;
    assert_eq!(volumes.group, Some(2000));
    Ok(volumes.volumes.into_values().next().unwrap())
}

/// "path mode content" of each file.
fn files_of(volume: Volume) -> Result<Vec<String>, String> {
    let VolumeSource::Files(files) = made(volume)? else {
        return Err("these are no files".into());
    };
    let files = files.into_iter();
    Ok(files
        .map(|(path, file)| {
            let text = String::from_utf8_lossy(&file.bytes).into_owned();
            format!("{path} {:o} {text}", file.mode)
        })
        .collect())
}

fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
    KeyToPath {
        key: key.into(),
        path: path.into(),
        mode,
    }
}

fn config_map(name: &str, items: Vec<KeyToPath>, optional: bool) -> Volume {
    Volume {
        name: "v".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.into(),
            items,
            optional: Some(optional),
            default_mode: Some(0o440),
        }),
        ..Volume::default()
    }
}

fn secret(name: &str) -> Volume {
    Volume {
        name: "v".into(),
        secret: Some(SecretVolumeSource {
            secret_name: name.into(),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn field(path: &str, field: &str) -> DownwardApiVolumeFile {
    DownwardApiVolumeFile {
        path: path.into(),
        field_ref: Some(ObjectFieldSelector {
            field_path: field.into(),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardApiVolumeFile::default()
    }
}

#[test]
fn each_key_is_a_file() {
    let all = files_of(config_map("web", vec![], false));
    assert_eq!(all.unwrap(), ["color 440 blue", "logo 440 \u{fffd}"]);
    let items = vec![item("color", "a/./b", Some(0o600))];
    let some = files_of(config_map("web", items, false));
    assert_eq!(some.unwrap(), ["a/b 600 blue"]);
    assert_eq!(files_of(secret("db")).unwrap(), ["password 644 hunter2"]);
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let items = || vec![item("size", "size", None)];
    let missing = files_of(config_map("web", items(), false)).unwrap_err();
    assert!(
        missing.contains("volume \"v\": ConfigMap \"web\" has no key \"size\""),
        "{missing}"
    );
    assert!(
        files_of(config_map("web", items(), true))
            .unwrap()
            .is_empty()
    );
    let missing = files_of(config_map("none", vec![], false)).unwrap_err();
    assert!(
        missing.contains("ConfigMap \"none\" does not exist"),
        "{missing}"
    );
    assert!(
        files_of(config_map("none", vec![], true))
            .unwrap()
            .is_empty()
    );
    let missing = files_of(secret("none")).unwrap_err();
    assert!(
        missing.contains("Secret \"none\" does not exist"),
        "{missing}"
    );
}

#[test]
fn no_file_is_out_of_its_volume() {
    for path in [
        "../a",
        "a/../../b",
        "a/..",
        "..",
        "/../a",
        "..data",
        "./..data/a",
        "",
        "/",
    ] {
        let why = files_of(config_map("web", vec![item("color", path, None)], false));
        let why = why.unwrap_err();
        assert!(why.contains("volume \"v\": the path"), "{path:?}: {why}");
    }
    let good = vec![item("color", "/a/..b", None)];
    let good = files_of(config_map("web", good, false));
    assert_eq!(good.unwrap(), ["a/..b 440 blue"]);
}

#[test]
fn fields_of_the_pod_are_files() {
    let memory = DownwardApiVolumeFile {
        path: "memory".into(),
        resource_field_ref: Some(ResourceFieldSelector {
            container_name: "main".into(),
            resource: "limits.memory".into(),
            divisor: Some(quantity("1Mi")),
        }),
        mode: Some(0o400),
        ..DownwardApiVolumeFile::default()
    };
    let volume = Volume {
        downward_api: Some(DownwardApiVolumeSource {
            items: vec![
                field("labels", "metadata.labels"),
                field("app", "metadata.labels['app']"),
                field("notes", "metadata.annotations"),
                field("name", "metadata.name"),
                memory,
            ],
            default_mode: None,
        }),
        ..Volume::default()
    };
    let expected = [
        "app 644 web",
        "labels 644 app=\"web\"\ntier=\"a\\\"b\\\\\\n\\x01é\"",
        "memory 400 64",
        "name 644 web-1",
        "notes 644 ",
    ];
    assert_eq!(files_of(volume).unwrap(), expected);
}

#[test]
fn several_sources_share_a_folder() {
    let sources = vec![
        VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: "web".into(),
                items: vec![item("color", "x", None)],
                optional: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            secret: Some(SecretProjection {
                name: "db".into(),
                items: vec![item("password", "x", Some(0o400))],
                optional: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            downward_api: Some(DownwardApiProjection {
                items: vec![field("n/name", "metadata.name")],
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            secret: Some(SecretProjection {
                name: "none".into(),
                items: vec![],
                optional: Some(true),
            }),
            ..VolumeProjection::default()
        },
    ];
    let volume = Volume {
        projected: Some(ProjectedVolumeSource {
            sources,
            default_mode: Some(0o640),
        }),
        ..Volume::default()
    };
    let expected = ["n/name 640 web-1", "x 400 hunter2"];
    assert_eq!(files_of(volume).unwrap(), expected);
}

#[test]
fn memory_is_bounded_by_the_volume_and_by_the_pod() {
    let size = |medium: &str, limit: Option<&str>| {
        let volume = Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                medium: medium.into(),
                size_limit: limit.map(quantity),
            }),
            ..Volume::default()
        };
        made(volume).unwrap()
    };
    let memory = |size| VolumeSource::Memory { size: Some(size) };
    assert_eq!(size("", Some("1Mi")), VolumeSource::Disk);
    assert_eq!(size("Memory", None), memory(64 << 20));
    assert_eq!(size("Memory", Some("1Mi")), memory(1 << 20));
    assert_eq!(size("Memory", Some("1Gi")), memory(64 << 20));
    assert_eq!(size("Memory", Some("0")), memory(64 << 20));
}

#[test]
fn mounts_say_where_their_volume_is() {
    let disk = Volume {
        name: "disk".into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let host = Volume {
        name: "host".into(),
        host_path: Some(HostPathVolumeSource {
            path: "/var/log".into(),
            r#type: None,
        }),
        ..Volume::default()
    };
    let pod = pod(vec![disk, host, secret("db")]);
    let mount = |name: &str, expression: &str| v1::VolumeMount {
        name: name.into(),
        mount_path: format!("/{name}"),
        sub_path_expr: expression.into(),
        ..v1::VolumeMount::default()
    };
    let of = |mount: v1::VolumeMount| {
        let container = Container {
            volume_mounts: vec![mount],
            ..Container::default()
        };
        let env = [
            ("POD".to_owned(), "web-1".to_owned()),
            ("UP".to_owned(), "..".to_owned()),
        ];
        mounts(&pod, &container, &env.into()).map(|mut mounts| mounts.remove(0))
    };
    let disk = of(mount("disk", "logs/$(POD)")).unwrap();
    assert_eq!((disk.place, disk.read_only), (Place::Disk, false));
    assert_eq!(
        (disk.path.as_str(), disk.sub_path.as_str()),
        ("/disk", "logs/web-1")
    );
    assert_eq!(
        of(mount("host", "")).unwrap().place,
        Place::Host("/var/log".into())
    );
    let files = of(mount("v", "")).unwrap();
    assert_eq!((files.place, files.read_only), (Place::Files, true));
    assert!(
        of(mount("disk", "$(NONE)"))
            .unwrap_err()
            .contains("\"NONE\"")
    );
    assert!(
        of(mount("disk", "a/$(UP)"))
            .unwrap_err()
            .contains("without")
    );
    assert!(of(mount("none", "")).unwrap_err().contains("no volume"));
}

/// What becomes of a pod with these volumes of the ConfigMap `large`.
fn with_large(large: ConfigMap, volumes: Vec<Volume>) -> Result<(), String> {
    let (made, whole) = made_with_large(large, volumes);
    let small = VolumeSource::Disk;
    assert_eq!(made.volumes.get("last"), Some(&small), "it needs no room");
    whole
}

fn made_with_large(large: ConfigMap, volumes: Vec<Volume>) -> (PodVolumes, Result<(), String>) {
    let desired = Desired {
        configuration: Configuration::kept(vec![large], vec![], true),
        ..Desired::default()
    };
    let last = Volume {
        name: "last".into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let pod = pod(volumes.into_iter().chain([last]).collect());
    let given = Given::to(&pod, &desired);
    let around = Around {
        pod: &pod,
        given: &given,
        host_ip: "",
        ips: &[],
        allocatable: &BTreeMap::new(),
    };
    let tokens = Tokens::default();
    of_pod(&pod, around, no_account(&tokens))
}

fn named(name: String, items: Vec<KeyToPath>) -> Volume {
    Volume {
        name,
        ..config_map("large", items, false)
    }
}

#[test]
fn the_files_of_a_pod_are_bounded_before_they_are_made() {
    let large = |data: usize, keys: usize| ConfigMap {
        metadata: meta("large"),
        binary_data: (0..keys).map(|n| (n.to_string(), vec![0; data])).collect(),
        ..ConfigMap::default()
    };
    let volumes = |count: usize| {
        let volumes = (0..count).map(|index| named(format!("v{index}"), vec![]));
        volumes.collect::<Vec<_>>()
    };
    assert_eq!(with_large(large(15 << 20, 1), volumes(4)), Ok(()));
    let full = with_large(large(15 << 20, 1), volumes(5)).unwrap_err();
    assert!(
        full.contains("volume \"v4\": there is no room for the file \"0\" of 15728640 bytes"),
        "{full}"
    );
    // A key is copied for each of its paths: 12 TiB, if all were made.
    let paths = (0..200_000).map(|n| item("0", &n.to_string(), None));
    let full = with_large(large(64 << 20, 1), vec![named("v".into(), paths.collect())]);
    assert!(full.unwrap_err().contains("at most 67108864 bytes"));
    // Of one path the last counts, and each is looked at.
    let paths = vec![item("0", "same", None); 200_000];
    let full = with_large(large(1 << 20, 1), vec![named("v".into(), paths)]);
    assert!(full.unwrap_err().contains("at most 67108864 bytes"));
    // Empty files and folders take room, too.
    let full = with_large(large(0, 3000), volumes(3)).unwrap_err();
    assert!(full.contains("of 0 bytes"), "{full}");
    // What is thrown away is not made again and again: 400 GiB, if all were.
    let tried = vec![item("0", "same", None); 100];
    let tried = (0..4_000).map(|n| named(format!("v{n}"), tried.clone()));
    let full = with_large(large(1 << 20, 1), tried.collect());
    assert!(full.is_err());
    let deep = vec![item("0", &"a/".repeat(20_000), None)];
    let full = with_large(large(0, 1), vec![named("v".into(), deep)]);
    assert!(full.is_err());
}
