#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::runtime::{Image, PodResources, QosClass};

fn container() -> ContainerSpec {
    ContainerSpec {
        pod_uid: "3f0e4d5c-9a1b-4c7d-8e2f-001122334455".into(),
        pod_namespace: "default".into(),
        pod_name: "web-0".into(),
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
    let shared = Shared {
        ipc: "/d/run/ipc/u".into(),
        uts: "/d/run/uts/u".into(),
        shm: "/d/run/shm/u".into(),
    };
    build(&Inputs {
        container,
        image: &image(),
        user,
        netns: Path::new("/d/run/netns/u"),
        shared: Some(&shared),
        etc: Path::new("/d/pods/u/etc"),
        cgroup: "/barge/u/nginx.0",
        version,
        machine: Machine {
            memory: 64 << 20,
            least_oom_score_adj: 0,
        },
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
        let environment = environment(&wanted, &image);
        for name in &names {
            let prefix = format!("{name}=");
            let found: Vec<_> = environment.iter().filter(|pair| pair.starts_with(&prefix)).collect();
            prop_assert_eq!(found, [&format!("{name}=pod")]);
        }
    }
}
