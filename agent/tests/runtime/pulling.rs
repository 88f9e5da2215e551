//! Images from a real registry: names, mirrors, lies, absence.

use std::{fs, time::Duration};

use barge_agent::runtime::{PullPolicy, Registry, Runtime, containerd::Containerd};
use serde_json::json;

use super::{
    image,
    machine::{Machine, nobody, on_a_machine},
    pods::Pod,
    traces::Traces,
};

#[test]
fn by_mirror_once_for_all_and_then_without_the_registry() {
    on_a_machine(|machine| async move {
        image::push(&machine, "app:1", json!({})).await;
        let runtime = machine.runtime();
        let error = runtime
            .pull("app:1", PullPolicy::Never, nobody())
            .await
            .unwrap_err();
        assert_eq!(error.reason, "ErrImageNeverPull");
        let pulls = futures::future::join_all(
            (0..6).map(|_| runtime.pull("app:1", PullPolicy::Always, nobody())),
        )
        .await;
        let image = pulls[0].as_ref().unwrap();
        assert_eq!(image.name, "docker.io/library/app:1");
        assert!(image.id.starts_with("docker.io/library/app@sha256:"));
        for other in &pulls {
            assert_eq!(other.as_ref().unwrap().id, image.id);
        }
        assert_eq!(machine.ctr(&["image", "ls", "-q"]).trim(), image.name);
        assert_eq!(machine.ctr(&["leases", "ls", "-q"]), "");

        // Somebody deletes something else; what we hold must stay, whatever is collected.
        machine.ctr(&["content", "prune", "references"]);
        let offline = offline(&machine);
        for policy in [PullPolicy::IfNotPresent, PullPolicy::Never] {
            assert_eq!(
                offline.pull("app:1", policy, nobody()).await.unwrap().id,
                image.id
            );
        }
        let error = offline
            .pull("app:1", PullPolicy::Always, nobody())
            .await
            .unwrap_err();
        assert_eq!((error.reason, error.retryable), ("ErrImagePull", true));
        assert!(
            error.message.contains("http://127.0.0.1:9")
                && error.message.contains("cannot be reached"),
            "{error}"
        );
        assert!(error.message.contains("efused"), "{error}");
    });
}

/// The same machine, whose mirror is down.
fn offline(machine: &Machine) -> Containerd {
    let mut options = machine.options();
    options.registries = vec![Registry {
        host: "docker.io".into(),
        mirrors: vec![
            "http://127.0.0.1:9".into(),
            "http://127.0.0.1:10/prefix".into(),
        ],
        plain_http: true,
        ..Registry::default()
    }];
    Containerd::new(options).unwrap()
}

#[test]
fn a_tag_that_moves_and_an_index() {
    on_a_machine(|machine| async move {
        let runtime = machine.runtime();
        image::push(&machine, "app:1", json!({"Cmd": ["one"]})).await;
        let one = runtime
            .pull("app:1", PullPolicy::Always, nobody())
            .await
            .unwrap();
        image::push(&machine, "app:1", json!({"Cmd": ["two"]})).await;
        assert_eq!(
            runtime
                .pull("app:1", PullPolicy::IfNotPresent, nobody())
                .await
                .unwrap()
                .id,
            one.id
        );
        let two = runtime
            .pull("app:1", PullPolicy::Always, nobody())
            .await
            .unwrap();
        assert_ne!(two.id, one.id);
        // By digest, whatever the tag means by now.
        assert_eq!(
            runtime
                .pull(&one.id, PullPolicy::IfNotPresent, nobody())
                .await
                .unwrap()
                .id,
            one.id
        );

        image::push_index("library/app", "1", "many").await;
        let index = runtime
            .pull("app:many", PullPolicy::IfNotPresent, nobody())
            .await
            .unwrap();
        assert_ne!(index.id, two.id);
        // A new control process reads it back from the content store.
        let offline = offline(&machine);
        assert_eq!(
            offline
                .pull("app:many", PullPolicy::IfNotPresent, nobody())
                .await
                .unwrap()
                .id,
            index.id
        );
    });
}

#[test]
fn absence_and_lies_are_told_apart() {
    on_a_machine(|machine| async move {
        let runtime = machine.runtime();
        for image in ["nothing:1", "no/such/thing:2"] {
            let error = runtime
                .pull(image, PullPolicy::IfNotPresent, nobody())
                .await
                .unwrap_err();
            assert_eq!(error.reason, "ErrImagePull");
            assert!(
                error
                    .message
                    .contains("http://127.0.0.1:5000 has no such image"),
                "{error}"
            );
        }
        let error = runtime
            .pull("Not A Name", PullPolicy::Always, nobody())
            .await
            .unwrap_err();
        assert_eq!((error.reason, error.retryable), ("InvalidImageName", false));

        image::push(&machine, "app:1", json!({})).await;
        let before = Traces::of(&machine);
        let layer = largest_blob(&machine);
        let honest = fs::read(&layer).unwrap();
        let mut lying = honest.clone();
        let last = lying.len() - 1;
        lying[last] ^= 1;
        fs::write(&layer, lying).unwrap();
        let error = runtime
            .pull("app:1", PullPolicy::Always, nobody())
            .await
            .unwrap_err();
        assert_eq!(error.reason, "ErrImagePull");
        assert!(error.message.contains("another digest"), "{error}");
        assert_eq!(machine.ctr(&["image", "ls", "-q"]), "");
        assert_eq!(machine.ctr(&["leases", "ls", "-q"]), "");
        fs::write(&layer, honest).unwrap();
        runtime
            .pull("app:1", PullPolicy::Always, nobody())
            .await
            .unwrap();
        assert_ne!(Traces::of(&machine), before);
    });
}

#[test]
fn a_start_without_its_image_says_so_and_another_pull_mends_it() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("web", 0, "sleep 1000");
        let collected = || async {
            machine.ctr(&["image", "rm", "--sync", "docker.io/library/shell:1"]);
            let find = || pod.runtime.find_image("shell:1", nobody());
            assert!(find().await.unwrap().is_none());
        };
        // With the configuration remembered, and by a control process that remembers nothing.
        for runtime in [pod.runtime.clone(), machine.runtime()] {
            collected().await;
            let error = runtime.start_container(&spec).await.unwrap_err();
            assert_eq!((error.reason, error.retryable), ("ErrImagePull", true));
            assert!(error.message.contains("any more"), "{error}");
            let pulled = runtime
                .pull("shell:1", PullPolicy::IfNotPresent, nobody())
                .await;
            assert_eq!(pulled.unwrap().id, pod.image.id);
        }
        pod.runtime.start_container(&spec).await.unwrap();
        let uid = &pod.sandbox.pod_uid;
        let found = pod.runtime.list().await.unwrap();
        for container in found.containers {
            let stopped = pod.runtime.stop_container(&container.id, Duration::ZERO);
            stopped.await.unwrap();
        }
        pod.runtime.remove_sandbox(uid).await.unwrap();
    });
}

/// The file in which the registry keeps the largest layer.
fn largest_blob(machine: &Machine) -> std::path::PathBuf {
    let blobs = machine.path("registry/docker/registry/v2/blobs/sha256");
    let mut largest = (0, std::path::PathBuf::new());
    for prefix in fs::read_dir(blobs).unwrap() {
        for blob in fs::read_dir(prefix.unwrap().path()).unwrap() {
            let data = blob.unwrap().path().join("data");
            largest = largest.max((fs::metadata(&data).unwrap().len(), data));
        }
    }
    largest.1
}

#[test]
fn without_containerd_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut options = barge_agent::runtime::Options::new(folder.path()).unwrap();
        options.socket = folder.path().join("none.sock");
        let runtime = Containerd::new(options).unwrap();
        for error in [
            runtime.version().await.unwrap_err(),
            runtime.list().await.unwrap_err(),
            runtime
                .pull("app:1", PullPolicy::IfNotPresent, nobody())
                .await
                .unwrap_err(),
        ] {
            assert_eq!(
                (error.reason, error.retryable),
                ("RuntimeUnavailable", true),
                "{error}"
            );
            assert!(
                error.message.contains("is it installed and running"),
                "{error}"
            );
        }
    });
}
