//! A pod's life: made, run, looked at, stopped, gone.

use std::{collections::BTreeMap, fs, time::Duration};

use barge_agent::{
    carrier::logs::{self, LogOptions},
    runtime::{
        Container, ContainerSpec, ContainerState, Image, PodResources, PullPolicy, QosClass,
        Runtime, Sandbox, SandboxSpec, containerd::Containerd,
    },
};
use futures::StreamExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    image,
    machine::{Machine, RANGE, eventually, nobody, on_a_machine, until},
    traces::Traces,
};

/// What pods of these tests request.
pub const BURSTABLE: PodResources = PodResources {
    qos: QosClass::Burstable,
    cpu_request_milli: 100,
    memory_limit: None,
};

/// A pod on a machine, with an image that has a shell.
pub struct Pod {
    pub runtime: Containerd,
    pub sandbox: Sandbox,
    pub image: Image,
}

impl Pod {
    /// Pushes and pulls the image, and makes the pod's sandbox.
    pub async fn new(machine: &Machine, config: serde_json::Value) -> (Self, Traces) {
        image::push(machine, "shell:1", config).await;
        let runtime = machine.runtime();
        runtime.recover().await.unwrap();
        runtime.ensure_network(RANGE).await.unwrap();
        let image = runtime
            .pull("shell:1", PullPolicy::IfNotPresent, nobody())
            .await
            .unwrap();
        let before = Traces::of(machine);
        let sandbox = runtime.create_sandbox(&sandbox("web-0")).await.unwrap();
        let pod = Self {
            runtime,
            sandbox,
            image,
        };
        (pod, before)
    }

    /// What its sandbox was made of.
    pub fn sandbox_spec(&self) -> SandboxSpec {
        SandboxSpec {
            pod_uid: self.sandbox.pod_uid.clone(),
            namespace: self.sandbox.namespace.clone(),
            name: self.sandbox.name.clone(),
            ..Default::default()
        }
    }

    /// A container of this pod that runs a script.
    pub fn spec(&self, name: &str, attempt: u32, script: &str) -> ContainerSpec {
        ContainerSpec {
            pod_uid: self.sandbox.pod_uid.clone(),
            pod_namespace: self.sandbox.namespace.clone(),
            pod_name: self.sandbox.name.clone(),
            hostname: String::new(),
            namespaces: Default::default(),
            name: name.into(),
            attempt,
            image: self.image.clone(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: String::new(),
            last_words: "/dev/termination-log".to_owned(),
            stop_signal: String::new(),
            pod_resources: BURSTABLE,
            cpu_request_milli: 100,
            cpu_limit_milli: None,
            memory_request: 0,
            memory_limit: None,
            security: barge_agent::runtime::Security::default(),
            mounts: Vec::new(),
        }
    }

    /// Runs a script to its end; answers the exit state and both outputs.
    pub async fn run(&self, spec: &ContainerSpec) -> (ContainerState, String, String) {
        let container = self.runtime.start_container(spec).await.unwrap();
        let state = exited(&self.runtime, &container.id).await;
        self.runtime.remove_container(&container.id).await.unwrap();
        let (out, err) = self.output(spec).await;
        (state, out, err)
    }

    /// Waits until a running container has written something: it takes a moment to be what it should be.
    pub async fn says(&self, spec: &ContainerSpec, text: &str) {
        let path = self
            .runtime
            .log_path(&spec.pod_uid, &spec.name, spec.attempt);
        eventually(&format!("the log has \"{text}\""), || async {
            let log = fs::read_to_string(&path).unwrap_or_default();
            log.contains(text).then_some(())
        })
        .await;
    }

    /// What a container that is gone has written.
    pub async fn output(&self, spec: &ContainerSpec) -> (String, String) {
        let path = self
            .runtime
            .log_path(&spec.pod_uid, &spec.name, spec.attempt);
        let entries: Vec<_> = logs::read(path, LogOptions::default(), CancellationToken::new())
            .collect()
            .await;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.unwrap();
            match entry.channel.name() {
                "stdout" => out.extend_from_slice(&entry.bytes),
                _ => err.extend_from_slice(&entry.bytes),
            }
        }
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }
}

pub fn sandbox(name: &str) -> SandboxSpec {
    SandboxSpec {
        pod_uid: uuid::Uuid::new_v4().to_string(),
        namespace: "default".into(),
        name: name.into(),
        ..Default::default()
    }
}

pub async fn find(runtime: &Containerd, id: &str) -> Option<Container> {
    let inventory = runtime.list().await.unwrap();
    inventory
        .containers
        .into_iter()
        .find(|container| container.id == id)
}

pub async fn exited(runtime: &Containerd, id: &str) -> ContainerState {
    eventually(&format!("{id} has exited"), || async {
        let container = find(runtime, id).await.expect("a container");
        matches!(container.state, ContainerState::Exited { .. }).then_some(container.state)
    })
    .await
}

fn code(state: &ContainerState) -> (u32, bool) {
    match state {
        ContainerState::Exited {
            code,
            oom_killed,
            started_at_ms,
            finished_at_ms,
        } => {
            assert!(
                *started_at_ms > 0 && finished_at_ms >= started_at_ms,
                "{state:?}"
            );
            (*code, *oom_killed)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn runs_and_leaves_nothing() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(
            &machine,
            json!({"Env": ["GREETING=hello"], "WorkingDir": "/tmp"}),
        )
        .await;
        // Every step is repeated; the second time finds it done.
        let again = pod
            .runtime
            .create_sandbox(&pod.sandbox_spec())
            .await
            .unwrap();
        assert_eq!(again.ips, pod.sandbox.ips);

        let spec = pod.spec(
            "one",
            0,
            "echo $GREETING from $HOSTNAME in $(pwd); echo bad >&2; exit 7",
        );
        let (state, out, err) = pod.run(&spec).await;
        assert_eq!(code(&state), (7, false));
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("hello from web-0 in /tmp\n", "bad\n")
        );

        let spec = pod.spec(
            "two",
            0,
            "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done",
        );
        let first = pod.runtime.start_container(&spec).await.unwrap();
        let second = pod.runtime.start_container(&spec).await.unwrap();
        assert_eq!(first.state, second.state);
        assert!(
            pod.runtime
                .version()
                .await
                .unwrap()
                .starts_with("containerd://1.")
        );
        pod.says(&spec, "ready").await;
        pod.runtime
            .stop_container(&first.id, Duration::from_secs(30))
            .await
            .unwrap();
        assert_eq!(code(&exited(&pod.runtime, &first.id).await), (3, false));
        pod.runtime
            .stop_container(&first.id, Duration::from_secs(30))
            .await
            .unwrap();

        let spec = pod.spec(
            "three",
            0,
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        );
        pod.runtime.start_container(&spec).await.unwrap();
        pod.says(&spec, "ready").await;
        let stubborn = pod.runtime.start_container(&spec).await.unwrap();
        pod.runtime
            .stop_container(&stubborn.id, Duration::from_millis(300))
            .await
            .unwrap();
        assert_eq!(
            code(&exited(&pod.runtime, &stubborn.id).await),
            (137, false)
        );
        for _ in 0..2 {
            pod.runtime.remove_container(&stubborn.id).await.unwrap();
        }
        // One container still exists, and one runs: removing the pod takes them along.
        pod.runtime
            .start_container(&pod.spec("four", 0, "sleep 1000"))
            .await
            .unwrap();
        for _ in 0..2 {
            pod.runtime
                .remove_sandbox(&pod.sandbox.pod_uid)
                .await
                .unwrap();
        }
        let inventory = pod.runtime.list().await.unwrap();
        assert!(
            inventory.containers.is_empty() && inventory.sandboxes.is_empty(),
            "{inventory:?}"
        );
        assert_eq!(Traces::of(&machine), before);
        pod.runtime.carrier().shutdown().await.unwrap();
        until("the carrier has ended", || {
            (!machine.paths().carrier_socket().exists()).then_some(())
        });
    });
}

#[test]
fn limits_users_and_files_are_as_asked() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({"User": "www"})).await;
        let ip = pod.sandbox.ips[0].to_string();
        let script = "id -u; id -g; id -G; cat /etc/hosts; hostname; ls -d /proc/sys/kernel; echo x > /proc/sys/kernel/domainname; cat /marker";
        let (state, out, err) = pod.run(&pod.spec("id", 0, script)).await;
        assert_eq!(code(&state), (0, false), "{out}{err}");
        assert!(out.starts_with("33\n34\n34 50\n"), "{out}");
        assert!(out.contains(&format!("{ip}\tweb-0\n")), "{out}");
        assert!(out.ends_with("shell-1"), "{out}");
        assert!(err.contains("Read-only"), "{err}");

        let mut spec = pod.spec(
            "limits",
            0,
            "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; sleep 1000",
        );
        spec.cpu_request_milli = 250;
        spec.cpu_limit_milli = Some(500);
        spec.memory_limit = Some(32 << 20);
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let group = |controller: &str, file: &str| {
            let below = format!(
                "{}/{uid}/{uid}-limits-0/{file}",
                machine.name(),
                uid = pod.sandbox.pod_uid
            );
            fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{below}"))
                .unwrap()
                .trim()
                .to_owned()
        };
        assert_eq!(group("cpu", "cpu.shares"), "256");
        assert_eq!(group("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(
            group("memory", "memory.limit_in_bytes"),
            (32 << 20).to_string()
        );
        pod.says(&spec, "Seccomp:").await;
        pod.runtime
            .stop_container(&container.id, Duration::ZERO)
            .await
            .unwrap();
        pod.runtime.remove_container(&container.id).await.unwrap();
        let (out, _) = pod.output(&spec).await;
        let squeezed: Vec<String> = out
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            squeezed,
            ["CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"]
        );

        let mut hungry = pod.spec("hungry", 0, "x=a; while :; do x=$x$x$x; done");
        hungry.memory_limit = Some(16 << 20);
        let (state, _, _) = pod.run(&hungry).await;
        assert_eq!(code(&state), (137, true));
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn what_cannot_run_is_said_in_words_and_leaves_nothing() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let mut spec = pod.spec("bad", 0, "");
        spec.command = vec!["/no/such/program".into()];
        pod.runtime.start_container(&spec).await.unwrap_err();
        // The pod's own control group is there from now on.
        let with = Traces::of(&machine);
        assert!(pod.runtime.list().await.unwrap().containers.is_empty());
        for _ in 0..2 {
            let error = pod.runtime.start_container(&spec).await.unwrap_err();
            assert_eq!(error.reason, "StartError");
            assert!(error.message.contains("/no/such/program"), "{error}");
        }
        spec.command.clear();
        let error = pod.runtime.start_container(&spec).await.unwrap_err();
        assert_eq!(error.reason, "CreateContainerConfigError");
        assert!(error.message.contains("set command"), "{error}");
        assert_eq!(Traces::of(&machine), with);
        // The same attempt works once it is mended.
        spec.command = vec!["/bin/echo".into(), "mended".into()];
        let (state, out, _) = pod.run(&spec).await;
        assert_eq!((code(&state), out.as_str()), ((0, false), "mended\n"));
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn pods_reach_each_other_and_the_node_reaches_them() {
    on_a_machine(|machine| async move {
        let (pod, before) = Pod::new(&machine, json!({})).await;
        let server = pod.spec(
            "server",
            0,
            "while :; do echo from the pod | nc -l -p 80; done",
        );
        pod.runtime.start_container(&server).await.unwrap();
        let ip = pod.sandbox.ips[0];
        // By the node.
        let answer = eventually("the server answers", || async move {
            use tokio::io::AsyncReadExt;
            let mut stream = tokio::net::TcpStream::connect((ip, 80)).await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            (!text.is_empty()).then_some(text)
        })
        .await;
        assert_eq!(answer, "from the pod\n");
        // By another pod, and by another container of the same pod over its loopback.
        let other = pod.runtime.create_sandbox(&sandbox("web-1")).await.unwrap();
        assert_ne!(other.ips, pod.sandbox.ips);
        let beside = Pod {
            runtime: pod.runtime.clone(),
            sandbox: other,
            image: pod.image.clone(),
        };
        let ask = |address: &str| {
            format!("until nc {address} 80 < /dev/null | grep from; do sleep 0.05; done")
        };
        let (_, out, _) = beside
            .run(&beside.spec("client", 0, &ask(&ip.to_string())))
            .await;
        assert_eq!(out, "from the pod\n");
        let (_, out, _) = pod.run(&pod.spec("client", 0, &ask("127.0.0.1"))).await;
        assert_eq!(out, "from the pod\n");
        for uid in [&pod.sandbox.pod_uid, &beside.sandbox.pod_uid] {
            pod.runtime.remove_sandbox(uid).await.unwrap();
        }
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn a_node_without_a_range_or_with_no_room_says_so() {
    on_a_machine(|machine| async move {
        let runtime = machine.runtime();
        let error = runtime.create_sandbox(&sandbox("early")).await.unwrap_err();
        assert_eq!(error.reason, "NetworkNotReady");
        assert!(runtime.ensure_network("10.0.0.300/24").await.is_err());
        // Network, gateway, broadcast: one address is left.
        runtime.ensure_network("10.88.9.0/30").await.unwrap();
        runtime.ensure_network("10.88.9.0/30").await.unwrap();
        let before = Traces::of(&machine);
        let first = runtime.create_sandbox(&sandbox("first")).await.unwrap();
        let full = sandbox("second");
        let error = runtime.create_sandbox(&full).await.unwrap_err();
        assert_eq!(error.reason, "CreatePodSandboxError");
        assert!(
            error
                .message
                .contains("no address is free in the node's pod range 10.88.9.0/30"),
            "{error}"
        );
        let listed = runtime.list().await.unwrap().sandboxes;
        let half: Vec<_> = listed
            .iter()
            .filter(|sandbox| sandbox.ips.is_empty())
            .collect();
        assert_eq!(half[0].pod_uid, full.pod_uid);
        runtime.remove_sandbox(&first.pod_uid).await.unwrap();
        // Now there is room.
        assert!(!runtime.create_sandbox(&full).await.unwrap().ips.is_empty());
        runtime.remove_sandbox(&full.pod_uid).await.unwrap();
        assert_eq!(Traces::of(&machine), before);
    });
}
