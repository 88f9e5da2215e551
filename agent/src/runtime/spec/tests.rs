#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::runtime::{Image, Namespaces, Paths, PodResources, QosClass, Seccomp, Security};

fn container() -> ContainerSpec {
    ContainerSpec {
        pod_uid: "3f0e4d5c-9a1b-4c7d-8e2f-001122334455".into(),
        pod_namespace: "default".into(),
        pod_name: "web-0".into(),
        hostname: String::new(),
        name: "nginx".into(),
        attempt: 0,
        image: Image {
            name: "docker.io/library/nginx:latest".into(),
            id: "docker.io/library/nginx@sha256:0".into(),
        },
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::from([("A".into(), "pod".into()), ("Z".into(), "1=2".into())]),
        working_dir: String::new(),
        pod_resources: PodResources {
            qos: QosClass::Burstable,
            cpu_request_milli: 250,
            memory_limit: Some(64 << 20),
        },
        cpu_request_milli: 250,
        cpu_limit_milli: Some(500),
        memory_request: 32 << 20,
        memory_limit: Some(64 << 20),
        security: Security::default(),
        namespaces: Namespaces::default(),
    }
}

fn image() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/bin".into(), "A=image".into(), "broken".into()],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["serve".into()],
        working_dir: "/srv".into(),
        ..ImageConfig::default()
    }
}

fn built(
    container: &ContainerSpec,
    user: &User,
    version: CgroupVersion,
) -> Result<Spec, SpecError> {
    let shared = Shared::of(&Paths::new("/d"), "u", container.namespaces);
    build(&Inputs {
        container,
        image: &image(),
        user,
        hostname: "web-0",
        netns: Path::new("/d/run/netns/u"),
        shared: Some(&shared),
        etc: Path::new("/d/pods/u/etc"),
        cgroup: "/barge/u/nginx.0",
        version,
        machine: Machine {
            memory: 64 << 20,
            least_oom_score_adj: 0,
            capabilities: u64::MAX,
        },
        devices: &[],
        profile: None,
    })
}

/// As JSON, with capabilities in order (they are a set) and without the long list of system calls.
fn shown(spec: &Spec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap();
    for set in value["process"]["capabilities"]
        .as_object_mut()
        .unwrap()
        .values_mut()
    {
        set.as_array_mut()
            .unwrap()
            .sort_by_key(|name| name.as_str().unwrap().to_owned());
    }
    value["linux"]
        .as_object_mut()
        .unwrap()
        .remove("seccomp")
        .unwrap();
    value
}

#[test]
fn golden_for_both_versions_of_control_groups() {
    let v1 = shown(&built(&container(), &User::default(), CgroupVersion::V1).unwrap());
    let golden: Value = serde_json::from_str(include_str!("golden_v1.json")).unwrap();
    assert_eq!(v1, golden, "{}", serde_json::to_string_pretty(&v1).unwrap());

    // Version 2 differs in one namespace.
    let mut v2 = shown(&built(&container(), &User::default(), CgroupVersion::V2).unwrap());
    let namespaces = v2["linux"]["namespaces"].as_array_mut().unwrap();
    assert_eq!(
        namespaces.pop().unwrap(),
        serde_json::json!({"type": "cgroup"})
    );
    assert_eq!(v2, golden);
}

#[test]
fn a_score_that_the_kernel_would_refuse_is_not_asked_for() {
    let mut guaranteed = container();
    guaranteed.pod_resources.qos = QosClass::Guaranteed;
    let spec = built(&guaranteed, &User::default(), CgroupVersion::V2).unwrap();
    assert_eq!(spec.process().as_ref().unwrap().oom_score_adj(), Some(0));
}

#[test]
fn the_system_calls_of_ordinary_programs() {
    let seccomp: LinuxSeccomp = serde_json::from_str(SECCOMP).unwrap();
    let rules = seccomp.syscalls().as_ref().unwrap();
    let allowed = |name: &str| {
        let mut rules = rules
            .iter()
            .filter(|rule| rule.names().iter().any(|n| n == name));
        rules.any(|rule| rule.action().to_string() == "SCMP_ACT_ALLOW" && rule.args().is_none())
    };
    for name in [
        "read",
        "execve",
        "mmap",
        "accept4",
        "futex",
        "openat",
        "statx",
        "rseq",
        "getrandom",
    ] {
        assert!(allowed(name), "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "add_key",
        "kexec_load",
        "init_module",
        "reboot",
        "clone",
        "clone3",
        "io_uring_setup",
        "userfaultfd",
        "perf_event_open",
        "open_by_handle_at",
        "swapon",
        "socket",
        "pivot_root",
        "settimeofday",
        "clock_settime",
        "acct",
        "quotactl",
        "syslog",
        "iopl",
        "ioperm",
        "vhangup",
    ] {
        assert!(!allowed(name), "{name}");
    }
}

#[test]
fn another_user_than_root_has_nothing_to_wield() {
    let user = User {
        uid: 33,
        gid: 33,
        groups: vec![4],
    };
    let spec = shown(&built(&container(), &user, CgroupVersion::V2).unwrap());
    assert_eq!(
        spec["process"]["capabilities"]["effective"],
        serde_json::json!([])
    );
    assert_eq!(
        spec["process"]["user"],
        serde_json::json!({"uid": 33, "gid": 33, "additionalGids": [4]})
    );
}

#[test]
fn commands_replace_as_kubernetes_has_it() {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    for (command, args, expected) in [
        (&[][..], &[][..], &["/entry", "serve"][..]),
        (&["c"], &[], &["c"]),
        (&[], &["a"], &["/entry", "a"]),
        (&["c"], &["a"], &["c", "a"]),
    ] {
        let mut wanted = container();
        wanted.command = strings(command);
        wanted.args = strings(args);
        assert_eq!(arguments(&wanted, &image()).unwrap(), strings(expected));
    }
    let nothing = ImageConfig::default();
    assert!(matches!(
        arguments(&container(), &nothing),
        Err(SpecError::NoCommand)
    ));
}

#[test]
fn working_directories_are_absolute() {
    let mut wanted = container();
    wanted.working_dir = "relative".into();
    let error = built(&wanted, &User::default(), CgroupVersion::V1).unwrap_err();
    assert!(matches!(error, SpecError::WorkingDir(_)));
}

proptest! {
    #[test]
    fn limits_are_what_the_kernel_takes(milli: u64) {
        prop_assert!(quota(milli) >= 1_000);
    }

    #[test]
    fn each_variable_once_and_the_pods_wins(names in prop::collection::vec("[A-C]", 0..6)) {
        let mut wanted = container();
        wanted.env = names.iter().map(|name| (name.clone(), "pod".to_owned())).collect();
        let image = ImageConfig {
            env: names.iter().map(|name| format!("{name}=image")).collect(),
            ..ImageConfig::default()
        };
        let environment = environment(&wanted, &image, "web-0");
        for name in &names {
            let prefix = format!("{name}=");
            let found: Vec<_> = environment.iter().filter(|pair| pair.starts_with(&prefix)).collect();
            prop_assert_eq!(found, [&format!("{name}=pod")]);
        }
    }
}

#[test]
fn the_machine_s_namespaces_are_no_namespaces_of_the_container() {
    let mut container = container();
    let of = |container: &ContainerSpec| {
        let spec = built(container, &User::default(), CgroupVersion::V1).unwrap();
        let json = serde_json::to_value(&spec).unwrap();
        let namespaces = json["linux"]["namespaces"].as_array().unwrap().clone();
        let names: BTreeMap<_, _> = namespaces
            .iter()
            .map(|it| {
                let path = it["path"].as_str().unwrap_or_default().to_owned();
                (it["type"].as_str().unwrap().to_owned(), path)
            })
            .collect();
        let mounts = json["mounts"].as_array().unwrap().clone();
        let shm = mounts.iter().find(|it| it["destination"] == "/dev/shm");
        let shm = shm.unwrap()["source"].as_str().unwrap().to_owned();
        (names, shm, json["hostname"].as_str().map(str::to_owned))
    };
    let (names, shm, hostname) = of(&container);
    assert_eq!(names["pid"], "");
    assert_eq!(
        (&names["uts"][..], &shm[..]),
        ("/d/run/uts/u", "/d/run/shm/u")
    );
    assert_eq!(hostname.as_deref(), Some("web-0"));
    container.namespaces.shared_pid = true;
    assert_eq!(of(&container).0["pid"], "/d/run/pid/u");
    container.namespaces = Namespaces {
        host_network: true,
        host_pid: true,
        host_ipc: true,
        shared_pid: false,
    };
    let (names, shm, hostname) = of(&container);
    let left: Vec<_> = names.keys().map(String::as_str).collect();
    assert_eq!(left, ["mount", "network"]);
    // The network is joined by its pin, and the machine keeps its name.
    assert_eq!(
        (&names["network"][..], &shm[..]),
        ("/d/run/netns/u", "/dev/shm")
    );
    assert_eq!(hostname, None);
}

/// A container of root's with this security context.
fn secured(security: Security, profile: Option<&str>) -> Result<Spec, SpecError> {
    let container = ContainerSpec {
        security,
        ..container()
    };
    build(&Inputs {
        container: &container,
        image: &image(),
        user: &User::default(),
        hostname: "web-0",
        netns: Path::new("/d/run/netns/u"),
        shared: None,
        etc: Path::new("/d/pods/u/etc"),
        cgroup: "/barge/u/nginx.0",
        version: CgroupVersion::V2,
        machine: Machine {
            memory: 64 << 20,
            least_oom_score_adj: 0,
            capabilities: u64::MAX,
        },
        devices: &[],
        profile,
    })
}

fn bounding(spec: &Spec) -> Vec<String> {
    let capabilities = spec.process().as_ref().unwrap().capabilities().clone();
    let held = capabilities.unwrap().bounding().clone().unwrap();
    let mut names: Vec<_> = held.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

fn allows(spec: &Spec, name: &str) -> bool {
    let seccomp = spec.linux().as_ref().unwrap().seccomp().clone().unwrap();
    let rules = seccomp.syscalls().clone().unwrap();
    let mut rules = rules
        .iter()
        .filter(|rule| rule.names().iter().any(|n| n == name));
    rules.any(|rule| rule.action().to_string() == "SCMP_ACT_ALLOW" && rule.args().is_none())
}

#[test]
fn capabilities_come_and_go_by_name() {
    let names = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let of = |add: &[&str], drop: &[&str]| {
        let security = Security {
            add: names(add),
            drop: names(drop),
            ..Security::default()
        };
        secured(security, None).unwrap()
    };
    assert_eq!(bounding(&of(&[], &[])).len(), 11);
    assert!(bounding(&of(&[], &["ALL"])).is_empty());
    assert_eq!(
        bounding(&of(&["NET_BIND_SERVICE"], &["ALL"])),
        ["NET_BIND_SERVICE"]
    );
    assert_eq!(bounding(&of(&["NET_ADMIN"], &["CHOWN"])).len(), 11);
    assert_eq!(bounding(&of(&["ALL"], &["NET_RAW"])).len(), 40);
    assert!(!allows(&of(&["NET_ADMIN"], &[]), "mount"));
    let admin = of(&["SYS_ADMIN"], &[]);
    for name in ["mount", "setns", "clone", "clone3"] {
        assert!(allows(&admin, name), "{name}");
    }
    let rules = admin.linux().as_ref().unwrap().seccomp().clone().unwrap();
    let rules = rules.syscalls().clone().unwrap();
    let of_clone3 = rules
        .iter()
        .filter(|rule| rule.names().iter().any(|name| name == "clone3"));
    assert_eq!(of_clone3.count(), 1, "rules that contradict each other");
}

#[test]
fn a_privileged_container_is_as_root_on_the_machine() {
    let security = Security {
        privileged: true,
        escalation: true,
        ..Security::default()
    };
    let spec = secured(security, None).unwrap();
    assert_eq!(bounding(&spec).len(), 41);
    assert_eq!(
        spec.process().as_ref().unwrap().no_new_privileges(),
        Some(false)
    );
    let value = serde_json::to_value(&spec).unwrap();
    let linux = &value["linux"];
    assert!(linux.get("seccomp").is_none() && linux.get("maskedPaths").is_none());
    assert_eq!(
        linux["resources"]["devices"],
        serde_json::json!([{"allow": true, "access": "rwm"}])
    );
    let mounts = value["mounts"].as_array().unwrap();
    let sys = mounts
        .iter()
        .find(|mount| mount["destination"] == "/sys")
        .unwrap();
    assert!(!sys["options"].as_array().unwrap().contains(&"ro".into()));
}

#[test]
fn a_profile_of_system_calls_is_taken_from_the_machine() {
    let security = Security {
        seccomp: Seccomp::Profile("web.json".into()),
        ..Security::default()
    };
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
    let spec = secured(security.clone(), Some(text)).unwrap();
    let seccomp = spec.linux().as_ref().unwrap().seccomp().clone().unwrap();
    assert!(seccomp.syscalls().is_none());
    let missing = secured(security.clone(), None).unwrap_err().to_string();
    assert!(
        missing.contains("web.json") && missing.contains("seccomp"),
        "{missing}"
    );
    assert!(
        secured(security, Some("{"))
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
}
