//! Security contexts, as a process in the container sees them.

use barge_agent::runtime::{ContainerSpec, Runtime, Seccomp, Security};
use serde_json::json;

use super::{machine::on_a_machine, pods::Pod};

/// What a script in such a container writes.
async fn says(pod: &Pod, name: &str, security: Security, script: &str) -> String {
    let spec = ContainerSpec {
        security,
        ..pod.spec(name, 0, script)
    };
    let (_, out, err) = pod.run(&spec).await;
    format!("{out}{err}")
}

#[test]
fn a_process_is_who_the_pod_says_and_may_what_the_pod_says() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let security = Security {
            run_as_user: Some(1001),
            run_as_group: Some(1002),
            run_as_non_root: true,
            groups: vec![1003],
            read_only_root: true,
            drop: vec!["ALL".into()],
            sysctls: [("net.ipv4.tcp_fin_timeout".to_owned(), "17".to_owned())].into(),
            ..Security::default()
        };
        let script = "id -u; id -g; id -G; echo x >/x; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; \
                      cat /proc/sys/net/ipv4/tcp_fin_timeout; echo y >/dev/shm/y && cat /dev/shm/y";
        let out = says(&pod, "bound", security, script).await;
        for line in ["1001", "1002", "1002 1003", "17", "y"] {
            assert!(out.lines().any(|it| it == line), "{line}: {out}");
        }
        assert!(out.contains("Read-only file system"), "{out}");
        assert!(out.contains("CapBnd:\t0000000000000000"), "{out}");
        assert!(
            out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t2"),
            "{out}"
        );

        let status = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status";
        // As it was before a pod could say anything.
        let out = says(&pod, "plain", Security::default(), status).await;
        assert!(
            out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t2"),
            "{out}"
        );
        let security = Security {
            escalation: true,
            seccomp: Seccomp::Unconfined,
            ..Security::default()
        };
        let out = says(&pod, "free", security, status).await;
        assert!(
            out.contains("NoNewPrivs:\t0") && out.contains("Seccomp:\t0"),
            "{out}"
        );
        let security = Security {
            privileged: true,
            escalation: true,
            ..Security::default()
        };
        let script =
            "ls /dev/kmsg; [ -w /sys/fs/cgroup ] && echo writable; grep CapEff /proc/self/status";
        let out = says(&pod, "all", security, script).await;
        assert!(
            out.contains("/dev/kmsg") && out.contains("writable"),
            "{out}"
        );
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
    });
}

#[test]
fn root_does_not_start_where_the_pod_forbids_it() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let security = Security {
            run_as_non_root: true,
            ..Security::default()
        };
        let spec = ContainerSpec {
            security,
            ..pod.spec("main", 0, "sleep 1")
        };
        let error = pod.runtime.start_container(&spec).await.unwrap_err();
        assert_eq!(error.reason, "CreateContainerConfigError");
        assert!(error.message.contains("runAsNonRoot"), "{error}");
        let security = Security {
            seccomp: Seccomp::Profile("missing.json".into()),
            ..Security::default()
        };
        let spec = ContainerSpec {
            security,
            ..pod.spec("main", 0, "sleep 1")
        };
        let error = pod.runtime.start_container(&spec).await.unwrap_err();
        assert_eq!(error.reason, "CreateContainerConfigError");
        assert!(error.message.contains("missing.json"), "{error}");
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
    });
}

#[test]
fn a_pod_is_called_as_it_asks() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let mut sandbox = super::pods::sandbox("web-0");
        sandbox.names.hostname = "shop".into();
        sandbox.names.aliases = vec![("10.0.0.9".into(), vec!["db".into()])];
        let made = pod.runtime.create_sandbox(&sandbox).await.unwrap();
        let spec = ContainerSpec {
            pod_uid: made.pod_uid.clone(),
            pod_name: made.name.clone(),
            hostname: "shop".into(),
            ..pod.spec(
                "main",
                0,
                "hostname; cat /etc/hostname; echo $HOSTNAME; grep -w db /etc/hosts",
            )
        };
        let (_, out, _) = pod.run(&spec).await;
        assert_eq!(out, "shop\nshop\nshop\n10.0.0.9\tdb\n");
        for uid in [&made.pod_uid, &pod.sandbox.pod_uid] {
            pod.runtime.remove_sandbox(uid).await.unwrap();
        }
    });
}
