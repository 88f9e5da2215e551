//! Pods whose containers do not run, one for each reason: what `get` and `describe` say of it, and that the words name the field and the way out.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{path::Path, process::Command, time::Duration};

use barge_tests::{Cluster, eventually_within, said};

/// The last reason takes two looks at the pods' disks, 30 seconds apart.
const DEADLINE: Duration = Duration::from_secs(180);

/// A pod that does not run, and how people see why.
struct Row {
    pod: &'static str,
    /// `main` stands for a container that would run.
    spec: &'static str,
    /// What the column STATUS says in the end.
    status: &'static str,
    /// What `describe` says, beside its events.
    says: &'static [&'static str],
    /// Reason and a part of the message of an event; none for what containers do by themselves.
    event: Option<(&'static str, &'static str)>,
}

const MAIN: &str = r#"name: main, image: "my-app:1.0", command: [busybox, sleep, "1000"]"#;

const ROWS: &[Row] = &[
    // Images.
    Row {
        pod: "image-missing",
        spec: r#"containers: [{name: main, image: "nothing:1.0"}]"#,
        status: "ImagePullBackOff",
        says: &[
            r#"Back-off pulling image "nothing:1.0": "#,
            "has no such image",
        ],
        event: Some(("Failed", r#"Failed to pull image "nothing:1.0": "#)),
    },
    Row {
        pod: "image-never-pulled",
        spec: r#"containers: [{name: main, image: "nothing:2.0", imagePullPolicy: Never}]"#,
        status: "ErrImageNeverPull",
        says: &["nothing:2.0", "Never"],
        event: Some(("ErrImageNeverPull", "nothing:2.0")),
    },
    Row {
        pod: "image-of-a-ghost",
        spec: r#"containers: [{name: main, image: "ghost:1.0"}]"#,
        status: "CreateContainerConfigError",
        says: &[r#"runs as user "ghost""#, "set runAsUser to a number"],
        event: Some(("Failed", r#"user "ghost""#)),
    },
    // What a container should be.
    Row {
        pod: "no-config-map",
        spec: "containers: [{MAIN, envFrom: [{configMapRef: {name: gone}}]}]",
        status: "CreateContainerConfigError",
        says: &[r#"ConfigMap "gone" does not exist: create it"#],
        event: Some(("Failed", r#"ConfigMap "gone" does not exist"#)),
    },
    Row {
        pod: "no-secret",
        spec: "containers: [{MAIN, env: [{name: A, valueFrom: {secretKeyRef: {name: gone, key: a}}}]}]",
        status: "CreateContainerConfigError",
        says: &[r#"Secret "gone" does not exist: create it"#],
        event: Some(("Failed", r#"Secret "gone" does not exist"#)),
    },
    Row {
        pod: "no-key",
        spec: "containers: [{MAIN, env: [{name: A, valueFrom: {secretKeyRef: {name: there, key: b}}}]}]",
        status: "CreateContainerConfigError",
        says: &[r#"Secret "there" has no key "b": add it"#],
        event: Some(("Failed", r#"has no key "b""#)),
    },
    Row {
        pod: "no-account",
        spec: "serviceAccountName: gone, containers: [{MAIN}]",
        status: "CreateContainerConfigError",
        says: &["error looking up service account default/gone", "create it"],
        event: Some(("Failed", "service account default/gone")),
    },
    Row {
        pod: "no-variable",
        spec: r#"containers: [{MAIN, volumeMounts: [{name: v, mountPath: /v, subPathExpr: "$(GONE)"}]}], volumes: [{name: v, emptyDir: {}}]"#,
        status: "CreateContainerConfigError",
        says: &["subPathExpr", r#"the variable "GONE""#],
        event: Some(("Failed", "subPathExpr")),
    },
    Row {
        pod: "root",
        spec: "securityContext: {runAsNonRoot: true}, containers: [{MAIN}]",
        status: "CreateContainerConfigError",
        says: &["runAsNonRoot is true", "set runAsUser"],
        event: Some(("Failed", "runAsNonRoot")),
    },
    // Volumes.
    Row {
        pod: "no-secret-volume",
        spec: "containers: [{MAIN, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, secret: {secretName: gone}}]",
        status: "ContainerCreating",
        says: &[r#"volume "v": Secret "gone" does not exist: create it"#],
        event: Some(("FailedMount", r#"Secret "gone" does not exist"#)),
    },
    Row {
        pod: "no-host-path",
        spec: "containers: [{MAIN, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, hostPath: {path: /no/such/folder, type: Directory}}]",
        status: "ContainerCreating",
        says: &["/no/such/folder"],
        event: Some(("FailedMount", "/no/such/folder")),
    },
    // What a container should run.
    Row {
        pod: "no-program",
        spec: r#"restartPolicy: Never, containers: [{name: main, image: "my-app:1.0", command: [/no/such/program]}]"#,
        status: "StartError",
        says: &["exit code 128", "/no/such/program"],
        event: Some(("Failed", "/no/such/program")),
    },
    Row {
        pod: "no-program-again",
        spec: r#"containers: [{name: main, image: "my-app:1.0", command: [/no/such/program]}]"#,
        status: "CrashLoopBackOff",
        says: &[
            "Last State",
            "StartError",
            "exit code 128",
            "/no/such/program",
        ],
        event: Some(("BackOff", "Back-off restarting failed container main")),
    },
    // How containers end.
    Row {
        pod: "crashes",
        spec: r#"containers: [{name: main, image: "my-app:1.0", command: [sh, -c, "exit 3"]}]"#,
        status: "CrashLoopBackOff",
        says: &["restarting failed container=main", "exit code 3"],
        event: Some(("BackOff", "Back-off restarting failed container main")),
    },
    Row {
        pod: "out-of-memory",
        spec: r#"restartPolicy: Never, containers: [{name: main, image: "my-app:1.0", command: [busybox, dd, if=/dev/zero, of=/dev/null, bs=200M, count=1], resources: {limits: {memory: 16Mi}}}]"#,
        status: "OOMKilled",
        says: &["OOMKilled, exit code 137", "memory 16Mi"],
        event: None,
    },
    Row {
        pod: "fails",
        spec: r#"restartPolicy: Never, containers: [{name: main, image: "my-app:1.0", command: [sh, -c, "echo no database > /dev/termination-log; exit 3"]}]"#,
        status: "Error",
        says: &["Terminated, Error, exit code 3", "no database"],
        event: None,
    },
    Row {
        pod: "done",
        spec: r#"restartPolicy: Never, containers: [{name: main, image: "my-app:1.0", command: [busybox, "true"]}]"#,
        status: "Completed",
        says: &["Terminated, Completed, exit code 0"],
        event: None,
    },
    Row {
        pod: "late",
        spec: "activeDeadlineSeconds: 25, terminationGracePeriodSeconds: 1, containers: [{MAIN}]",
        status: "Error",
        says: &["activeDeadlineSeconds: 25"],
        event: Some(("DeadlineExceeded", "activeDeadlineSeconds: 25")),
    },
    // Init containers.
    Row {
        pod: "initialising",
        spec: r#"initContainers: [{name: first, image: "my-app:1.0", command: [busybox, sleep, "1000"]}], containers: [{MAIN}]"#,
        status: "Init:0/1",
        says: &[
            "Waiting, PodInitializing",
            "containers with incomplete status: [first]",
        ],
        event: None,
    },
    Row {
        pod: "init-fails",
        spec: r#"restartPolicy: Never, initContainers: [{name: first, image: "my-app:1.0", command: [sh, -c, "exit 4"]}], containers: [{MAIN}]"#,
        status: "Init:Error",
        says: &["exit code 4"],
        event: None,
    },
    Row {
        pod: "init-crashes",
        spec: r#"initContainers: [{name: first, image: "my-app:1.0", command: [sh, -c, "exit 4"]}], containers: [{MAIN}]"#,
        status: "Init:CrashLoopBackOff",
        says: &["restarting failed container=first", "exit code 4"],
        event: Some(("BackOff", "Back-off restarting failed container first")),
    },
    Row {
        pod: "init-image-missing",
        spec: r#"initContainers: [{name: first, image: "nothing:3.0"}], containers: [{MAIN}]"#,
        status: "Init:ImagePullBackOff",
        says: &[r#"Back-off pulling image "nothing:3.0": "#],
        event: Some(("Failed", r#"Failed to pull image "nothing:3.0": "#)),
    },
    // Places.
    Row {
        pod: "selective",
        spec: "nodeSelector: {disk: ssd}, containers: [{MAIN}]",
        status: "Pending",
        says: &[
            "0/1 nodes are available: 1 node(s) did not match node selector",
            "disk=ssd",
        ],
        event: Some(("FailedScheduling", "did not match node selector")),
    },
    Row {
        pod: "huge",
        spec: r#"containers: [{MAIN, resources: {requests: {cpu: "1000", memory: 1000Ti, ephemeral-storage: 1000Ti}}}]"#,
        status: "Pending",
        says: &[
            "insufficient cpu",
            "insufficient memory",
            "insufficient ephemeral-storage",
        ],
        event: Some(("FailedScheduling", "insufficient cpu")),
    },
    Row {
        pod: "port-taken",
        spec: "containers: [{MAIN, ports: [{containerPort: 8080, hostPort: 18099}]}]",
        status: "Pending",
        says: &["didn't have free ports"],
        event: Some(("FailedScheduling", "didn't have free ports")),
    },
    // The last one: see the deadline.
    Row {
        pod: "evicted",
        spec: r#"restartPolicy: Never, terminationGracePeriodSeconds: 1, containers: [{name: main, image: "my-app:1.0", command: [sh, -c, "busybox dd if=/dev/zero of=/v/file bs=1M count=3; exec busybox sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]"#,
        status: "Error",
        says: &[r#"emptyDir volume "v" exceeds its sizeLimit of 1048576 bytes"#],
        event: Some(("Evicted", r#"emptyDir volume "v" exceeds its sizeLimit"#)),
    },
];

fn manifest(pod: &str, spec: &str) -> String {
    let spec = spec.replace("MAIN", MAIN);
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\nspec: {{{spec}}}\n---\n")
}

/// An image whose user its /etc/passwd does not have, made of one that is in the registry.
fn push_ghost(cluster: &Cluster) {
    let registry = cluster.layout().registry.expect("it has one").address;
    let layout = cluster.write("ghost", "");
    std::fs::remove_file(&layout).expect("make place for the image");
    let local = format!("oci:{}:1.0", layout.display());
    let remote = |name: &str| format!("docker://{registry}/library/{name}:1.0");
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--src-tls-verify=false",
            &remote("my-app"),
            &local,
        ],
    );
    let image = format!("{}:1.0", layout.display());
    run(
        "umoci",
        &["config", "--image", &image, "--config.user", "ghost"],
    );
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &local,
            &remote("ghost"),
        ],
    );
}

fn run(program: impl AsRef<Path>, arguments: &[&str]) {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}

#[test]
fn every_pod_says_why_it_does_not_run() {
    let cluster = Cluster::up("reasons", 1, 1);
    push_ghost(&cluster);
    // Ports and paths of the node are not for everybody.
    cluster.barge(&[
        "label",
        "namespace",
        "default",
        "pod-security.kubernetes.io/enforce=privileged",
        "--overwrite",
    ]);
    let taken = "containers: [{MAIN, ports: [{containerPort: 8080, hostPort: 18099}]}]";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: there}\nstringData: {a: b}\n";
    let first = cluster.write("first.yaml", &(manifest("taker", taken) + secret));
    cluster.barge(&["apply", "--wait", "-f", first.to_str().unwrap()]);
    let all: String = ROWS.iter().map(|row| manifest(row.pod, row.spec)).collect();
    cluster.apply(&all);
    for row in ROWS {
        eventually_within(
            DEADLINE,
            &format!("{} says {}", row.pod, row.status),
            || {
                let shown = cluster.barge(&["get", "pod", row.pod]);
                let words: Vec<_> = shown
                    .lines()
                    .last()
                    .unwrap_or("")
                    .split_whitespace()
                    .collect();
                let text = cluster.barge(&["describe", "pod", row.pod]);
                let (about, events) = text.split_once("Events").unwrap_or((&text, ""));
                let mut missing: Vec<String> = row
                    .says
                    .iter()
                    .filter(|said| !about.contains(**said))
                    .map(ToString::to_string)
                    .collect();
                if words.get(2) != Some(&row.status) {
                    missing.push(format!("status {}", row.status));
                }
                if let Some((reason, message)) = row.event {
                    let told = |line: &str| {
                        line.contains(&format!(" {reason} ")) && line.contains(message)
                    };
                    if !events.lines().any(told) {
                        missing.push(format!("event {reason}: {message}"));
                    }
                }
                match missing.is_empty() {
                    true => Ok(()),
                    false => Err(format!("without {missing:?}:\n{shown}{text}")),
                }
            },
        );
    }
    // What can never be an image is refused before there is a pod.
    let path = cluster.write(
        "invalid.yaml",
        &manifest(
            "invalid",
            r#"containers: [{name: main, image: "Not//An:Image"}]"#,
        ),
    );
    let refused = cluster.try_barge(&["apply", "-f", path.to_str().unwrap()]);
    let words = said(&refused);
    assert!(!refused.status.success(), "{words}");
    for part in [
        "invalid.yaml:4:",
        "spec.containers[0].image",
        "Not//An:Image",
        "must be lower-case",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}
